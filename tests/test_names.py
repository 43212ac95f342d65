"""Names, paths and versions in sentences are those of the library: what was renamed is renamed in the words, too."""

from __future__ import annotations

import builtins
import importlib
import inspect
import io
import re
import tokenize
import tomllib
from functools import cache
from pathlib import Path

import nbformat
import pytest
from documents import ROOT, WRITTEN, Document, documents

import artifex_rl

each = pytest.mark.parametrize("document", documents(), ids=lambda document: document.name)
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
#: Names of others in our sentences, by whose they are.
OTHERS = {
    "matplotlib, Jupyter": {"FigureCanvasAgg", "clear_output", "interactive_output"},
    "jax, flax, optax": {"inject_hyperparams", "value_and_grad"},
    "the reader's own": {"your_function"},
    "configuration of hubs": {"defaultUrl"},
    "VS Code's settings": {"jupyter.widgetScriptSources"},
}
_SPAN = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
_NAME = re.compile(r"(?:[A-Z][a-z0-9]+){2,}[A-Za-z0-9]*|[A-Z]{2,}[a-z][A-Za-z]+|[a-z]\w*_\w+")
_PATH = re.compile(r"(?:\.?[\w*]+/)*[\w*.-]+\.(?:py|md|ipynb|toml|npz|txt|json|css|js|yml|bib)|(?:\.?\w+/)+")


@cache
def words_of_the_library() -> frozenset[str]:
    """Every name and every text in the sources of library, benchmarks and documentation."""
    found: set[str] = set(dir(builtins))
    for folder in ("artifex_rl", "benchmarks", "docs"):
        for path in (ROOT / folder).rglob("*.py"):
            found |= _words(path.read_text("utf-8"))
    return frozenset(found)


def _words(source: str) -> set[str]:
    found = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.NAME:
            found.add(token.string)
        elif token.type == tokenize.STRING:
            found |= set(re.findall(r"\w+", token.string))
    return found


def words_of(document: Document) -> set[str]:
    """What a document may name: the library, its own code, and names of others."""
    found = set(words_of_the_library()).union(*OTHERS.values())
    for code in re.findall(r"(?ms)^ *```\w*\n(.*?)^ *```", document.text):
        found |= set(re.findall(r"\w+", code))
    if document.path.suffix == ".ipynb" and document.path.exists():
        for cell in nbformat.read(document.path, as_version=4).cells:
            found |= set(re.findall(r"\w+", cell.source)) if cell.cell_type == "code" else set()
    return found


def unknown_names(document: Document) -> list[str]:
    known = words_of(document)
    found = []
    for span in _SPAN.findall(document.text):
        if re.search(r"[/\\]|\.\w{2,5}$", span) and not span.startswith("artifex_rl."):
            continue  # a path or a command
        code = re.sub(r"([\"']).*?\1", "", span)
        found += [name for name in re.findall(r"\w+", code) if _NAME.fullmatch(name) and name not in known]
    return found


def lost(dotted: str) -> bool:
    """Whether `artifex_rl.x.y` is neither a module nor a name of one."""
    parts = dotted.split(".")
    for split in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:split]))
        except ImportError:
            continue
        for name in parts[split:]:
            if not hasattr(found, name) and name not in getattr(found, "__annotations__", {}):
                return True
            found = getattr(found, name, None)
        return False
    return True


def lost_paths(document: Document) -> list[str]:
    """Paths in code that lead nowhere: from the root, from the document's folder, or by their name alone."""
    found = []
    for span in _SPAN.findall(document.text):
        if not _PATH.fullmatch(span) or span.rstrip("/") in WRITTEN or span in MADE:
            continue
        if span.startswith("artifex_rl_course/"):  # the copy of the notebooks that the launcher makes
            span = span.replace("artifex_rl_course", "notebooks")
        places = [ROOT, document.path.parent, ROOT / "artifex_rl"]
        if any(list(place.glob(span.rstrip("/"))) for place in places):
            continue
        if "/" not in span and any(
            list((ROOT / top).rglob(span)) for top in ("artifex_rl", "tests", "docs", "binder")
        ):
            continue
        found.append(span)
    return found


#: What somebody else has, or what a command makes.
MADE = {"setup.py", "config.yaml", "requirements.txt", "page.html", "browser.html", ".txt", ".vscode/settings.json"}


@each
def test_every_name_in_a_sentence_is_somewhere_in_the_code(document):
    assert not unknown_names(document)


@each
def test_every_dotted_name_leads_to_something(document):
    names = set(re.findall(r"`(artifex_rl(?:\.\w+)+)`", document.text))
    assert not [name for name in names if lost(name)]


@each
def test_every_path_is_there(document):
    assert not lost_paths(document)


@each
def test_settings_that_are_shown_can_be_given(document):
    """`PPOConfig(gamma=0.99)` in a sentence: there is such a class, and it takes such an argument."""
    for name, arguments in re.findall(r"`([A-Z]\w+)\((\w+=[^`]*)\)`", document.text):
        found = getattr(artifex_rl, name, None) or getattr(importlib.import_module("artifex_rl.lab"), name, None)
        if found is not None:
            known = {**inspect.signature(found).parameters, **inspect.signature(found.__init__).parameters}
            for argument in re.findall(r"(?:^|, )(\w+)=", arguments):
                assert argument in known, f"{name} takes no {argument}"


@each
def test_versions_are_those_of_the_project(document):
    least = PROJECT["requires-python"].removeprefix(">=")
    offered = {line.rpartition(" ")[2] for line in PROJECT["classifiers"] if "Python :: 3." in line}
    for said in re.findall(r"Python ≥ (3\.\d+)|Python (3\.\d+) or later", document.text):
        assert "".join(said) == least
    for said in re.findall(r"Python (3\.\d+)", document.text):
        assert said in offered, f"Python {said} is not among those that the project names"
    for package, said in re.findall(r"(?<![\w.-])([A-Za-z][\w.-]*) (\d+(?:\.\d+){2,})", document.prose):
        assert locked().get(package.lower(), said) == said, f"{package} {said}, and the lock has another"


@cache
def locked() -> dict[str, str]:
    """Versions that the tests run with, by package."""
    lines = (ROOT / ".ci" / "requirements.txt").read_text("utf-8").lower()
    return dict(re.findall(r"(?m)^([\w.-]+)==([\w.]+)", lines))


@pytest.mark.parametrize(
    ("markdown", "wrong"),
    [
        ("`compute_gae_advantages`", []),
        ("`compute_gae_advantage`", ["compute_gae_advantage"]),
        ("`PPOTrainer.train_step`", []),
        ("`PPOTrainers`", ["PPOTrainers"]),
        ("`AdvantageExplorer(gae_lambda=0.9)`", []),
        ("`AdvantageExplorers(gae_lambdas=0.9)`", ["AdvantageExplorers", "gae_lambdas"]),
        ("`my_function`\n\n```python\ndef my_function(): ...\n```", []),
    ],
)
def test_a_renamed_name_is_found(markdown, wrong):
    assert unknown_names(Document(ROOT / "docs" / "new.md", markdown)) == wrong


def test_a_lost_module_and_a_lost_path_are_found():
    assert not lost("artifex_rl.lab.gallery.build") and not lost("artifex_rl.lab.AdvantageExplorer")
    assert lost("artifex_rl.lab.gallery.built") and lost("artifex_rl.labs")
    page = Document(
        ROOT / "docs" / "new.md", "`artifex_rl/lab/gallery.py`, `tests/`, `artifex_rl/lab/galery.py`, `test/`"
    )
    assert lost_paths(page) == ["artifex_rl/lab/galery.py", "test/"]


def test_names_are_found():
    """Else the patterns have stopped matching."""
    spans = [span for document in documents() for span in _SPAN.findall(document.text)]
    assert sum(bool(_NAME.fullmatch(span)) for span in spans) > 150
    assert sum(bool(_PATH.fullmatch(span)) for span in spans) > 20
    assert Path(artifex_rl.__file__).is_relative_to(ROOT)


@pytest.mark.parametrize(
    ("check", "markdown", "message"),
    [
        (test_versions_are_those_of_the_project, "with jax 0.0.1", "the lock has another"),
        (test_versions_are_those_of_the_project, "Python 2.7 or later, Python 3.9", "not among those"),
        (test_settings_that_are_shown_can_be_given, "`PPOConfig(gama=0.9)`", "takes no gama"),
    ],
)
def test_a_stale_version_and_a_stale_argument_are_found(check, markdown, message):
    with pytest.raises(AssertionError, match=message):
        check(Document(ROOT / "docs" / "new.md", markdown))
