r"""A Table as LaTeX, for a paper with the package booktabs."""

from __future__ import annotations

from netslim.report.render.document import Table

SIGNS: dict[str, str | int | None] = {
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "λ": r"$\lambda$",
    "γ": r"$\gamma$",
    "×": r"$\times$",
    "±": r"$\pm$",
    "−": "$-$",
    "–": "--",
    "\u202f": r"\,",
}


def render(table: Table) -> str:
    """A `tabular` with the table's head and rows; the caption is a comment above it."""
    lines = [f"% {' '.join(table.caption.split())}"]
    lines += [rf"\begin{{tabular}}{{{table.align.replace('w', 'l')}}}", r"\toprule", _row(table.head), r"\midrule"]
    lines += [_row(row) for row in table.rows]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def _row(cells: list[str]) -> str:
    return " & ".join(map(escape, cells)) + r" \\"


def escape(text: str) -> str:
    r"""Text that LaTeX prints as it is.

    >>> print(escape("50 % & λ_1"))
    50 \% \& $\lambda$\_1
    """
    return text.translate(str.maketrans(SIGNS))
