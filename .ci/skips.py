"""Fail if a test was skipped: `skips.py pytest.xml`. What needs a browser or an extra must not pass by not running.

Cells of notebooks are exempt: an exercise may leave one out on purpose.
"""

import sys
from pathlib import Path
from xml.etree import ElementTree


def skipped(report: Path) -> list[str]:
    """The tests in a JUnit report that were skipped, each with its reason (an expected failure is no skip)."""
    found = []
    for case in ElementTree.parse(report).iter("testcase"):
        skip = case.find("skipped")
        if skip is None or skip.get("type") == "pytest.xfail" or case.get("classname", "").startswith("notebooks"):
            continue
        found.append(f"{case.get('classname')}::{case.get('name')}: {skip.get('message')}")
    return found


if __name__ == "__main__":
    report = Path(sys.argv[1])
    if not report.is_file():
        sys.exit("pytest wrote no report")
    if found := skipped(report):
        sys.exit("Skipped, and CI skips nothing:\n" + "\n".join(found))
