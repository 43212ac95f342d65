"""The kernels that nbval starts: each listens on files of its own, and on two processors each of two has its own.

A plugin that pytest loads by name, so that `pytest notebooks` alone has it too.
"""

from __future__ import annotations

import os
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import nbval.kernel
from jupyter_client.manager import KernelManager


def pytest_configure() -> None:
    """Where there are files to listen on and processors to choose, nbval gets its kernels from here."""
    if sys.platform == "linux":
        nbval.kernel.KernelManager = TestedKernel


class TestedKernel(KernelManager):
    """A kernel without ports: those are looked for, given back, and bound by the kernel a second later; in a long
    run, with a browser beside, somebody else may have one by then, and the kernel dies."""

    __test__ = False

    def __init__(self, **options):
        super().__init__(transport="ipc", ip=os.path.join(tempfile.gettempdir(), f"kernel-{uuid.uuid4()}"), **options)

    def start_kernel(self, **options) -> None:
        """XLA starts a thread for every processor that it sees. Two kernels side by side with two threads each wait
        for each other: with a processor each, both are sooner done."""
        with _on(own_processor()):
            super().start_kernel(**options)


def own_processor() -> set[int]:
    """This worker's processor, if there is a worker for each (`-n`); else all that this process may use."""
    every = sorted(os.sched_getaffinity(0))
    worker = os.environ.get("PYTEST_XDIST_WORKER", "").removeprefix("gw")
    if not worker or int(os.environ["PYTEST_XDIST_WORKER_COUNT"]) < len(every):
        return set(every)
    return {every[int(worker) % len(every)]}


@contextmanager
def _on(processors: set[int]) -> Iterator[None]:
    """What is started within inherits the choice."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, processors)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
