"""The command `netslim-report outputs/<name>`: render the report again from what is recorded."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from netslim.report import build
from netslim.report.render import pdf

DESCRIPTION = "Write the report of one or several sweeps from their records."


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0 and the path of the page on stdout, or 2 and one line on stderr."""
    options = _parser().parse_args(arguments)
    try:
        page = build(*options.sweeps, formats=options.format, width=options.width)
        print(pdf.print_page(page) if options.pdf else page)
    except (ValueError, OSError) as error:
        print(f"netslim-report: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="netslim-report", description=DESCRIPTION)
    parser.add_argument("sweeps", type=Path, nargs="+", metavar="sweep", help="the folder of a sweep, outputs/<name>")
    draw = "also draw every figure for print, as pdf, svg or png"
    parser.add_argument("--format", type=lambda text: text.split(","), default=(), metavar="pdf,svg", help=draw)
    width = "the width of those, in inches (3.35: one column)"
    parser.add_argument("--width", type=float, default=3.35, metavar="INCHES", help=width)
    parser.add_argument(
        "--pdf", action="store_true", help="also print the page as report.pdf; needs Chromium or Chrome"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
