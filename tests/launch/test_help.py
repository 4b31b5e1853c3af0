"""What the command says of itself. Oracles: the files of conf/, and Hydra, which composes the examples."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys

import pytest
import yaml
from hydra import compose, initialize_config_dir

from netslim.launch import command_line, help, resolvers
from netslim.launch.command_line import CONF
from netslim.launch.settings import SETTINGS

EXAMPLES = [line.split("   ")[0].strip() for line in help.HELP.split("Examples:")[1].splitlines() if "=" in line][:5]


def test_help_is_short_and_names_the_six_settings_that_there_are():
    lines = help.HELP.splitlines()
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 101
    named = re.findall(r"^  (\w+) {2,}\S", help.HELP.split("matter:")[1].split("Examples:")[0], flags=re.MULTILINE)
    assert named == ["lambda", "ratio", "net", "data", "epochs", "seed"]
    assert set(named) <= set(SETTINGS)


@pytest.mark.parametrize("example", EXAMPLES)
def test_every_example_composes(example):
    words = [word for word in shlex.split(example)[1:] if word != "-m"]
    one = [word.split(",")[0] for word in words]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        compose("config", one)


def test_the_settings_are_those_of_the_files_with_their_comments():
    said = help.settings(CONF)
    config = (CONF / "config.yaml").read_text()
    own = [key for key in yaml.safe_load(config) if key not in ("defaults", "hydra")]
    for key in own:
        assert re.search(rf"^{key}:", said, flags=re.MULTILINE), key
    assert "# strength of the penalty on γ (equation 1)" in said
    assert "hydra.run" not in said
    assert (CONF / "slimming" / "default.yaml").read_text().strip() in said
    for group in (path for path in CONF.iterdir() if path.is_dir() and path.name != "hydra"):
        for choice in group.glob("*.yaml"):
            assert re.search(rf"^# {group.name}: .*\b{choice.stem}\b", said, flags=re.MULTILINE), choice


SAID = {
    ("--help",): help.HELP,
    ("experiment=lab4", "-h"): help.HELP,
    ("--settings",): help.settings(CONF),
    (): help.START,
}


@pytest.mark.parametrize("words", SAID, ids=" ".join)
def test_it_is_said_whatever_else_stands_there(words, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["netslim", *words])
    with pytest.raises(SystemExit) as end:
        command_line.answer()
    assert not end.value.code
    assert capsys.readouterr().out == SAID[words]


def test_help_loads_no_torch():
    code = (
        "import sys; sys.argv = ['netslim', '--help']\n"
        "from netslim.launch import app\n"
        "try: app.main()\n"
        "except SystemExit: pass\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    resolvers.register()
