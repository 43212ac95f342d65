"""The doctor: what it says of a sound machine, and of each way in which one may be broken."""

import json
import os
import socket
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from artifex_rl.data import fingerprints
from artifex_rl.lab import course, resources
from artifex_rl.lab.doctor import CHECKS, Examination, Finding, as_text, examine, kernels, machine
from artifex_rl.lab.doctor import browser as browsers
from artifex_rl.lab.doctor.__main__ import main
from artifex_rl.lab.doctor.finding import pip_command

GIGABYTE = 2**30


def replace(monkeypatch, **findings: Finding) -> None:
    """A doctor with other checks."""
    for name in list(CHECKS):
        monkeypatch.delitem(CHECKS, name)
    for name, finding in findings.items():
        monkeypatch.setitem(CHECKS, name, lambda finding=finding: finding)


GOOD = Finding("ok", "3.11", ">=3.11")
POOR = Finding("warning", "one\ncore", "2", "buy one")
BAD = Finding("failed", "nothing", "something", "pip install something")


# What is said


def test_a_line_says_what_was_found_what_was_needed_and_the_remedy():
    assert as_text(Examination("python", GOOD, 0.04)) == "ok       python     3.11  (needs >=3.11)  0.0 s"
    line, remedy = as_text(Examination("jax", BAD, 1.26)).splitlines()
    assert line == "failed   jax        nothing  (needs something)  1.3 s"
    assert remedy.strip() == "→ pip install something"
    assert len(as_text(Examination("cores", POOR, 0)).splitlines()) == 2


def test_a_fault_without_a_remedy_is_refused():
    with pytest.raises(ValueError, match="remedy"):
        Finding("warning", "one core", "2")
    with pytest.raises(ValueError, match="got 'bad', needs one of ok, warning, failed"):
        Finding("bad", "", "", "none")


@pytest.mark.parametrize(("findings", "code"), [((GOOD,), 0), ((GOOD, POOR), 0), ((GOOD, BAD, POOR), 1)])
def test_only_what_failed_makes_the_exit_code(monkeypatch, capsys, findings, code):
    replace(monkeypatch, **{f"check{i}": finding for i, finding in enumerate(findings)})
    assert main([]) == code
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("ok       check0")
    assert said[-1].startswith("check1 failed" if code else "The course runs here: python -m artifex_rl.lab")


def test_json_holds_the_same_for_a_script(monkeypatch, capsys):
    replace(monkeypatch, one=GOOD, two=BAD)
    assert main(["--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["ok"] is False and report["seconds"] >= 0
    one, two = report["checks"]
    assert {**one, "seconds": 0} == {
        "name": "one",
        "status": "ok",
        "found": "3.11",
        "needed": ">=3.11",
        "remedy": "",
        "seconds": 0,
    }
    assert (two["name"], two["status"], two["remedy"]) == ("two", "failed", "pip install something")


def test_a_check_that_breaks_is_a_finding_and_the_next_one_runs(monkeypatch):
    replace(monkeypatch, one=GOOD, two=GOOD)
    monkeypatch.setitem(CHECKS, "one", lambda: 1 / 0)
    one, two = examine()
    assert one.finding.status == "failed" and "ZeroDivisionError: division by zero" in one.finding.found
    assert two.finding == GOOD


def test_some_checks_alone(monkeypatch, capsys):
    replace(monkeypatch, one=GOOD, two=BAD)
    assert main(["--only", "one"]) == 0
    assert "two" not in capsys.readouterr().out
    with pytest.raises(ValueError, match="got three, needs some of one, two"):
        list(examine(["three"]))
    with pytest.raises(SystemExit):
        main(["--only", "three"])


@pytest.mark.parametrize(("windows", "quoted"), [(True, '"jax>=0.6"'), (False, "'jax>=0.6'")])
def test_a_command_can_be_pasted_into_the_shell_of_the_system(monkeypatch, windows, quoted):
    monkeypatch.setattr("artifex_rl.lab.doctor.finding.WINDOWS", windows)
    assert pip_command("jax>=0.6", "flax") == f"{sys.executable} -m pip install --upgrade {quoted} flax"


# The machine


def test_an_old_python(monkeypatch):
    assert machine.check_python() == Finding("ok", sys.version.split()[0], ">=3.11")
    monkeypatch.setattr(machine.platform, "python_version", lambda: "3.10.9")
    finding = machine.check_python()
    assert (finding.status, finding.found, finding.needed) == ("failed", "3.10.9", ">=3.11")
    assert "venv" in finding.remedy


def test_the_requirements_are_those_of_pyproject():
    import tomllib

    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *extras["lab"], *extras["data"]]
    names = {line.split(">")[0].split("[")[0].lower() for line in wanted} - {"artifex_rl"}
    assert {requirement.name.lower() for requirement in machine.requirements()} == names
    assert "gymnasium" not in names and {"jax", "anywidget", "wordfreq"} <= names
    assert machine.specified(["vaderSentiment", "JAX"]) == ["jax>=0.6", "vadersentiment>=3.3.2"]


@pytest.fixture
def light_imports(monkeypatch):
    """Versions are looked up for real; the imports are the slow test's."""
    monkeypatch.setattr(machine.importlib, "import_module", lambda name: None)


def test_a_missing_and_an_old_package_are_named_with_one_command(monkeypatch, light_imports):
    assert machine.check_packages().status == "ok"
    version = metadata.version

    def other(name):
        if name == "anywidget":
            raise metadata.PackageNotFoundError(name)
        return "6.29.0" if name == "ipykernel" else version(name)

    monkeypatch.setattr(machine.metadata, "version", other)
    finding = machine.check_packages()
    assert finding.status == "failed"
    assert (
        "ipykernel 6.29.0 (needs >=7.0)" in finding.found and "anywidget is missing (needs >=0.9.18)" in finding.found
    )
    assert "-m pip install --upgrade" in finding.remedy
    assert "'ipykernel>=7.0'" in finding.remedy and "'anywidget>=0.9.18'" in finding.remedy
    assert "jax" not in finding.found + finding.remedy


def test_a_package_that_is_there_and_broken(monkeypatch):
    def broken(name):
        if name == "sklearn":
            raise ValueError("numpy.dtype size changed")

    monkeypatch.setattr(machine.importlib, "import_module", broken)
    finding = machine.check_packages()
    assert finding.status == "failed"
    assert finding.found == "scikit-learn cannot be imported (ValueError: numpy.dtype size changed)"
    assert "'scikit-learn>=1.5'" in finding.remedy


@pytest.mark.slow
def test_without_the_extra_lab_the_doctor_itself_still_speaks(tmp_path):
    """As a user who typed `pip install artifex_rl` alone."""
    absent = "import sys; sys.modules.update(anywidget=None, matplotlib=None)\n"
    call = "from artifex_rl.lab.doctor.__main__ import main; sys.exit(main(['--only', 'python', 'packages']))"
    run = subprocess.run([sys.executable, "-c", absent + call], capture_output=True, text=True)
    assert run.returncode == 1, run.stderr
    assert run.stdout.startswith("ok       python")
    assert "anywidget cannot be imported" in run.stdout and "pip install" in run.stdout


def test_jax_must_give_the_right_number_in_time(monkeypatch):
    assert machine.check_jax().status == "ok"
    monkeypatch.setattr(machine, "SLOW_COMPILATION", 0)
    assert machine.check_jax().status == "warning"
    import artifex_rl

    monkeypatch.setattr(artifex_rl, "compute_gae_advantages", lambda rewards, *others: rewards * np.nan)
    finding = machine.check_jax()
    assert finding.status == "failed" and "JAX_PLATFORMS=cpu" in finding.remedy


@pytest.mark.parametrize(
    ("limit", "free", "status"), [(0.7, 9, "failed"), (1.2, 9, "warning"), (9, 0.5, "warning"), (2, 9, "ok")]
)
def test_memory(monkeypatch, limit, free, status):
    monkeypatch.setattr(resources, "memory_limit", lambda: int(limit * GIGABYTE))
    monkeypatch.setattr(resources, "free_memory", lambda: int(free * GIGABYTE))
    finding = machine.check_memory()
    assert finding.status == status
    assert finding.found == f"{limit:.1f} GB may be used, {min(free, limit):.1f} GB of it free"
    assert status != "failed" or "mem_limit" in finding.remedy


def test_cores(monkeypatch):
    assert machine.check_cores().status == "ok"
    monkeypatch.setattr(resources, "core_limit", lambda: 0.5)
    finding = machine.check_cores()
    assert (finding.status, finding.found) == ("warning", "0.5") and "cpu_limit" in finding.remedy


def group(folder: Path, own: str, **files: str) -> dict[str, Path]:
    """Control groups as Linux shows them: files by path, with two underscores for a slash."""
    (folder / "own").write_text(own)
    for name, text in files.items():
        file = folder / "cgroup" / name.replace("__", "/").replace("_DOT_", ".")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n")
    return {"cgroups": folder / "cgroup", "own": folder / "own"}


def test_the_least_limit_above_this_process_holds(tmp_path):
    two = group(
        tmp_path,
        "0::/pods/one\n",
        pods__one__memory_DOT_max="max",
        pods__memory_DOT_max=str(GIGABYTE),
        pods__one__cpu_DOT_max="50000 100000",
        pods__cpu_DOT_max="max 100000",
    )
    assert resources.memory_limit(**two) == GIGABYTE
    assert resources.core_limit(**two) == 0.5


def test_limits_of_version_1_and_of_a_container_that_sees_its_group_as_the_root(tmp_path):
    one = group(
        tmp_path,
        "9:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n",
        memory__memory_DOT_limit_in_bytes=str(2 * GIGABYTE),
        cpu__cpu_DOT_cfs_quota_us="25000",
        cpu__cpu_DOT_cfs_period_us="100000",
    )
    assert resources.memory_limit(**one) == min(2 * GIGABYTE, resources.memory_limit())
    assert resources.core_limit(**one) == 0.25


def test_without_limits_the_machine_itself_counts(tmp_path):
    none = group(tmp_path, "0::/\n", memory_DOT_max="max", cpu_DOT_max="max 100000")
    import psutil

    assert resources.memory_limit(**none) == psutil.virtual_memory().total
    assert resources.core_limit(**none) == resources.core_limit(tmp_path / "none", tmp_path / "none") >= 1


# The data


def test_the_fingerprints_are_fresh():
    """After data has changed on purpose: python -m artifex_rl.data.fingerprints"""
    assert fingerprints.compute_files() == fingerprints.read()["files"]


@pytest.mark.slow
def test_the_data_is_what_the_course_was_made_with():
    finding = machine.check_data()
    assert finding.status == "ok", finding


@pytest.fixture
def light_data(monkeypatch):
    """The packages' data is loaded for real above, once."""
    loaded = fingerprints.read()["loaded"]
    monkeypatch.setattr(fingerprints, "LOADED", {name: lambda text=text: text for name, text in loaded.items()})


def test_a_damaged_file_is_found(monkeypatch, light_data):
    assert machine.check_data().status == "ok"
    here = fingerprints.compute_files()
    monkeypatch.setattr(fingerprints, "compute_files", lambda: {**here, "emoji.npz": "0" * 64})
    finding = machine.check_data()
    assert finding.status == "failed" and finding.found.endswith("emoji.npz")
    assert "git checkout" in finding.remedy


def test_a_package_whose_data_is_missing_or_of_another_version(monkeypatch, light_data):
    monkeypatch.setitem(fingerprints.LOADED, "wordfreq", lambda: "39999 words, abc")
    finding = machine.check_data()
    assert finding.status == "warning" and f"wordfreq {metadata.version('wordfreq')}" in finding.found
    assert "binder/requirements.txt" in finding.remedy

    def missing():
        raise ImportError("No module named 'py3langid'")

    monkeypatch.setitem(fingerprints.LOADED, "py3langid", missing)
    finding = machine.check_data()
    assert finding.status == "failed" and "py3langid (ImportError" in finding.found
    assert "'py3langid>=0.4'" in finding.remedy and "wordfreq" not in finding.remedy


def test_data_that_asks_the_network_fails(monkeypatch, light_data):
    def download():
        return socket.create_connection(("127.0.0.1", 9), timeout=1) and ""

    monkeypatch.setitem(fingerprints.LOADED, "wordfreq", download)
    finding = machine.check_data()
    assert finding.status == "failed" and "must not need a network" in finding.found
    with pytest.raises(ConnectionRefusedError), socket.socket() as one:
        one.connect(("127.0.0.1", 9))


# The notebooks


@pytest.fixture
def lesson(tmp_path, monkeypatch):
    """A course of one notebook, and a user who never ran Jupyter."""
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "data"))
    file = tmp_path / "course" / "00_start_here.ipynb"
    file.parent.mkdir()
    nbformat.write(new_notebook(cells=[new_code_cell("1 + 1", id="only")]), file)
    monkeypatch.setattr(course, "find_course", lambda: (file.parent, True))
    return file


def test_notebooks_are_trusted_or_the_command_is_said(lesson):
    finding = machine.check_notebooks()
    assert finding.status == "warning" and "of which 1 are not trusted, such as 00_start_here" in finding.found
    assert finding.remedy.startswith(f"jupyter trust {lesson.parent}/*.ipynb")
    assert not lesson.parent.with_name("data").exists(), "the doctor changes nothing"

    course.trust([lesson])
    assert machine.check_notebooks().status == "ok"
    nbformat.write(new_notebook(cells=[new_code_cell("2 + 2", id="only")]), lesson)
    assert machine.check_notebooks().status == "warning"


@pytest.mark.slow
def test_the_remedy_for_notebooks_that_are_not_trusted_works(lesson):
    command = machine.check_notebooks().remedy.split("  ")[0]
    bin = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(command, shell=True, check=True, capture_output=True, env={**os.environ, "PATH": bin})
    assert machine.check_notebooks().status == "ok"


def test_a_course_that_is_not_there(monkeypatch):
    def nowhere():
        raise FileNotFoundError("The course was not found")

    monkeypatch.setattr(course, "find_course", nowhere)
    finding = machine.check_notebooks()
    assert (finding.status, finding.found) == ("failed", "The course was not found")


# Kernel and server


@pytest.mark.slow
def test_a_kernel_draws_an_explorer():
    finding = kernels.check_kernel()
    assert finding.status != "failed", finding  # a busy machine is a warning
    assert "an explorer after" in finding.found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cell", "found", "remedy"),
    [
        ("raise ImportError('no anywidget')", "ImportError: no anywidget", "-c"),
        ("'a text'", "came back as text/plain, without a widget", "anywidget ipywidgets"),
        ("1;", "came back as nothing", "anywidget ipywidgets"),
    ],
)
def test_a_kernel_that_draws_none(monkeypatch, cell, found, remedy):
    monkeypatch.setattr(kernels, "CELL", cell)
    finding = kernels.check_kernel()
    assert finding.status == "failed" and found in finding.found and remedy in finding.remedy


@pytest.mark.slow
def test_a_kernel_of_another_environment_or_none_or_a_slow_one(monkeypatch, tmp_path):
    monkeypatch.setattr(kernels.sys, "prefix", str(tmp_path))
    finding = kernels.check_kernel()
    assert finding.status == "failed" and "runs the Python of" in finding.found
    assert "ipykernel install --sys-prefix" in finding.remedy
    monkeypatch.undo()

    monkeypatch.setattr(kernels, "SLOW", 0)
    shows = f"from IPython.display import display\ndisplay({{{kernels.VIEW!r}: 1}}, raw=True)"
    monkeypatch.setattr(kernels, "CELL", shows)
    assert kernels.check_kernel().status == "warning"

    monkeypatch.setattr(kernels, "KERNEL", "no_such_kernel")
    finding = kernels.check_kernel()
    assert finding.status == "failed" and "no kernel is called" in finding.found


@pytest.mark.slow
def test_a_kernel_that_sleeps_answers_beside_its_cell(monkeypatch):
    finding = kernels.check_subshells()
    assert finding.status == "ok", finding
    monkeypatch.setattr(kernels, "_answers_beside", lambda client, timeout: False)
    finding = kernels.check_subshells()
    assert finding.status == "warning" and "wait until the cell ends" in finding.found
    assert "'ipykernel>=7.0'" in finding.remedy and "'jupyterlab>=4.4'" in finding.remedy


@pytest.mark.slow
def test_a_cell_in_the_main_shell_does_not_count_as_an_answer_beside_it():
    """The very question that an older kernel leaves open: it knows no subshells, and does its work in turn."""
    with kernels.running_kernel() as client:
        client.execute("import time; time.sleep(60)")
        client.session.msg, make = (
            lambda kind, content: make("kernel_info_request" if kind.startswith("create") else kind, {}),
            client.session.msg,
        )
        assert not kernels._answers_beside(client, timeout=1)


def test_a_kernel_that_dies_says_so(monkeypatch):
    from contextlib import contextmanager

    @contextmanager
    def dead():
        raise RuntimeError("Kernel died before replying to kernel_info")
        yield

    monkeypatch.setattr(kernels, "running_kernel", dead)
    for check in (kernels.check_kernel, kernels.check_subshells):
        finding = check()
        assert finding.status == "failed" and "Kernel died" in finding.found and finding.remedy


def test_a_port_that_is_taken_is_passed_over():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert kernels.free_port(range(port, port + 1)) is None
        assert kernels.free_port(range(port, port + 20)) in range(port + 1, port + 20)


def test_a_machine_without_a_port(monkeypatch):
    monkeypatch.setattr(kernels, "free_port", lambda: None)
    finding = kernels.check_server()
    assert finding.status == "failed" and "none of the ports 8888 to 8938" in finding.found


def lab_page(*extensions: str) -> str:
    config = {"appVersion": "4.6", "federated_extensions": [{"name": name} for name in extensions]}
    return f'<script id="jupyter-config-data" type="application/json">{json.dumps(config)}</script>'


def test_jupyterlab_without_what_draws_widgets(monkeypatch):
    monkeypatch.setattr(kernels, "_serve", lambda port: lab_page(*kernels.EXTENSIONS))
    assert kernels.check_server().status == "ok"
    monkeypatch.setattr(kernels, "SLOW", 0)
    assert kernels.check_server().status == "warning"
    monkeypatch.setattr(kernels, "_serve", lambda port: lab_page("anywidget", "jupyterlab-git"))
    finding = kernels.check_server()
    assert finding.status == "failed" and "lacks @jupyter-widgets/jupyterlab-manager" in finding.found
    assert finding.remedy.endswith("jupyterlab_widgets")


@pytest.mark.slow
def test_jupyterlab_starts_and_one_that_does_not_tells_why(monkeypatch):
    port = kernels.free_port(range(45000, 45100))
    monkeypatch.setattr(kernels, "free_port", lambda: port)
    finding = kernels.check_server()
    assert finding.status != "failed" and finding.found.startswith(f"port {port}, JupyterLab "), finding
    with socket.socket() as taken:  # it has ended: the port is free
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", port))
        taken.listen()
        finding = kernels.check_server()
    assert finding.status == "failed" and "JupyterLab ended" in finding.found and finding.remedy


# The browser


def test_no_browser_and_one_that_cannot_be_driven(monkeypatch):
    monkeypatch.setattr(browsers, "find_chromium", lambda: None)
    monkeypatch.setattr(browsers.webbrowser, "get", lambda: type("Firefox", (), {"name": "firefox"}))
    finding = browsers.check_browser()
    assert finding.status == "ok" and finding.found.startswith("firefox, not tried") and "--page" in finding.found

    def none():
        raise browsers.webbrowser.Error("could not locate runnable browser")

    monkeypatch.setattr(browsers.webbrowser, "get", none)
    finding = browsers.check_browser()
    assert finding.status == "warning" and "--page browser.html" in finding.remedy


@pytest.mark.slow
def test_a_chromium_that_does_not_start(monkeypatch, tmp_path):
    broken = tmp_path / "chromium"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("CHROMIUM", str(broken))
    assert browsers.find_chromium() == str(broken)
    finding = browsers.check_browser()
    assert finding.status == "warning" and "could not be driven" in finding.found and "--page" in finding.remedy


@pytest.fixture(scope="module")
def checking_page(tmp_path_factory):
    file = tmp_path_factory.mktemp("page") / "browser.html"
    assert main(["--page", str(file)]) == 0
    return file


@pytest.mark.slow
def test_the_page_fetches_nothing_and_a_folder_that_is_not_there_is_an_error(checking_page, tmp_path, capsys):
    text = checking_page.read_text("utf-8")
    assert "http" not in text.replace("http://www.w3.org/", "").replace("https://www.w3.org/", "")
    assert main(["--page", str(tmp_path / "none" / "page.html")]) == 1
    assert "No such file" in capsys.readouterr().err


#: What an old browser lacks, and what the page must say then.
OLD = {
    "delete window.DecompressionStream": "DecompressionStream",
    "delete Array.prototype.findLast": "Array.findLast",
    "delete SVGGraphicsElement.prototype.getScreenCTM": "getScreenCTM",
    "window.WebSocket = undefined": "WebSocket",
    "URL.createObjectURL = () => 'blob:none'": "modules from memory",
    "addEventListener('input', (event) => event.stopImmediatePropagation(), true)": "explorer that follows",
    "window.Function = function () { throw new SyntaxError('Unexpected token ?') }": "modern syntax",
    "window.TextDecoder = undefined": "binary data",
}


@pytest.mark.browser
@pytest.mark.parametrize("script", OLD, ids=OLD.values())
def test_the_page_names_what_a_browser_lacks(browser, checking_page, script):
    context = browser.new_context(offline=True)
    page = context.new_page()
    page.clock.install()
    page.add_init_script(script)
    page.goto(checking_page.as_uri())
    for _ in range(100):  # the page waits for an explorer that never answers; its clock is ours
        page.clock.run_for(200)
        if page.evaluate("() => document.body.dataset.verdict"):
            break
        page.wait_for_timeout(20)
    words = page.locator("#verdict").inner_text()
    assert words.startswith("This browser cannot run the course: ") and OLD[script] in words
    assert any(OLD[script] in line for line in page.locator("#checks .failed").all_inner_texts())
    context.close()


@pytest.mark.browser
def test_the_page_says_yes_and_without_scripts_it_says_that(browser, checking_page):
    context = browser.new_context(offline=True)
    page = context.new_page()
    page.goto(checking_page.as_uri())
    page.wait_for_function("() => document.body.dataset.verdict")
    assert page.locator("#verdict").inner_text().startswith("This browser can run the course.")
    assert page.locator("#checks .ok").count() == 8 and page.locator("#checks .failed").count() == 0
    context.close()
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(checking_page.as_uri())
    assert "scripts do not run here" in page.locator("#verdict").inner_text()
    context.close()


# All of it


@pytest.mark.browser
@pytest.mark.slow
def test_this_machine_is_examined_within_a_minute():
    """As it is typed; with whatever trust this user has given."""
    run = subprocess.run([sys.executable, "-m", "artifex_rl.lab.doctor", "--json"], capture_output=True, text=True)
    report = json.loads(run.stdout)
    assert [check["name"] for check in report["checks"]] == list(CHECKS)
    status = {check["name"]: check["status"] for check in report["checks"]}
    assert run.returncode == 0 and report["ok"] and "failed" not in status.values(), (run.stdout, run.stderr)
    # The rest may warn: of notebooks that this user did not trust, and of a machine that is busy.
    assert {status[name] for name in ("python", "packages", "data", "subshells", "browser")} == {"ok"}, run.stdout
    assert report["seconds"] < 60
    assert "the curve followed" in report["checks"][-1]["found"]
