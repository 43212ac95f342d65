"""Memory of a kernel: what a compiler has used, given back to the system."""

from __future__ import annotations

import ctypes
import gc
import os
from pathlib import Path
from typing import Any

STATM = Path("/proc/self/statm")
#: Bytes that a process may grow by before it is worth a third of a second to look for what it could do without.
WORTH_IT = 64 * 2**20
_least = 0
#: What `mallopt` calls the number of arenas.
M_ARENA_MAX = -8


def give_memory_back(*event: Any) -> bool:
    """Return free memory to the system, where the C library can (glibc); as a hook only if the process has grown.

    Compiling a training loop takes some 200 MB for a moment, which the C library keeps for the next time. A notebook
    that compiles several would hold on to all of it, and a workshop's kernels have 1 GB each. As a hook:
    `get_ipython().events.register("post_run_cell", give_memory_back)`.

    Returns:
        Whether anything was given back.
    """
    global _least
    if event and STATM.exists() and resident_memory() < _least + WORTH_IT:
        return False
    gc.collect()
    try:
        given = bool(ctypes.CDLL(None).malloc_trim(0))
    except (OSError, TypeError, AttributeError):  # Windows, macOS, musl
        return False
    _least = resident_memory() if STATM.exists() else 0
    return given


def share_arenas() -> bool:
    """Let all threads allocate from two arenas, where the C library has them (glibc); whether it does.

    By itself it makes one for each thread that allocates, up to eight for a core, and what was freed in one is not
    there for the others. A compiler has several threads: notebook 04, run in one process, had 907 MB at its
    peak in place of 973.
    """
    try:
        return bool(ctypes.CDLL(None).mallopt(M_ARENA_MAX, 2))
    except (OSError, TypeError, AttributeError):  # Windows, macOS, musl
        return False


def resident_memory() -> int:
    """Bytes that this process has in memory now; Linux alone says so in this way."""
    return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
