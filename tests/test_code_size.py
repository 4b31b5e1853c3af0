"""Small pieces: functions of about eight lines, none over fifty, no file over 280."""

from __future__ import annotations

import ast
import statistics
from pathlib import Path

ROOT = Path(__file__).parents[1]
FILES = [*ROOT.glob("src/**/*.py"), *ROOT.glob("tests/**/*.py")]


def lengths(path: Path) -> dict[str, int]:
    """Lines of every function, without its docstring."""
    found = {}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef) and node.end_lineno is not None:
            doc = node.body[0] if ast.get_docstring(node) is not None else None
            words = doc.end_lineno - doc.lineno + 1 if doc is not None and doc.end_lineno is not None else 0
            found[f"{path.relative_to(ROOT)}:{node.name}"] = node.end_lineno - node.lineno + 1 - words
    return found


def test_functions_are_short() -> None:
    source = {name: n for path in FILES if "src" in path.parts for name, n in lengths(path).items()}
    assert {name: n for name, n in source.items() if n > 50} == {}
    assert statistics.median(source.values()) <= 8


def test_files_are_short() -> None:
    long = {path.relative_to(ROOT).as_posix(): len(path.read_text().splitlines()) for path in FILES}
    assert {name: n for name, n in long.items() if n > 280} == {}
