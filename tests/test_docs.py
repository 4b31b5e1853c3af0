"""The pages say what is there: every relative link leads somewhere, every command composes, the first page is short."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig

from netslim.launch.command_line import CONF

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("src/netslim/**/README.md")), ROOT / "outputs/published/README.md"]
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
COMMAND = re.compile(r"^\s*(?:while timeout \d+ |PYTHONPATH=\S+ )*(netslim (?!-).*|netslim -m .*)$", re.MULTILINE)
INLINE = re.compile(r"`(?:PYTHONPATH=\S+ )?(netslim [^`]+)`")


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def commands(text: str) -> list[str]:
    """The `netslim ...` commands of a page, in lines of their own and in sentences."""
    blocks = re.sub(r"\\\n\s*", "", text)
    found = [line.split("  #")[0].split("      ")[0] for line in COMMAND.findall(blocks)] + INLINE.findall(text)
    return [re.sub(r";.*", "", command).strip() for command in found]


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_relative_link_exists(page: Path) -> None:
    links = [link for link in LINK.findall(page.read_text()) if not re.match(r"\w+:", link)]
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_the_first_page_is_short() -> None:
    assert len((ROOT / "README.md").read_bytes()) <= 12288


def test_a_broken_link_and_a_wrong_command_are_found() -> None:
    assert LINK.findall("see [a](src/none.py) and [b](x.md#part)") == ["src/none.py", "x.md"]
    assert commands("    netslim -m experiment=nothing      # a\nrun `netslim lambda=1` now") == [
        "netslim -m experiment=nothing",
        "netslim lambda=1",
    ]


@pytest.mark.parametrize(
    "command", sorted({command for page in PAGES for command in commands(page.read_text())}), ids=str
)
def test_every_command_composes(command: str) -> None:
    """The words after -m and before the first flag of Hydra's own; placeholders such as FOLDER are values."""
    words = [word for word in shlex.split(command)[1:] if word not in ("-m", "…", "...")]
    if any(word.startswith("-") for word in words) or not words:
        return  # --help, --cfg, --version: nothing to compose
    swept = [
        word.split(",")[0] if word.startswith(("lambda=", "ratio=", "seed=", "method=")) else word for word in words
    ]
    plain = [word for word in swept if not word.startswith("hydra") and "(" not in word]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        HydraConfig.instance().set_config(compose("config", plain, return_hydra_config=True))
