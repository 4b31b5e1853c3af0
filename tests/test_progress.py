"""What a person sees on a real (pseudo-)terminal."""

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest


@pytest.mark.slow
def test_a_terminal_gets_one_bar_with_epoch_loss_accuracy_and_dead_scales(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 150, 0, 0))
    words = ["experiment=lab4_digits", "epochs=2", "finetune.epochs=0", "lambda=1e-2", f"outputs={tmp_path}"]
    with subprocess.Popen(
        [sys.executable, "-m", "netslim", *words], stdout=subprocess.DEVNULL, stderr=theirs
    ) as process:
        os.close(theirs)
        seen = b""
        while True:
            try:
                chunk = os.read(ours, 4096)
            except OSError:  # how a terminal says that the other side is closed
                break
            if not chunk:
                break
            seen += chunk
    os.close(ours)
    assert process.returncode == 0
    bars = seen.decode().replace("\r\n", "\r").split("\r")
    last = [bar for bar in bars if bar.strip()][-1]
    for word in ("train_lambda=0.01_seed=0", "100%", "42/42", "epoch 2/2", "loss ", "accuracy ", "val ", "dead γ "):
        assert word in last
    assert seen.count(b"\n") == 1
