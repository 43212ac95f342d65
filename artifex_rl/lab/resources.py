"""Cores and memory that this process may use: those of the machine, or of the container that it runs in.

A container's limit is not seen by what counts the machine's memory, and a kernel that goes beyond it is killed
without a word. On Linux limits are read from control groups of either version, up to the root.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUPS = Path("/proc/self/cgroup")


def memory_limit(cgroups: Path = CGROUPS, own: Path = OWN_CGROUPS) -> int:
    """Bytes: the least of the machine's memory and of every limit above this process.

    Args:
        cgroups: where control groups are mounted.
        own: the file that names the groups of this process.
    """
    import psutil

    limits = [psutil.virtual_memory().total]
    for name in ("memory.max", "memory.limit_in_bytes"):
        limits += [int(text) for text in _read(name, "memory", cgroups, own) if text != "max"]
    return min(limits)


def free_memory() -> int:
    """Bytes that the machine could give to programs now; a container's limit is not in it."""
    import psutil

    return psutil.virtual_memory().available


def core_limit(cgroups: Path = CGROUPS, own: Path = OWN_CGROUPS) -> float:
    """Cores: those that this process may run on, or a quota of them, which may be a fraction.

    Args:
        cgroups: where control groups are mounted.
        own: the file that names the groups of this process.
    """
    affinity = getattr(os, "sched_getaffinity", None)  # Linux only
    limits = [float(len(affinity(0)) if affinity else os.cpu_count() or 1)]
    for text in _read("cpu.max", "cpu", cgroups, own):
        quota, period = text.split()
        limits += [int(quota) / int(period)] if quota != "max" else []
    quotas, periods = (_read(f"cpu.cfs_{part}_us", "cpu", cgroups, own) for part in ("quota", "period"))
    limits += [int(quota) / int(period) for quota, period in zip(quotas, periods, strict=True) if int(quota) > 0]
    return min(limits)


def _read(name: str, controller: str, cgroups: Path, own: Path) -> Iterator[str]:
    """The texts of all files of this name in the groups of this process and in those above them."""
    lines = own.read_text().splitlines() if own.is_file() else []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        # Version 2 has one tree and no names; in version 1 each controller has a tree of its own.
        if controllers and controller not in controllers.split(","):
            continue
        tree = cgroups / controllers if controllers else cgroups
        if controllers and not tree.is_dir():  # "cpu,cpuacct" is often mounted as "cpu"
            tree = cgroups / controller
        group = tree / path.lstrip("/")
        # In a container the path is often the host's, and the group itself is mounted as the root.
        for folder in (group, *group.parents):
            if folder.is_relative_to(tree) and (folder / name).is_file():
                yield (folder / name).read_text().strip()
