"""Binder and CI: one resolution, an image with the right Python, and a course that fits into a workshop's memory."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCKS = {name: ROOT / name / "requirements.txt" for name in (".ci", "binder")}
NOTEBOOK = "01_returns_and_advantages.ipynb"


def pins(name: str) -> dict[str, Version]:
    lines = LOCKS[name].read_text().splitlines()
    return {canonicalize_name(package): Version(pin) for package, pin in (line.split("==") for line in lines)}


def direct(*extras: str) -> list[Requirement]:
    """The direct dependencies of the project with these extras, where the locks are for: Python 3.11 on Linux."""
    optional = PROJECT["optional-dependencies"]
    wanted = [Requirement(line) for line in PROJECT["dependencies"] + [line for e in extras for line in optional[e]]]
    here = {"python_version": "3.11", "sys_platform": "linux", "extra": ""}
    found = []
    for requirement in wanted:
        if canonicalize_name(requirement.name) == canonicalize_name(PROJECT["name"]):
            found += direct(*requirement.extras)
        elif requirement.marker is None or requirement.marker.evaluate(here):
            found.append(requirement)
    return found


# Locks


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_is_pins_and_nothing_else(name):
    for line in LOCKS[name].read_text().splitlines():
        assert re.fullmatch(r"[a-z0-9][a-z0-9.-]*==[0-9][0-9a-z.+]*", line), line


def test_binder_installs_what_ci_tested():
    assert pins("binder").items() <= pins(".ci").items()


@pytest.mark.parametrize(
    ("name", "extras"), [(".ci", list(PROJECT["optional-dependencies"])), ("binder", ["lab", "envs", "binder"])]
)
def test_a_lock_satisfies_every_direct_dependency(name, extras):
    locked = pins(name)
    for requirement in direct(*extras):
        pin = locked.get(canonicalize_name(requirement.name))
        assert pin is not None and requirement.specifier.contains(pin), f"{requirement}: locked {pin}; run .ci/lock"


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_is_for_the_cpu(name):
    assert not [package for package in pins(name) if re.search("nvidia|cuda|rocm|torch|tensorflow|-tpu", package)]


# Continuous integration


def test_the_workflow_calls_what_ci_runs_on_a_python_of_the_lock():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    tests = workflow["jobs"]["tests"]
    assert {"run": "bash .ci/run"} in tests["steps"]
    assert tests["container"].startswith("python:3.11-")
    assert workflow["jobs"]["unpinned"]["env"] == {"ARTIFEX_RL_UNPINNED": "1"}


@pytest.mark.parametrize("script", [".ci/run", ".ci/lock", "binder/postBuild"])
def test_a_script_can_be_executed(script):
    assert os.access(ROOT / script, os.X_OK)
    subprocess.run(["bash", "-n", ROOT / script], check=True)


def test_a_skipped_test_fails_ci_and_an_expected_failure_does_not(tmp_path):
    def check(**tests: str) -> subprocess.CompletedProcess:
        bodies = "".join(f"def test_{name}():\n    {body}\n" for name, body in tests.items())
        (tmp_path / "test_it.py").write_text(f"import pytest\n{bodies}")
        # Neither our configuration nor CI's options: a report of its own.
        plain = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
        plain["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
        options = [
            "-p",
            "no:cacheprovider",
            "-c",
            os.devnull,
            f"--rootdir={tmp_path}",
            f"--junitxml={tmp_path}/x.xml",
        ]
        subprocess.run(
            [sys.executable, "-m", "pytest", *options, tmp_path], env=plain, check=True, capture_output=True
        )
        return subprocess.run(
            [sys.executable, ROOT / ".ci" / "skips.py", tmp_path / "x.xml"], capture_output=True, text=True
        )

    assert check(passes="assert True", fails_as_expected="pytest.xfail('known')").returncode == 0
    skipping = check(passes="assert True", drags="pytest.skip('no Chromium')")
    assert skipping.returncode != 0
    assert "test_drags" in skipping.stderr and "no Chromium" in skipping.stderr


# The image


def test_repo2docker_makes_an_image_with_our_python_and_runs_post_build():
    command = [Path(sys.executable).parent / "jupyter-repo2docker", "--no-build", "--debug", "."]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    dockerfile = run.stdout + run.stderr
    assert run.returncode == 0, dockerfile
    # The lock file of the base image's conda packages, in repo2docker's spelling of special characters.
    assert re.search(r"environment-2epy-2d3-2e11-\S*lock", dockerfile)
    assert 'pip install --no-cache-dir -r "binder/requirements.txt"' in dockerfile
    assert "RUN ./binder/postBuild" in dockerfile


MEASURE = """
import resource, sys
import nbformat
from nbclient import NotebookClient
notebook = nbformat.read(sys.argv[1], 4)
NotebookClient(notebook, timeout=300).execute()
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)  # kB, of the largest process: the kernel
"""

TRUSTED = """
import sys
import nbformat
from jupyter_core.paths import jupyter_data_dir
from nbformat.sign import NotebookNotary
with NotebookNotary(data_dir=jupyter_data_dir()) as notary:
    print(all(notary.check_signature(nbformat.read(file, nbformat.NO_CONVERT)) for file in sys.argv[1:]))
"""


@pytest.mark.slow
def test_an_environment_of_binders_files_alone_runs_notebook_01_in_a_gigabyte(tmp_path, record_property):
    kept_out = shutil.ignore_patterns(".git", ".venv*", "__pycache__", ".*_cache", ".ipynb_checkpoints")
    repository = shutil.copytree(ROOT, tmp_path / "repository", ignore=kept_out)
    venv.create(tmp_path / "venv", with_pip=True)
    inside = tmp_path / "venv" / "bin"
    # A user of its own, who has no Jupyter settings, and no constraints but Binder's.
    user = {
        name: value for name, value in os.environ.items() if not re.match("JUPYTER|IPYTHON|PYTHON|PIP_CONSTR", name)
    }
    user |= {f"JUPYTER_{kind}_DIR": str(tmp_path / kind) for kind in ("CONFIG", "DATA", "RUNTIME")}
    user |= {"IPYTHONDIR": str(tmp_path / "ipython"), "PATH": f"{inside}{os.pathsep}{os.environ['PATH']}"}

    def run(*command, cwd=repository) -> str:
        result = subprocess.run(command, cwd=cwd, env=user, capture_output=True, text=True)
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    run(inside / "pip", "install", "--quiet", "-r", "binder/requirements.txt")
    run("binder/postBuild")
    run(inside / "pip", "check")

    notebooks = sorted(path.name for path in (repository / "notebooks").glob("*.ipynb"))
    assert run(inside / "python", "-c", TRUSTED, *notebooks, cwd=repository / "notebooks") == "True\n"
    megabytes = int(run(inside / "python", "-c", MEASURE, NOTEBOOK, cwd=repository / "notebooks")) / 1024
    record_property("peak_megabytes", round(megabytes))
    print(f"peak memory of notebook 01's kernel: {megabytes:.0f} MB")
    assert megabytes < 1024
