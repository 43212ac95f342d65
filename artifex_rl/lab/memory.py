"""Memory of a kernel: what a compiler has used, given back to the system."""

from __future__ import annotations

import ctypes
import gc
from typing import Any


def give_memory_back(*_: Any) -> bool:
    """Return free memory to the system, where the C library can (glibc).

    Compiling a training loop takes some 200 MB for a moment, which the C library keeps for the next time. A notebook
    that compiles several would hold on to all of it, and a workshop's kernels have 1 GB each. As a hook:
    `get_ipython().events.register("post_run_cell", give_memory_back)`.

    Returns:
        Whether anything was given back.
    """
    gc.collect()
    try:
        return bool(ctypes.CDLL(None).malloc_trim(0))
    except (OSError, TypeError, AttributeError):  # Windows, macOS, musl
        return False
