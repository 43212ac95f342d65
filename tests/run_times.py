"""How long each notebook runs, measured by every run of their tests, beside what its head says.

`conftest` registers the plugin: after a run that executed notebooks, pytest prints a table of measured seconds, and
the run fails if a notebook took another time than it promises. So no promise goes stale: CI measures it each time.
(`pytest notebooks` alone does not load `tests/conftest.py`, and so measures nothing.)
"""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest

#: Seconds that the words of a head promise on two free cores, at least and at most.
PROMISED = {"takes less than one": (0, 75), "takes about one": (15, 120)}
#: How many times slower a machine may be than the promise's; beyond, it is the notebook that has become slow.
SLOWER = 2.5
_SENTENCE = re.compile(r"\*\*Time\*\* about (\d+) minutes with the exercises\. Running every cell (takes [a-z ]+)\.")


def promise(head: str) -> tuple[int, str] | None:
    """Minutes of learning and the words on the run time in a lesson's first cell; None if they are missing."""
    match = _SENTENCE.search(head)
    return (int(match[1]), match[2]) if match else None


def fault(words: str, seconds: float, free: float) -> str:
    """What is wrong with a promise, given the seconds that were measured and those that a free machine would have
    taken; empty if nothing."""
    least, most = PROMISED[words]
    said = f"its head says that running every cell {words} minute, and it took"
    if free > SLOWER * most:
        return f"{said} {seconds:.0f} s, about {free:.0f} s of a machine with nothing else to do"
    return f"{said} only {seconds:.0f} s" if seconds < least else ""


def free_share() -> float:
    """The share of the processors that one who wants all of them gets now: the load of the last minute says."""
    if not hasattr(os, "getloadavg"):
        return 1.0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(1.0, cores / max(os.getloadavg()[0], 1e-9))


class RunTimes:
    """Adds up the times of the cells of each notebook; counts only notebooks whose every cell ran and passed.

    Two notebooks run side by side, and a machine may have more to do: a promise is broken only by the time that a
    free machine would have taken.
    """

    def __init__(self, root: Path, share: Callable[[], float] = free_share):
        self.root, self.share = root, share
        self.seconds: dict[str, float] = defaultdict(float)
        self.free: dict[str, float] = defaultdict(float)
        self.passed: Counter[str] = Counter()
        self.faults: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        name = report.nodeid.partition("::")[0]
        if name.endswith(".ipynb"):
            self.seconds[name] += report.duration
            self.free[name] += report.duration * self.share()
            self.passed[name] += report.when == "call" and report.passed

    def complete(self) -> dict[str, float]:
        """Seconds by notebook."""
        found = {}
        for name, seconds in sorted(self.seconds.items()):
            cells = nbformat.read(self.root / name, as_version=4).cells
            # nbval skips a cell without a number of its own, as no committed notebook has one.
            if self.passed[name] == sum(cell.cell_type == "code" for cell in cells):
                found[name] = seconds
        return found

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        for name, seconds in self.complete().items():
            said = promise(nbformat.read(self.root / name, as_version=4).cells[0].source)
            found = fault(said[1], seconds, self.free[name]) if said else ""
            self.faults += [f"{name}: {found}"] if found else []
        if self.faults and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter) -> None:
        measured = self.complete()
        if measured:
            terminalreporter.section("notebooks with a fresh kernel: seconds, and seconds of a free machine")
            for name, seconds in measured.items():
                terminalreporter.line(f"{seconds:6.1f} {self.free[name]:6.1f}  {name}")
        for line in self.faults:
            terminalreporter.line(f"FAILED  {line}", red=True)
