"""Checks of the machine: Python, packages, JAX, memory and cores, the data, the notebooks."""

from __future__ import annotations

import importlib
import platform
import shlex
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib import metadata

from artifex_rl.lab.doctor.finding import Finding, pip_command, python_command

PROJECT, EXTRA = "artifex_rl", "lab"
#: Bytes: what the greediest notebook's kernel takes at its peak, and what one learner's server and kernel take
#: together with some air. Measured by benchmarks/start_up.py.
KERNEL_BYTES, LEARNER_BYTES = 1100 * 2**20, 3 * 2**29
#: Seconds after which compiling one small function says that the machine is too slow for a class.
SLOW_COMPILATION = 20


def check_python() -> Finding:
    from packaging.specifiers import SpecifierSet

    here, needed = platform.python_version(), metadata.metadata(PROJECT)["Requires-Python"]
    if here in SpecifierSet(needed, prereleases=True):
        return Finding("ok", here, needed)
    return Finding(
        "failed",
        here,
        needed,
        "install a newer Python (python.org, or your system's packages), then: python3 -m venv .venv && "
        ".venv/bin/pip install -e '.[lab,envs]'",
    )


def requirements(project: str = PROJECT, extras: tuple[str, ...] = (EXTRA,)) -> Iterator:
    """What an installation with these extras needs directly, as `packaging` reads it from the installed metadata."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    for line in metadata.requires(project) or []:
        requirement = Requirement(line)
        if requirement.marker and not any(requirement.marker.evaluate({"extra": name}) for name in ("", *extras)):
            continue
        if canonicalize_name(requirement.name) == canonicalize_name(project):  # an extra that brings another
            wanted = tuple(requirement.extras)
            yield from (found for found in requirements(project, wanted) if found.marker)
        else:
            yield requirement


def specified(names: Iterable[str]) -> list[str]:
    """These packages with the versions that the course asks for, as pip reads them."""
    from packaging.utils import canonicalize_name

    wanted = {canonicalize_name(name) for name in names}
    return [f"{r.name}{r.specifier}" for r in requirements() if canonicalize_name(r.name) in wanted]


def check_packages() -> Finding:
    """Each is imported, too: a package may be there, and broken by its neighbours."""
    modules = _modules()
    wanted, bad, reasons = list(requirements()), [], []
    needed = f"the packages of {PROJECT}[{EXTRA}], importable"
    for requirement in wanted:
        try:
            version = metadata.version(requirement.name)
            if not requirement.specifier.contains(version, prereleases=True):
                reasons.append(f"{requirement.name} {version} (needs {requirement.specifier})")
                bad.append(requirement)
                continue
            for module in modules.get(requirement.name.lower().replace("-", "_"), []):
                importlib.import_module(module)
        except metadata.PackageNotFoundError:
            reasons.append(f"{requirement.name} is missing (needs {requirement.specifier})")
            bad.append(requirement)
        except Exception as error:  # a broken package raises whatever it likes
            reasons.append(f"{requirement.name} cannot be imported ({type(error).__name__}: {error})")
            bad.append(requirement)
    if bad:
        return Finding("failed", "; ".join(reasons), needed, pip_command(*specified(r.name for r in bad)))
    found = f"all {len(wanted)} at the versions asked for, such as jax {metadata.version('jax')}"
    return Finding("ok", found, needed)


def _modules() -> dict[str, list[str]]:
    """The modules of each distribution: the one of its own name, else all that are not private."""
    found: dict[str, list[str]] = {}
    for module, distributions in metadata.packages_distributions().items():
        for distribution in distributions:
            found.setdefault(distribution.lower().replace("-", "_"), []).append(module)
    return {
        name: [m for m in modules if m.lower() == name] or [m for m in modules if m.isidentifier() and m[0] != "_"]
        for name, modules in found.items()
    }


def check_jax() -> Finding:
    """With rewards of 1 and a critic that says 0, GAE is a geometric series: Aₜ = (1 − (γλ)^(T−t)) / (1 − γλ)."""
    import jax
    import numpy as np

    from artifex_rl import compute_gae_advantages

    steps, gamma, gae_lambda = 64, 0.99, 0.95
    start = time.perf_counter()
    compiled = jax.jit(compute_gae_advantages)
    advantages = compiled(np.ones(steps), np.zeros(steps + 1), np.zeros(steps, bool), gamma, gae_lambda)
    seconds = time.perf_counter() - start
    left = np.arange(steps, 0, -1)
    expected = (1 - (gamma * gae_lambda) ** left) / (1 - gamma * gae_lambda)
    error = float(np.abs(np.asarray(advantages) - expected).max())
    found = f"GAE compiled in {seconds:.1f} s on {jax.devices()[0].platform}, off by {error:.0e}"
    needed = f"{SLOW_COMPILATION} s and 1e-04 from the closed form at most"
    if not error < 1e-4:
        return Finding(
            "failed", found, needed, f"JAX_PLATFORMS=cpu, or {pip_command('--force-reinstall', 'jax', 'jaxlib')}"
        )
    if seconds > SLOW_COMPILATION:
        return Finding("warning", found, needed, "close other programs, or use a faster machine; see `cores`")
    return Finding("ok", found, needed)


def check_memory() -> Finding:
    from artifex_rl.lab.resources import free_memory, memory_limit

    limit, free = memory_limit(), free_memory()
    found = f"{limit / 2**30:.1f} GB may be used, {min(free, limit) / 2**30:.1f} GB of it free"
    needed = f"{KERNEL_BYTES / 2**30:.1f} GB for a kernel, {LEARNER_BYTES / 2**30:.1f} GB with JupyterLab"
    if limit < KERNEL_BYTES:
        return Finding(
            "failed",
            found,
            needed,
            f"raise the container's limit (docker run --memory=2g; JupyterHub: mem_limit = '2G'); {LAST_RESORT}",
        )
    if limit < LEARNER_BYTES or free < KERNEL_BYTES:
        return Finding("warning", found, needed, f"close other programs and other kernels; {LAST_RESORT}")
    return Finding("ok", found, needed)


LAST_RESORT = "or hand out pages that need no kernel: ARTIFEX_RL_EMBED=html jupyter nbconvert --execute --to html …"


def check_cores() -> Finding:
    from artifex_rl.lab.resources import core_limit

    cores = core_limit()
    found, needed = f"{cores:g}", "1; 2 are faster"
    if cores < 1:
        return Finding("warning", found, needed, "raise the container's limit (JupyterHub: cpu_limit = 1)")
    return Finding("ok", found, needed)


@contextmanager
def no_network() -> Iterator[None]:
    """Whatever connects to anywhere else raises, so that what passes here passes in a room without a network."""

    def refuse(_, address):
        raise OSError(f"tried to reach {address}; the course must not need a network")

    connect, connect_ex = socket.socket.connect, socket.socket.connect_ex
    socket.socket.connect = socket.socket.connect_ex = refuse
    try:
        yield
    finally:
        socket.socket.connect, socket.socket.connect_ex = connect, connect_ex


def check_data() -> Finding:
    """Files of the package must be what was shipped; another version of another package's data is worth a warning."""
    from artifex_rl.data import fingerprints

    expected = fingerprints.read()
    needed = f"{len(expected['files'])} files, and {', '.join(expected['loaded'])}, without a network"
    here = fingerprints.compute_files()
    changed = [name for name, digest in expected["files"].items() if here.get(name) != digest]
    if changed:
        return Finding(
            "failed",
            f"missing or not as shipped: {', '.join(changed)}",
            needed,
            "install artifex_rl anew; in a clone: git checkout -- artifex_rl/data",
        )
    with no_network():
        loaded, broken = {}, {}
        for name, fingerprint in fingerprints.LOADED.items():
            try:
                loaded[name] = fingerprint()
            except Exception as error:  # another package, another way to fail
                broken[name] = f"{type(error).__name__}: {error}"
    if broken:
        reasons = "; ".join(f"{name} ({reason})" for name, reason in broken.items())
        return Finding("failed", f"cannot be loaded: {reasons}", needed, pip_command(*specified(broken)))
    others = [name for name, text in loaded.items() if expected["loaded"][name] != text]
    if others:
        return Finding(
            "warning",
            f"other data than the course was made with: {', '.join(f'{n} {metadata.version(n)}' for n in others)}",
            needed,
            "numbers in the notebooks will differ; a clone has the versions in binder/requirements.txt: "
            + python_command("-m", "pip", "install", "-r", "binder/requirements.txt"),
        )
    return Finding("ok", f"all as the course was made with, such as {loaded['wordfreq'].split(',')[0]}", needed)


def check_notebooks() -> Finding:
    """Found, and trusted by this user: else JupyterLab shows a sentence where a slider was stored."""
    from jupyter_core.paths import jupyter_data_dir
    from nbformat import NO_CONVERT, read
    from nbformat.sign import NotebookNotary

    from artifex_rl.lab.course import find_course

    needed = "trusted notebooks: else no slider before a cell has run"
    try:
        course, _ = find_course()
    except FileNotFoundError as error:
        return Finding("failed", str(error), needed, "clone the repository, or install artifex_rl anew")
    notebooks = sorted(course.glob("*.ipynb"))
    try:
        with NotebookNotary(data_dir=jupyter_data_dir()) as notary:
            others = [file.name for file in notebooks if not notary.check_signature(read(file, NO_CONVERT))]
    except OSError:  # where Jupyter never ran there is no folder for signatures
        others = [file.name for file in notebooks]
    if others:
        return Finding(
            "warning",
            f"{len(notebooks)} in {course}, of which {len(others)} are not trusted, such as {others[0]}",
            needed,
            f"jupyter trust {shlex.quote(str(course))}/*.ipynb  (python -m artifex_rl.lab does it, too)",
        )
    return Finding("ok", f"{len(notebooks)} in {course}, all trusted", needed)
