"""What a user installs: light to import, complete in wheel and sdist, and clear about what an extra would add."""

import json
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest

import artifex_rl

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def python(script: str, executable: str | Path = sys.executable, **options) -> str:
    """What a fresh process prints; its error is ours."""
    run = subprocess.run([executable, "-c", script], capture_output=True, text=True, **options)
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


def files(folder: Path) -> set[str]:
    """The files of a folder of the repository that belong into a wheel or sdist."""
    junk = {"__pycache__", ".ipynb_checkpoints"}
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and not junk & {*path.relative_to(folder).parts}
    }


# Import

OPTIONAL = [
    "matplotlib",
    "ipywidgets",
    "anywidget",
    "IPython",
    "orbax",
    "wandb",
    "tensorboardX",
    "gymnasium",
    "pygame",
    "sklearn",
    "scipy",
]


def test_the_import_brings_nothing_that_an_extra_or_a_later_step_would():
    names = f"import sys, artifex_rl; print([name for name in {OPTIONAL} if name in sys.modules])"
    assert python(names) == "[]\n"


@pytest.mark.slow
def test_the_import_adds_little_to_jax_flax_and_optax():
    new = """
import json, sys
import jax, flax, optax
before = {name.split(".")[0] for name in sys.modules}
import artifex_rl
print(json.dumps(sorted({name.split(".")[0] for name in sys.modules} - before - set(sys.stdlib_module_names))))
"""
    assert set(json.loads(python(new))) <= {"artifex_rl", "jaxtyping", "tqdm"}


@pytest.mark.slow
def test_one_version():
    assert artifex_rl.__version__ == version("artifex_rl")


# Extras


@pytest.mark.parametrize(
    ("missing", "statement", "extra"),
    [
        ("anywidget", "from artifex_rl.lab import AdvantageExplorer", "lab"),
        ("matplotlib", "from artifex_rl.lab import AdvantageExplorer", "lab"),
        ("gymnasium", "from artifex_rl.envs import render_cartpole; render_cartpole([0.0] * 4)", "envs"),
        ("pygame", "from artifex_rl.envs import render_cartpole; render_cartpole([0.0] * 4)", "envs"),
    ],
)
def test_what_an_extra_would_add_is_named_where_it_is_missing(missing, statement, extra):
    absent = f"""
import sys
sys.modules[{missing!r}] = None
try:
    {statement}
except ImportError as error:
    print(error)
"""
    message = python(absent)
    assert missing in message
    assert f"pip install 'artifex_rl[{extra}]'" in message


def test_the_extra_all_is_all_that_a_user_or_developer_asks_for():
    extras = PROJECT["optional-dependencies"]
    assert set(extras) == {"lab", "data", "site", "test", "wandb", "tensorboard", "envs", "binder", "all"}
    assert extras["all"] == ["artifex_rl[lab,envs,site,wandb,tensorboard,test]"]


# README


@pytest.mark.parametrize(("name", "ends"), [("open", "python -m artifex_rl.lab"), ("test", "pytest")])
def test_readmes_two_commands_stand_where_ci_finds_them(name, ends):
    command = re.search(rf"(?ms)^<!-- command: {name} -->\n+```\w+\n(.*?)^```$", (ROOT / "README.md").read_text())
    assert command, f"README.md has no block marked <!-- command: {name} -->"
    assert command[1].strip().endswith(ends)


def test_readmes_badge_opens_the_first_notebook_on_binder():
    assert re.search(
        r"mybinder\.org/v2/\S+labpath=notebooks%2F00_start_here\.ipynb", (ROOT / "README.md").read_text()
    )


# Wheel and sdist


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The sdist, and the wheel made from that sdist."""
    out = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", out, ROOT]
    run = subprocess.run(build, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    return next(out.glob("*.tar.gz")), next(out.glob("*.whl"))


@pytest.mark.slow
def test_the_wheel_holds_the_package_the_course_and_nothing_else(built):
    names = {name for name in zipfile.ZipFile(built[1]).namelist() if ".dist-info/" not in name}
    package = {f"artifex_rl/{name}" for name in files(ROOT / "artifex_rl")}
    course = {f"artifex_rl/notebooks/{name}" for name in files(ROOT / "notebooks")}
    assert names == package | course
    assert {"artifex_rl/py.typed", "artifex_rl/lab/explorer.js", "artifex_rl/notebooks/00_start_here.ipynb"} <= names


@pytest.mark.slow
def test_the_sdist_holds_what_the_tests_need(built):
    with tarfile.open(built[0]) as sdist:
        names = {name.split("/", 1)[1] for name in sdist.getnames()}
    for folder in ("artifex_rl", "notebooks", "tests", "benchmarks", "binder", ".ci"):
        assert {f"{folder}/{name}" for name in files(ROOT / folder)} <= names
    assert {"README.md", "LICENSE", "pyproject.toml"} <= names


@pytest.mark.slow
def test_a_fresh_install_of_the_wheel_draws_an_explorer_and_has_the_course(built, tmp_path):
    venv.create(tmp_path / "venv", with_pip=True)
    fresh = tmp_path / "venv" / "bin" / "python"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    if not os.environ.get("ARTIFEX_RL_UNPINNED"):
        environment["PIP_CONSTRAINT"] = str(ROOT / ".ci" / "requirements.txt")
    elsewhere = {"executable": fresh, "cwd": tmp_path, "env": environment}
    install = [fresh, "-m", "pip", "install", "--quiet", f"{built[1]}[lab]"]
    run = subprocess.run(install, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr

    draw = """
from artifex_rl.lab import AdvantageExplorer
explorer = AdvantageExplorer()
explorer.set(gamma=0.9)
explorer.save_html("x.html")
print(explorer.summary())
"""
    assert python(draw, **elsewhere).strip()
    script = zipfile.ZipFile(built[1]).read("artifex_rl/lab/explorer.js").decode()
    page = (tmp_path / "x.html").read_text()
    # The page calls what the module exports, and may not hold "</" inside a script.
    assert script.rsplit("export default", 1)[0].replace("</", "<\\/") in page
    assert "<svg" in page

    course = python("from artifex_rl.lab.course import find_course; print(*find_course(), sep='\\n')", **elsewhere)
    folder, checkout = course.splitlines()
    assert folder.startswith(str(tmp_path / "venv")) and checkout == "False"
    launcher = subprocess.run([fresh, "-m", "artifex_rl.lab", "--help"], cwd=tmp_path, capture_output=True, text=True)
    assert launcher.returncode == 0 and "--no-browser" in launcher.stdout, launcher.stderr
