"""The C library's allocator, set for training on a CPU."""

from __future__ import annotations

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # malloc.h


def keep_freed_memory() -> None:
    """Have this process keep what it frees, for its next tensors; nothing where the C library is not glibc.

    glibc gives every block over 32 MB back when it is freed, and the system clears it page by page before it is given
    out again: in every step, for every activation of a large batch. What is kept counts as used by the process.
    """
    if sys.platform == "linux" and (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)):
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, -1)
