"""The kernels that nbval starts: each listens on files of its own.

A plugin that pytest loads by name, so that `pytest notebooks` alone has it too.
"""

from __future__ import annotations

import os
import sys
import tempfile
import uuid

import nbval.kernel
from jupyter_client.manager import KernelManager


def pytest_configure() -> None:
    """Where there are files to listen on, nbval gets its kernels from here."""
    if sys.platform == "linux":
        nbval.kernel.KernelManager = TestedKernel


class TestedKernel(KernelManager):
    """A kernel without ports: those are looked for, given back, and bound by the kernel a second later; in a long
    run, with a browser beside, somebody else may have one by then, and the kernel dies.

    It may use every processor. To give each of two workers one of its own, so that kernels do not wait for each
    other, was worth it while XLA computed in two threads; in one, as the lab has it, a notebook alone takes half as
    long again with one processor, because what compiles and what computes then take turns.
    """

    __test__ = False

    def __init__(self, **options):
        super().__init__(transport="ipc", ip=os.path.join(tempfile.gettempdir(), f"kernel-{uuid.uuid4()}"), **options)
