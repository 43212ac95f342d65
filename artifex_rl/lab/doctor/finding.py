"""What a check of the doctor says."""

from __future__ import annotations

import os
import re
import shlex
import sys
from dataclasses import dataclass

#: There a shell knows double quotes alone, and takes the > of "jax>=0.6" for an output file without them.
WINDOWS = os.name == "nt"
STATUSES = ("ok", "warning", "failed")


@dataclass(frozen=True)
class Finding:
    """The outcome of one check.

    Args:
        status: "ok"; "warning" if the course runs, but less well; "failed" if a part of it does not run.
        found: what is there.
        needed: what the course needs.
        remedy: what to do about it, a command wherever one does it. Needed unless all is well.

    Raises:
        ValueError: there is no such status, or something is wrong and nothing is said to be done about it.
    """

    status: str
    found: str
    needed: str
    remedy: str = ""

    def __post_init__(self):
        if self.status not in STATUSES:
            raise ValueError(f"status: got {self.status!r}, needs one of {', '.join(STATUSES)}")
        if self.status != "ok" and not self.remedy:
            raise ValueError(f"remedy: got none with status {self.status!r}, needs what is to be done")


def python_command(*arguments: str) -> str:
    """A command line for this very Python: that of another environment is half of all trouble."""
    words = [sys.executable, *arguments]
    if WINDOWS:
        return " ".join(f'"{word}"' if re.search(r"[\s<>&|^'()]", word) else word for word in words)
    return shlex.join(words)


def pip_command(*requirements: str) -> str:
    return python_command("-m", "pip", "install", "--upgrade", *requirements)
