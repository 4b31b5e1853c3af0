"""A network whose making ends its job, the first time, in the way that is asked for."""

import os
import signal
import sys
import time
from pathlib import Path

from netslim.nets import VGG


def network(marks: str, how: str, num_classes: int) -> VGG:
    mark = Path(marks) / how
    if mark.exists():
        how = "nothing"
    mark.touch()
    if how == "raise":
        raise RuntimeError("out of luck\nand of words")
    if how == "refuse":
        raise ValueError("not with me")
    if how == "exit":
        sys.exit(3)
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "term":
        os.kill(os.getpid(), signal.SIGTERM)
    if how == "worker":  # the launcher's process, which takes its jobs with it
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(60)
    return VGG([4, "M", 4], in_channels=1, num_classes=num_classes)
