"""The doctor says within a minute whether THIS machine, kernel and browser can run everything, and what to do if not.

    python -m artifex_rl.lab.doctor               # a line for each check; exit code 0 only if nothing failed
    python -m artifex_rl.lab.doctor --json        # the same for a script, such as a JupyterHub's
    python -m artifex_rl.lab.doctor --page FILE   # a page that tries the browser it is opened in

Checks are independent, and one that breaks is a finding like any other. Nothing is downloaded, installed or changed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass

from artifex_rl.lab.doctor.browser import check_browser, write_page
from artifex_rl.lab.doctor.finding import Finding, python_command
from artifex_rl.lab.doctor.kernels import check_kernel, check_server, check_subshells
from artifex_rl.lab.doctor.machine import (
    check_cores,
    check_data,
    check_jax,
    check_memory,
    check_notebooks,
    check_packages,
    check_python,
)

__all__ = ["CHECKS", "Examination", "Finding", "as_json", "as_text", "examine", "write_page"]

#: By name, in the order in which they are run: what others stand on comes first.
CHECKS: dict[str, Callable[[], Finding]] = {
    "python": check_python,
    "packages": check_packages,
    "memory": check_memory,
    "cores": check_cores,
    "jax": check_jax,
    "data": check_data,
    "notebooks": check_notebooks,
    "kernel": check_kernel,
    "subshells": check_subshells,
    "server": check_server,
    "browser": check_browser,
}


@dataclass(frozen=True)
class Examination:
    """A finding, of which check it is, and how long it took."""

    name: str
    finding: Finding
    seconds: float


def examine(names: Iterable[str] = CHECKS) -> Iterator[Examination]:
    """Run checks one after another, and hand over each as soon as it is done.

    Args:
        names: of `CHECKS`.

    Raises:
        ValueError: a check is called otherwise.
    """
    names = list(names)
    unknown = [name for name in names if name not in CHECKS]
    if unknown:
        raise ValueError(f"check: got {', '.join(unknown)}, needs some of {', '.join(CHECKS)}")
    for name in names:
        start = time.perf_counter()
        try:
            finding = CHECKS[name]()
        except Exception as error:  # what a broken machine raises is not known beforehand
            finding = Finding(
                "failed",
                f"the check itself broke: {type(error).__name__}: {error}",
                "a check that runs",
                f"see “packages” first; then: {python_command('-m', 'artifex_rl.lab.doctor', '--only', 'packages')}",
            )
        yield Examination(name, finding, time.perf_counter() - start)


def as_text(one: Examination) -> str:
    """One line, and where something is to be done a second."""
    finding = one.finding
    found = " ".join(finding.found.split())
    line = f"{finding.status:<8} {one.name:<10} {found}  (needs {finding.needed})  {one.seconds:.1f} s"
    return line + (f"\n{'':<8} {'':<10} → {finding.remedy}" if finding.remedy else "")


def as_json(examinations: Iterable[Examination]) -> dict:
    """`{"ok": …, "seconds": …, "checks": [{"name", "status", "found", "needed", "remedy", "seconds"}, …]}`."""
    checks = [{"name": e.name, **asdict(e.finding), "seconds": round(e.seconds, 2)} for e in examinations]
    return {
        "ok": all(check["status"] != "failed" for check in checks),
        "seconds": round(sum(check["seconds"] for check in checks), 2),
        "checks": checks,
    }
