"""`python -m artifex_rl.lab`: the course is found, a learner's work is never lost, and what opens is trusted."""

import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from artifex_rl.lab.__main__ import parse
from artifex_rl.lab.course import START, copy_course, find_course, find_notebook

ROOT = Path(__file__).parent.parent


def write(folder: Path, **sources: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, source in sources.items():
        nbformat.write(new_notebook(cells=[new_code_cell(source, id="only")]), folder / f"{name}.ipynb")
    return folder


@pytest.fixture
def course(tmp_path):
    """A course as a wheel holds it."""
    return write(tmp_path / "wheel" / "notebooks", **{"00_start_here": "0", "01_returns": "1", "02_reinforce": "2"})


def sources(folder: Path) -> dict[str, str]:
    return {file.stem: nbformat.read(file, 4).cells[0].source for file in sorted(folder.glob("*.ipynb"))}


# Finding


def test_a_checkout_is_opened_in_place_and_a_wheel_is_not(tmp_path, course):
    assert find_course(course.parent) == (course, False)

    checkout = write(tmp_path / "clone" / "notebooks", **{"00_start_here": "0"})
    (tmp_path / "clone" / "artifex_rl").mkdir()
    (tmp_path / "clone" / "pyproject.toml").touch()
    assert find_course(tmp_path / "clone" / "artifex_rl") == (checkout, True)

    with pytest.raises(FileNotFoundError, match=START):
        find_course(tmp_path / "nowhere")


def test_site_packages_with_a_folder_called_notebooks_is_no_checkout(course):
    write(course.parent.parent / "notebooks", **{"00_start_here": "somebody else's"})
    assert find_course(course.parent) == (course, False)


def test_this_repository_is_found():
    assert find_course(ROOT / "artifex_rl") == (ROOT / "notebooks", True)


def test_every_notebook_names_its_kernel():
    """Else JupyterLab's first words to the learner are a question about kernels."""
    for file in (ROOT / "notebooks").glob("*.ipynb"):
        assert nbformat.read(file, 4).metadata.get("kernelspec", {}).get("name") == "python3", file.name


@pytest.mark.parametrize("name", ["01", "01_returns", "01_returns.ipynb", "notebooks/01_returns.ipynb"])
def test_a_notebook_is_found_by_as_little_as_its_number(course, name):
    assert find_notebook(course, name) == course / "01_returns.ipynb"


@pytest.mark.parametrize("name", ["07", "", "0", "returns"])
def test_an_unknown_or_ambiguous_notebook_lists_the_notebooks(course, name):
    with pytest.raises(ValueError, match=r"(?s)00_start_here.*01_returns.*02_reinforce"):
        find_notebook(course, name)


# Copying


def test_a_copy_is_exact_and_can_be_repeated(tmp_path, course):
    (course / "img").mkdir()
    (course / "img" / "pole.png").write_bytes(b"png")
    (course / ".ipynb_checkpoints").mkdir()
    (course / ".ipynb_checkpoints" / "00_start_here-checkpoint.ipynb").touch()
    mine = tmp_path / "mine"
    for _ in range(2):
        current, kept = copy_course(course, mine)
        assert [file.relative_to(mine).as_posix() for file in current] == [
            *("00_start_here.ipynb", "01_returns.ipynb", "02_reinforce.ipynb", "img/pole.png")
        ]
        assert not kept
    assert sources(mine) == sources(course)
    assert not (mine / ".ipynb_checkpoints").exists()


def test_what_the_learner_changed_is_kept_and_the_rest_follows_a_new_release(tmp_path, course):
    mine = tmp_path / "mine"
    copy_course(course, mine)
    write(mine, **{"01_returns": "my answer"})
    write(course, **{"00_start_here": "0, better", "01_returns": "1, better", "03_ppo": "3"})

    for _ in range(2):
        current, kept = copy_course(course, mine)
        assert kept == [mine / "01_returns.ipynb"]
        assert mine / "01_returns.ipynb" not in current
    assert sources(mine) == {
        "00_start_here": "0, better",
        "01_returns": "my answer",
        "02_reinforce": "2",
        "03_ppo": "3",
    }


def test_a_notebook_that_was_there_before_the_first_copy_is_kept(tmp_path, course):
    mine = write(tmp_path / "mine", **{"01_returns": "my own"})
    assert copy_course(course, mine)[1] == [mine / "01_returns.ipynb"]
    assert sources(mine)["01_returns"] == "my own"


def test_a_renamed_notebook_comes_back_beside_the_learners_version(tmp_path, course):
    mine = tmp_path / "mine"
    copy_course(course, mine)
    write(mine, **{"01_returns": "my answer"})
    (mine / "01_returns.ipynb").rename(mine / "01_mine.ipynb")
    assert not copy_course(course, mine)[1]
    assert sources(mine)["01_mine"] == "my answer"
    assert sources(mine)["01_returns"] == "1"


# Launching


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "artifex_rl.lab", *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | environment,
        timeout=120,
    )


def test_options_that_are_not_ours_are_jupyterlabs():
    options, others = parse(["--no-browser", "01", "--ip=0.0.0.0", "--port", "9000", "--LabApp.token=x"])
    assert (options.notebook, options.no_browser, options.port) == ("01", True, 9000)
    assert others == ["--ip=0.0.0.0", "--LabApp.token=x"]


def test_an_unknown_notebook_ends_the_command_with_the_list():
    result = run("99")
    assert result.returncode != 0
    assert "'99'" in result.stderr and "00_start_here" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.slow
def test_without_jupyterlab_the_message_says_what_to_install(tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.modules['jupyterlab'] = None\n")
    result = run(PYTHONPATH=str(tmp_path))
    assert result.returncode != 0
    assert "pip install 'artifex_rl[lab]'" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.slow
def test_the_course_opens_at_the_notebook_asked_for_and_is_trusted(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mine = tmp_path / "mine"
    log = tmp_path / "log"
    jupyter = {f"JUPYTER_{kind}_DIR": str(tmp_path / kind) for kind in ("CONFIG", "DATA", "RUNTIME")}
    command = [sys.executable, "-m", "artifex_rl.lab", "--no-browser", f"--port={port}", "--dir", str(mine), "01"]
    with log.open("w") as output:
        server = subprocess.Popen(
            [*command, "--IdentityProvider.token=secret"],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=os.environ | jupyter,
        )
    try:
        address = f"http://127.0.0.1:{port}"
        request = urllib.request.Request(f"{address}/api/contents/{START}", headers={"Authorization": "token secret"})
        for _ in range(300):
            try:
                notebook = json.load(urllib.request.urlopen(request, timeout=30))["content"]
                break
            except OSError:
                assert server.poll() is None, log.read_text()
                time.sleep(0.2)
        else:
            pytest.fail("JupyterLab did not answer within a minute:\n" + log.read_text())
    finally:
        server.terminate()
        server.wait(30)

    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert code and all(cell["metadata"].get("trusted") for cell in code)
    printed = log.read_text()
    assert f"The course is in {mine}" in printed
    assert re.search(rf"http://\S+:{port}/lab/tree/01_\w+\.ipynb", printed), printed
