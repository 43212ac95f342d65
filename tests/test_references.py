"""The bibliography of the site holds every paper that is cited, each as it is cited."""

from __future__ import annotations

import re
import unicodedata
from functools import cache

import pytest
from documents import ROOT, documents

BIBLIOGRAPHY = ROOT / "docs" / "references.bib"
ARXIV = re.compile(r"(?:arXiv:\s?|arxiv\.org/abs/)(\d{4}\.\d{4,5})", re.IGNORECASE)
DOI = re.compile(r"(?:doi:\s?|doi\.org/)(10\.\d{4,9}/[^\s)\];,>\"]+)", re.IGNORECASE)
#: Data and software are no papers; README's licences name them.
NO_PAPERS = {"10.5281/zenodo.7199437", "10.24432/c50p49"}

DATA = {"Optical Recognition of Handwritten Digits", "wordfreq"}
#: What the notebooks call a paper that is better known by another name than its title.
NICKNAMES = {
    "2103.00020": "CLIP",
    "2410.08847": "Unintentional Unalignment: Likelihood Displacement in DPO",
}


def parse(text: str) -> list[dict[str, str]]:
    """The fields of each entry, with `key` and `type`. One field a line, as the file is written."""
    entries = []
    for block in re.split(r"(?m)^(?=@)", text)[1:]:
        kind, key = re.match(r"@(\w+)\{([^,\s]+),", block).groups()
        fields = dict(re.findall(r"(?m)^  (\w+) = \{+(.*?)\}+,?$", block))
        assert len(fields) == len(block.strip().splitlines()) - 2, f"{key}: a line that is no field"
        entries.append({"type": kind, "key": key, **fields})
    return entries


@cache
def bibliography() -> tuple[dict[str, str], ...]:
    return tuple(parse(BIBLIOGRAPHY.read_text("utf-8")))


def plain(words: str) -> str:
    """In small letters, without accents, dashes and punctuation, for comparing names and titles."""
    letters = unicodedata.normalize("NFKD", words.replace("ø", "o").replace("ı", "i").lower())
    return " ".join(re.findall(r"[a-z0-9]+", "".join(c for c in letters if not unicodedata.combining(c))))


def last_name(entry: dict[str, str]) -> str:
    return entry["author"].split(",")[0]


@cache
def texts() -> tuple[tuple[str, str], ...]:
    """Name and text of everything that cites: docstrings, README, pages and notebooks, each without line breaks."""
    sources = [(path.relative_to(ROOT).as_posix(), path.read_text("utf-8")) for path in modules()]
    sources += [(document.name, document.text) for document in documents()]
    return tuple((name, re.sub(r"\s+(?:# )?", " ", text)) for name, text in sources)


def modules() -> list:
    return sorted((ROOT / "artifex_rl").rglob("*.py"))


def cited(pattern: re.Pattern) -> list[tuple[str, str, str]]:
    """(where, identifier, the words before it) of each citation."""
    return [
        (name, match[1].rstrip(".").lower(), text[max(0, match.start() - 300) : match.start()])
        for name, text in texts()
        for match in pattern.finditer(text)
    ]


def strangers(pattern: re.Pattern, field: str) -> list[str]:
    known = {entry.get(field, "").lower() for entry in bibliography()} | NO_PAPERS
    return [f"{name}: {identifier}" for name, identifier, _ in cited(pattern) if identifier not in known]


def test_every_arxiv_paper_that_is_cited_is_in_the_bibliography():
    assert len({identifier for _, identifier, _ in cited(ARXIV)}) > 70, "else the pattern has stopped matching"
    assert not strangers(ARXIV, "eprint")


def test_every_doi_that_is_cited_is_in_the_bibliography():
    assert len({identifier for _, identifier, _ in cited(DOI)}) > 6
    assert not strangers(DOI, "doi")


def test_an_identifier_stands_behind_the_name_of_its_author():
    """An identifier with a wrong digit is that of somebody else."""
    names = {entry["eprint"]: last_name(entry) for entry in bibliography() if "eprint" in entry}
    wrong = [
        f"{where}: {identifier} is by {names[identifier]}"
        for where, identifier, before in cited(ARXIV)
        if plain(names[identifier]) not in plain(before)
    ]
    assert not wrong


def test_a_title_is_the_one_in_the_bibliography():
    """Citations in italics give the title, or the beginning of it, or its nickname before a colon."""
    titles = {entry["eprint"]: plain(entry["title"]) for entry in bibliography() if "eprint" in entry}
    seen, wrong = 0, []
    for where, identifier, before in cited(ARXIV):
        match = re.search(r"\*([^*]+)\*(?: \(\w+\))?,? \[?$", before)
        if match:
            seen += 1
            if match[1] != NICKNAMES.get(identifier) and plain(match[1]) not in titles[identifier]:
                wrong.append(f"{where}: {match[1]!r} for {titles[identifier]!r}")
    assert seen > 60 and not wrong


def test_what_is_cited_by_title_and_year_alone_is_in_the_bibliography():
    """Papers without an identifier in the text: books, workshops, what is older than the DOI."""
    known = {plain(entry["title"]): int(entry["year"]) for entry in bibliography()}
    seen, missing = 0, []
    for name, text in texts():
        for year, title in re.findall(r"[(\s](\d{4})\)?, \*([^*]+)\*", text):
            if title in DATA or title in NICKNAMES.values():
                continue
            seen += 1
            years = [known[whole] for whole in known if plain(title) in whole]
            if not any(abs(int(year) - there) <= 2 for there in years):
                missing.append(f"{name}: {title} ({year})")
    assert seen > 100 and not missing


@pytest.mark.parametrize("entry", bibliography(), ids=lambda entry: entry["key"])
def test_an_entry_is_whole(entry):
    assert {"author", "title", "year"} <= set(entry)
    assert entry["type"] != "article" or "journal" in entry
    assert entry["type"] not in ("inproceedings", "incollection") or "booktitle" in entry
    assert all("," in name or name == "others" for name in entry["author"].split(" and ")), "Last, First"
    assert ("doi" in entry) != ("url" in entry), "doi, or url where there is none"
    stem, year = re.fullmatch(r"([a-z]{2,})(\d{4})[a-z0-9]*", entry["key"]).groups()
    assert year == entry["year"] and plain(last_name(entry)).replace(" ", "").endswith(stem)
    if entry.get("doi", "").startswith("10.48550/"):
        assert entry["doi"] == f"10.48550/arXiv.{entry['eprint']}"
    if "eprint" in entry:
        assert entry["archiveprefix"] == "arXiv"
        assert 0 <= int(entry["year"]) - (2000 + int(entry["eprint"][:2])) <= 2


def test_keys_and_papers_are_sorted_and_unique():
    keys = [entry["key"] for entry in bibliography()]
    assert keys == sorted(set(keys))
    for field in ("doi", "eprint", "title"):
        values = [entry[field].lower() for entry in bibliography() if field in entry]
        assert len(values) == len(set(values)), field


def test_every_key_that_a_page_cites_is_there():
    known = {entry["key"] for entry in bibliography()}
    for document in documents():
        for keys in re.findall(r"\{cite(?::\w+)?\}`([^`]+)`", document.text):
            assert not {key.strip() for key in keys.split(",")} - known, f"{document.name}: {keys}"


def test_the_page_of_references_shows_all():
    page = (ROOT / "docs" / "references.md").read_text("utf-8")
    assert page.startswith("# References\n") and re.search(r"```\{bibliography\}\n:all:\n", page)


def test_a_broken_file_is_found():
    with pytest.raises(AssertionError, match="no field"):
        parse("@misc{a2000,\n  author = {A, B},\n  title = {{x}\n  continued},\n}\n")
