"""Who may import whom (src/netslim/README.md): read from the source, so that nothing needs to run."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "netslim"
ORDER = ["launch", "report", "experiment", "training", "measure", "slim_file", "engine", "method", "files", "modules"]
BASE = {"files", "modules"}
LIGHTNING = {"training", "data", "experiment", "launch"}


def imports(path: Path) -> Iterator[tuple[str, str]]:
    """(module, name) of every import in a file, wherever it stands; name is "" for `import module`."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.module or "", alias.name) for alias in node.names)


def room(module: str) -> str:
    """The wing of a netslim module, or its own name where it lies at the top: netslim.engine.api -> engine."""
    return module.split(".")[1] if "." in module else ""


def module_of(path: Path) -> str:
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def resolve(module: str, name: str, known: set[str]) -> str:
    """The module that an import loads: `from netslim.engine import api` is netslim.engine.api."""
    return f"{module}.{name}" if f"{module}.{name}" in known else module


def faults(source: Path = SOURCE) -> list[str]:
    """Every import that breaks a rule, in words."""
    files = {module_of(path): path for path in source.rglob("*.py") if "conf" not in path.parts}
    found = []
    for module, path in files.items():
        wing = room(module)
        if module in ("netslim", "netslim.__main__"):
            continue
        for target, name in imports(path):
            top = target.split(".")[0]
            if top in ("hydra", "omegaconf", "hydra_plugins", "submitit") and wing != "launch":
                found.append(f"{module} imports {target}: the configuration stops at launch")
            if top in ("lightning", "pytorch_lightning") and wing not in LIGHTNING:
                found.append(f"{module} imports {target}: no Lightning under training")
            if top in ("torch", "torchvision") and wing == "report":
                found.append(f"{module} imports {target}: a report needs no torch")
            if top == "torchvision" and wing not in {"data", "launch", "nets", "experiment", "training"}:
                found.append(f"{module} imports {target}: torchvision is for data")
            if top == "netslim":
                loaded = resolve(target, name, set(files))
                other = room(loaded)
                if wing in ("method", "engine") and other == "files":
                    found.append(f"{module} imports {loaded}: the engine writes no files")
                if other != wing and name.startswith("_"):
                    found.append(f"{module} imports {loaded}.{name}: a private name of another wing")
                if other == wing or not other:
                    continue
                if wing in ("data", "nets"):
                    allowed = BASE
                elif wing in BASE:
                    allowed = set()
                else:
                    allowed = {*ORDER[ORDER.index(wing) + 1 :], "data", "nets"}
                if other not in allowed:
                    found.append(f"{module} imports {loaded}: {other} is not below {wing}")
    return found


def cycles(source: Path = SOURCE) -> list[str]:
    """Circles of imports between files, at module level or inside functions."""
    files = {module_of(path): path for path in source.rglob("*.py") if "conf" not in path.parts}
    arrows = {
        module: {resolve(target, name, set(files)) for target, name in imports(path)} & files.keys() - {module}
        for module, path in files.items()
        if module != "netslim"  # the lazy face loads what it is asked for
    }
    done: set[str] = set()
    found = []

    def visit(module: str, trail: tuple[str, ...]) -> None:
        if module in trail:
            found.append(" -> ".join([*trail[trail.index(module) :], module]))
        elif module not in done:
            for target in sorted(arrows.get(module, ())):
                visit(target, (*trail, module))
            done.add(module)

    for module in sorted(arrows):
        visit(module, ())
    return found


def test_wings_import_lower_wings_only() -> None:
    assert faults() == []


def test_no_circles() -> None:
    assert cycles() == []


@pytest.mark.parametrize(
    ("file", "line", "why"),
    [
        ("engine/x.py", "from netslim.training import fit", "training is not below engine"),
        ("method/x.py", "import netslim.engine.api", "engine is not below method"),
        ("experiment/x.py", "from omegaconf import OmegaConf", "stops at launch"),
        ("measure/x.py", "def f():\n    from lightning import Trainer", "no Lightning under training"),
        ("report/x.py", "import torch", "a report needs no torch"),
        ("engine/x.py", "from netslim.files import write_json", "writes no files"),
        ("training/x.py", "from netslim.engine.api import _scales", "private name"),
        ("data/x.py", "from netslim.method import scales", "method is not below data"),
        ("modules.py", "from netslim.files import read_json", "files is not below modules"),
    ],
)
def test_each_rule_can_fail(file: str, line: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same search over a tree with one wrong import finds it."""
    root = tmp_path / "netslim"
    for wing in [*ORDER[:5], "engine", "method", "data"]:
        (root / wing).mkdir(parents=True)
        (root / wing / "__init__.py").touch()
    for name in ("files.py", "modules.py", "training/fit.py", "engine/api.py", "method/scales.py"):
        (root / name).touch()
    monkeypatch.setattr(f"{__name__}.SOURCE", root)
    assert faults(root) == []
    (root / file).write_text(line + "\n")
    assert any(why in fault for fault in faults(root))


def test_a_circle_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "netslim"
    root.mkdir()
    (root / "a.py").write_text("from netslim import b\n")
    (root / "b.py").write_text("def f():\n    import netslim.a\n")
    monkeypatch.setattr(f"{__name__}.SOURCE", root)
    assert cycles(root) == ["netslim.a -> netslim.b -> netslim.a"]
