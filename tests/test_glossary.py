"""The glossary: whole, in order, in the words of the course, and true to the names of the library."""

from __future__ import annotations

import inspect
import re
from functools import cache
from typing import NamedTuple

import nbformat
import pytest
from documents import ROOT, documents, read

import artifex_rl
from artifex_rl import DPOConfig, GRPOConfig, PPOConfig, REINFORCEConfig, callbacks, models, trainers

GLOSSARY = ROOT / "docs" / "glossary.md"
KNOBS = {
    name
    for config in (REINFORCEConfig, PPOConfig, GRPOConfig, DPOConfig)
    for name, kind in config.__annotations__.items()
    if kind.startswith("float")
}
GREEK = str.maketrans({"β": "beta", "γ": "gamma", "η": "eta", "λ": "lambda"})
CODE = re.compile(r"`([^`]+)`")


class Entry(NamedTuple):
    letter: str
    terms: tuple[str, ...]
    text: str


def parse(page: str) -> list[Entry]:
    """The entries of all `{glossary}` directives of a page, with the heading that each stands under."""
    entries = []
    for letter, block in re.findall(r"(?m)^## (.+)\n\n```\{glossary\}\n([^`](?:.|\n)*?)^```$", page):
        for entry in block.strip("\n").split("\n\n"):
            terms, text = re.fullmatch(r"((?:\S.*\n)+)((?:  \S.*\n?)+)", entry).groups()
            entries.append(Entry(letter, tuple(terms.splitlines()), " ".join(text.split())))
    return entries


@cache
def entries() -> tuple[Entry, ...]:
    return tuple(parse(GLOSSARY.read_text("utf-8")))


@cache
def course() -> str:
    """What readers of the site see of words: notebooks, pages and docstrings, in one line and in small letters."""
    pages = [document.text for document in documents() if document.path != GLOSSARY]
    return re.sub(r"\s+", " ", " ".join([*pages, library()])).lower()


@cache
def library() -> str:
    return "\n".join(path.read_text("utf-8") for path in sorted((ROOT / "artifex_rl").rglob("*.py")))


@cache
def names() -> frozenset[str]:
    """Every name that the library has."""
    return frozenset(re.findall(r"[A-Za-z_]\w*", library()))


def bare(term: str) -> str:
    """Without what is in parentheses, which only keeps a term from being linked where it is an everyday word."""
    return re.sub(r" \(.*\)", "", term).lower()


def order(term: str) -> str:
    return term.lower().translate(GREEK)


def test_there_are_enough_entries_and_none_was_missed():
    assert len(entries()) >= 80
    lines = [line for line in GLOSSARY.read_text("utf-8").splitlines() if line.startswith("```{glossary}")]
    assert len(lines) == len({entry.letter for entry in entries()}), "a directive that the pattern does not know"


def test_no_term_is_explained_twice():
    terms = [term.lower() for entry in entries() for term in entry.terms]
    assert len(terms) == len(set(terms)), sorted(term for term in set(terms) if terms.count(term) > 1)


def test_entries_stand_in_the_order_of_the_alphabet_under_their_letters():
    first = [order(entry.terms[0]) for entry in entries()]
    assert first == sorted(first)
    assert all(name.startswith(entry.letter.lower()) for name, entry in zip(first, entries(), strict=True))


def test_an_entry_is_short_and_leads_on():
    for entry in entries():
        sentences = re.split(r"(?<=[.!?])\s+(?=[A-Z`\[])", entry.text)
        assert entry.text.endswith(".") and 2 <= len(sentences) <= 5, sentences
        assert len(_prose(entry.text)) < 400, entry.text
        linked = re.findall(r"\[[Nn]otebook (\d\d)\]\(notebooks/(\d\d)_\w+\.ipynb\)", entry.text)
        assert linked or CODE.search(entry.text), (
            f"{entry.terms}: which notebook teaches it, or what in the library does it?"
        )
        assert all(said == number for said, number in linked), entry.text


def _prose(text: str) -> str:
    return re.sub(r"`[^`]+`|\]\([^)]*\)|\$[^$]+\$", "", text)


def test_the_words_of_an_entry_are_those_of_the_course():
    words = frozenset(re.findall(r"[\w–-]+", course()))
    unused = [
        entry.terms
        for entry in entries()
        if not any(bare(term) in (course() if " " in bare(term) else words) for term in entry.terms)
    ]
    assert not unused


def test_a_notebook_that_an_entry_leads_to_speaks_of_it():
    """By one of its terms, or by a name of the library that stands in the entry."""
    astray = []
    for entry in entries():
        words = {bare(term) for term in entry.terms}.union(
            *(map(str.lower, named(c)) for c in CODE.findall(entry.text))
        )
        for path in re.findall(r"\((notebooks/\S+?\.ipynb)\)", entry.text):
            if not any(re.search(rf"(?<!\w){re.escape(word)}(?:s|es)?(?!\w)", sources(path)) for word in words):
                astray.append(f"{entry.terms[0]}: {path} has none of {sorted(words)}")
    assert not astray


@cache
def sources(path: str) -> str:
    """All cells of a notebook as they were written, without what they printed."""
    return "\n".join(cell.source for cell in nbformat.read(ROOT / path, as_version=4).cells).lower()


def named(code: str) -> list[str]:
    return re.findall(r"[A-Za-z_]\w*", code)


def test_code_in_an_entry_has_names_that_the_library_has():
    for entry in entries():
        for code in CODE.findall(entry.text):
            unknown = {name for name in named(code)} - names()
            assert code.startswith("optax.") or not unknown, f"{entry.terms[0]}: `{code}`: {unknown}"


def test_defaults_and_choices_in_an_entry_are_those_of_the_code():
    """`PPOConfig(gamma=0.99)` says what the default is; a word says what one may choose, and ... nothing."""
    seen = 0
    for owner, inside in re.findall(r"`([A-Z]\w+)\(([^`]*=[^`]*)\)`", " ".join(entry.text for entry in entries())):
        for knob, value in re.findall(r"(\w+)=([^,]+)", inside):
            default = inspect.signature(_public(owner).__init__).parameters[knob].default
            if value.startswith('"'):
                _public(owner)(**{knob: value.strip('"')})  # raises ValueError if there is no such choice
            elif value not in ("...", "True", "False"):
                seen += 1
                assert str(default) == value, f"{owner}.{knob} is {default}, not {value}"
    assert seen > 15


def _public(name: str) -> type:
    return next(
        getattr(module, name) for module in (artifex_rl, callbacks, models, trainers) if hasattr(module, name)
    )


def test_every_knob_of_the_four_configs_has_a_term():
    terms = {term for entry in entries() for term in entry.terms}
    assert {"gamma", "clip_param", "beta", "label_smoothing"} <= KNOBS
    assert not KNOBS - terms


def test_every_notebook_is_led_to():
    links = [path for entry in entries() for path in set(re.findall(r"\(notebooks/(\d\d)_\S+?\.ipynb\)", entry.text))]
    counts = {number: links.count(number) for number in (f"{n:02d}" for n in range(1, 14))}
    assert min(counts.values()) >= 3, counts


def test_the_page_leads_to_every_paragraph_on_knobs():
    page = read(GLOSSARY)
    targets = re.findall(r"(?m)^\((knob-\w+)\)=$", read(GLOSSARY.with_name("knobs.md")))
    assert "## What does … do?" in page and "(knobs.md)" in page
    assert targets and re.findall(r"\(#(knob-\w+)\)", page) == targets


def test_a_broken_entry_is_found():
    good = "## A\n\n```{glossary}\na\nb\n  X.\n\nc\n  Y.\n```\n"
    assert parse(good) == [Entry("A", ("a", "b"), "X."), Entry("A", ("c",), "Y.")]
    with pytest.raises(AttributeError):
        parse(good.replace("  Y.", "Y."))
