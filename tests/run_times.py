"""How long each notebook runs, measured by every run of their tests, beside what its head says.

`conftest` registers the plugin: after a run that executed notebooks, pytest prints a table of measured seconds, and
the run fails if a notebook took another time than it promises. So no promise goes stale: CI measures it each time.
(`pytest notebooks` alone does not load `tests/conftest.py`, and so measures nothing.)
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from pathlib import Path

import nbformat
import pytest

#: Seconds that the words of a head promise, at least and at most. A learner has two cores for a notebook, and CI runs
#: two notebooks on two cores: what takes about a minute there may take two or three here.
PROMISED = {"takes less than one": (0, 120), "takes about one": (15, 180)}
_SENTENCE = re.compile(r"\*\*Time\*\* about (\d+) minutes with the exercises\. Running every cell (takes [a-z ]+)\.")


def promise(head: str) -> tuple[int, str] | None:
    """Minutes of learning and the words on the run time in a lesson's first cell; None if they are missing."""
    match = _SENTENCE.search(head)
    return (int(match[1]), match[2]) if match else None


def fault(words: str, seconds: float) -> str:
    """What is wrong with a promise, given what was measured; empty if nothing."""
    least, most = PROMISED[words]
    if seconds > most:
        return f"its head says that running every cell {words} minute, and it took {seconds:.0f} s"
    if seconds < least:
        return f"its head says that running every cell {words} minute, and it took only {seconds:.0f} s"
    return ""


class RunTimes:
    """Adds up the times of the cells of each notebook; counts only notebooks whose every cell ran and passed."""

    def __init__(self, root: Path):
        self.root = root
        self.seconds: dict[str, float] = defaultdict(float)
        self.passed: Counter[str] = Counter()
        self.faults: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        name = report.nodeid.partition("::")[0]
        if name.endswith(".ipynb"):
            self.seconds[name] += report.duration
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
            found = fault(said[1], seconds) if said else ""
            self.faults += [f"{name}: {found}"] if found else []
        if self.faults and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter) -> None:
        measured = self.complete()
        if measured:
            terminalreporter.section("notebooks, seconds with a fresh kernel")
            for name, seconds in measured.items():
                terminalreporter.line(f"{seconds:6.1f}  {name}")
        for line in self.faults:
            terminalreporter.line(f"FAILED  {line}", red=True)
