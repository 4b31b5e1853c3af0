"""The page on paper, by a browser that is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = (
    "--headless --disable-gpu --disable-background-networking --disable-component-update --disable-sync "
    "--no-first-run --hide-scrollbars --no-pdf-header-footer --generate-pdf-document-outline"
)
SECONDS = 120


def print_page(page: Path) -> Path:
    """Print index.html as report.pdf beside it, on A4.

    Raises:
        ValueError: there is no browser, or it did not print the page.
    """
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise ValueError(f"--pdf needs Chromium or Chrome, and none is on PATH; install one, or print {page} yourself")
    target = page.resolve().with_name("report.pdf")
    target.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        root = ["--no-sandbox"] if os.geteuid() == 0 else []  # its sandbox refuses root
        command = [browser, *FLAGS.split(), *root, f"--user-data-dir={profile}", f"--print-to-pdf={target}"]
        subprocess.run([*command, page.resolve().as_uri()], capture_output=True, timeout=SECONDS, check=False)
    if not target.exists():
        raise ValueError(f"{browser} did not print {page}; open it in a browser and print it there")
    return page.with_name("report.pdf")
