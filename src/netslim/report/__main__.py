"""The command `netslim-report outputs/<name>`: render the report again from what is recorded."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from netslim.report import build


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0 and the path of the page on stdout, or 2 and one line on stderr."""
    parser = argparse.ArgumentParser(prog="netslim-report", description="Write the report of a sweep from its records.")
    parser.add_argument("sweep", type=Path, help="the folder of the sweep, outputs/<name>")
    try:
        print(build(parser.parse_args(arguments).sweep))
    except (ValueError, OSError) as error:
        print(f"netslim-report: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
