"""Commands and code that README and the documentation show can be typed as they stand.

README's `open` and `test` blocks and its Python are run by CI as written, and so are the pages, editions and site
that other commands make. Here every command that is shown anywhere is taken apart: its module, script, options,
extras and files are there.
"""

from __future__ import annotations

import ast
import importlib
import os
import re
import shlex
import subprocess
import sys
import tomllib
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest
from documents import ROOT, Document, documents

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
EXTRAS = set(PROJECT["project"]["optional-dependencies"])
MARKERS = {line.partition(":")[0] for line in PROJECT["tool"]["pytest"]["ini_options"]["markers"]}
#: What runs on a machine that is not ours: in an administrator's shell, or in a container.
ELSEWHERE = {"apt-get", "cd", "docker", "export", "git", "helm", "kubectl", "tljh-config", "source"}
PAGES = [document for document in documents() if document.path.suffix == ".md"]
each = pytest.mark.parametrize("document", PAGES, ids=lambda document: document.name)


def blocks(document: Document, *languages: str) -> list[str]:
    """The blocks of code in these languages, without their indentation."""
    found = re.findall(r"(?ms)^( *)```(\w+)\n(.*?)^\1```", document.text)
    return [re.sub(rf"(?m)^{indent}", "", code) for indent, language, code in found if language in languages]


def commands(document: Document) -> list[list[str]]:
    """Each simple command of shell blocks and of code in sentences, in words; settings before it are dropped."""
    spans = re.findall(r"(?<!`)`((?:python3?|pytest|pip|jupyter|bash|sphinx-build) [^`]+)`(?!`)", document.text)
    found = []
    for block in [*blocks(document, "sh", "bash", "console"), *spans]:
        for line in block.replace("\\\n", " ").splitlines():
            words: list[str] = []
            for word in [*shlex.split(line.removeprefix("$ "), comments=True), ";"]:
                if word in ("&&", "||", "|", ";"):
                    found += [words] if words else []
                    words = []
                elif words or not re.match(r"[A-Z_]+=", word):
                    words.append(word)
    return found


def fault(words: list[str]) -> str:
    """What would go wrong if somebody typed this in a clone of the repository; empty if nothing is known to."""
    while words and (words[0] == "sudo" or words[0].startswith("-")):
        words = words[1:]
    head, rest = Path(words[0]).name, words[1:]
    if head in ELSEWHERE:
        return ""
    if head in ("python", "python3"):
        return _python(rest)
    if head == "pip" or rest[:1] == ["pip"]:
        return _extras(rest)
    if head == "pytest":
        marks = {name for i, word in enumerate(rest) if word == "-m" for name in re.findall(r"\w+", rest[i + 1])}
        unknown = marks - MARKERS - {"not", "and", "or"}
        return f"there is no marker {unknown}" if unknown else _files(rest)
    if head == "jupyter":
        known = {"lab", "labextension", "nbconvert", "trust"}
        return _files(rest) if rest and rest[0] in known else f"jupyter {rest[:1]} is not known"
    if head in ("bash", "sphinx-build"):
        path = next(word for word in rest if not word.startswith("-"))
        return "" if (ROOT / path).exists() else f"{path} is not there"
    return f"{head} is not known here: see ELSEWHERE"


def _python(rest: list[str]) -> str:
    if not rest or rest[0] == "-c":
        return ""
    if rest[0] != "-m":
        script = ROOT / rest[0]
        return _options(rest[:1], rest[1:]) if script.is_file() else f"{rest[0]} is not there"
    module = rest[1]
    if module in ("pip", "venv"):
        return _extras(rest[2:])
    spec = find_spec(module) if module.startswith("artifex_rl") else None
    if spec is None:
        return f"there is no module {module}"
    if spec.submodule_search_locations:
        folder = Path(spec.submodule_search_locations[0])
        if not (folder / "__main__.py").is_file():
            return f"{module} cannot be run"
    return _options(rest[:2], rest[2:]) or _files(rest[2:])


def _options(program: list[str], rest: list[str]) -> str:
    asked = {word.partition("=")[0] for word in rest if word.startswith("-")} - {"--help", "-h"}
    unknown = asked - _known_options(*program) if asked else set()
    return f"{' '.join(program)} has no option {sorted(unknown)}" if unknown else ""


@cache
def _known_options(*program: str) -> set[str]:
    """What its own help names."""
    told = subprocess.run([sys.executable, *program, "--help"], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(re.findall(r"(?<![\w-])--?[a-z][\w-]*", told.stdout))


def _extras(rest: list[str]) -> str:
    asked = {
        name.strip()
        for word in rest
        for found in re.findall(r"(?:^\.|artifex_rl)\[([^\]]+)\]", word)
        for name in found.split(",")
    }
    missing = [word for i, word in enumerate(rest) if i and rest[i - 1] == "-r" and not (ROOT / word).is_file()]
    return f"no extra {asked - EXTRAS}" if asked - EXTRAS else f"{missing} is not there" if missing else ""


def _files(rest: list[str]) -> str:
    given = [word for word in rest if re.match(r"(notebooks|tests|docs|benchmarks|artifex_rl)(/|$)", word)]
    gone = [word for word in given if not (ROOT / word).exists() and not list(ROOT.glob(word))]
    gone = [word for word in gone if rest[rest.index(word) - 1] != "--out"]
    return f"{gone} is not there" if gone else ""


@pytest.mark.slow
@each
def test_every_command_can_be_typed(document):
    found = [(words, fault(words)) for words in commands(document)]
    assert not [(shlex.join(words), wrong) for words, wrong in found if wrong]


def test_commands_are_found():
    """Else the patterns have stopped matching."""
    assert sum(len(commands(document)) for document in PAGES) > 20
    readme = commands(next(document for document in PAGES if document.name == "README.md"))
    assert ["python", "-m", "artifex_rl.lab.editions", "notebooks", "--out", "course"] in readme
    assert ["pytest", "-m", "not browser and not slow", "tests"] in readme


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("python3 -m venv .venv && .venv/bin/pip install -e '.[lab,envs]'", ""),
        ("python3 -m venv .venv && .venv/bin/pip install -e '.[lab,env]'", "no extra"),
        ("python -m artifex_rl.lab.edition notebooks --out course", "no module"),
        ("python -m artifex_rl.rl", "cannot be run"),
        ("python -m artifex_rl.lab.editions notebooks --into course", "no option"),
        ("python -m artifex_rl.lab.execute notebooks/01_returns.ipynb", "is not there"),
        ("python benchmarks/latency.py", "is not there"),
        ("python benchmarks/mutants.py --modules returns", "no option"),
        ("pytest -m 'not slowly' tests", "no marker"),
        ("ARTIFEX_RL_EMBED=html jupyter nbconvert --to html notebooks/01_returns.ipynb", "is not there"),
        ("bash .ci/runs", "is not there"),
        ("sphinx-build doc site", "is not there"),
        ("artifex lab", "not known"),
    ],
)
def test_a_command_that_would_fail_is_found(line, why):
    found = [
        wrong for words in commands(Document(ROOT / "README.md", f"```sh\n{line}\n```")) if (wrong := fault(words))
    ]
    assert (len(found) == 1 and why in found[0]) if why else not found


@each
def test_python_that_is_shown_parses_and_imports_what_is_there(document):
    for block in blocks(document, "python"):
        code = re.sub(r"(?m)^\s*[%!].*$", "", block)
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom) and node.module.partition(".")[0] == "artifex_rl":
                module = importlib.import_module(node.module)
                for name in node.names:
                    assert hasattr(module, name.name) or find_spec(f"{node.module}.{name.name}"), ast.unparse(node)


@pytest.mark.slow
def test_the_command_for_editions_runs_as_it_is_written(tmp_path):
    readme = next(document for document in PAGES if document.name == "README.md")
    # The decks of the line below it take a minute; test_slides makes them.
    (line,) = [line for block in blocks(readme, "sh") for line in block.splitlines() if "lab.editions" in line]
    (tmp_path / "notebooks").mkdir()  # two of them: what learners get wrong is found out anew for each exercise
    for name in ("00_start_here.ipynb", "01_returns_and_advantages.ipynb"):
        (tmp_path / "notebooks" / name).symlink_to(ROOT / "notebooks" / name)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    subprocess.run(
        ["bash", "-euo", "pipefail", "-c", line],
        cwd=tmp_path,
        env=os.environ | {"PATH": path, "PYTHONPATH": str(ROOT)},
        check=True,
        timeout=120,
        capture_output=True,
    )
    assert len(list((tmp_path / "course").rglob("*.ipynb"))) == 2 * 2
