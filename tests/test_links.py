"""Links of README, documentation and notebooks lead somewhere. Nothing is fetched."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from documents import ROOT, Document, documents, origin, read

each = pytest.mark.parametrize("document", documents(), ids=lambda document: document.name)

#: Where links outside may lead. A new host is looked at once: does it last, and may a classroom's filter block it?
HOSTS = {
    "aclanthology.org",
    "arxiv.org",
    "colab.research.google.com",
    "creativecommons.org",
    "docs.cleanrl.dev",
    "docs.jupyter.org",
    "docs.python.org",
    "doi.org",
    "ericmitchell.ai",
    "flax.readthedocs.io",
    "github.com",
    "huggingface.co",
    "iclr-blog-track.github.io",
    "icml.cc",
    "incompleteideas.net",
    "jax.readthedocs.io",
    "jmlr.org",
    "joschu.net",
    "jupyter.org",
    "mlanthology.org",
    "mybinder.org",
    "mybinder.readthedocs.io",
    "openmoji.org",
    "openreview.net",
    "optax.readthedocs.io",
    "papers.nips.cc",
    "people.eecs.berkeley.edu",
    "proceedings.mlr.press",
    "proceedings.neurips.cc",
    "projecteuclid.org",
    "spinningup.openai.com",
    "tljh.jupyter.org",
    "www.jmlr.org",
    "z2jh.jupyter.org",
}
WITHOUT_TLS = {"incompleteideas.net", "joschu.net"}
ARXIV = re.compile(r"\d{4}\.\d{4,5}(v\d+)?")
DOI = re.compile(r"10\.\d{4,9}/[^\s\"<>]+[^\s\"<>.,;]")


def faults(document: Document) -> list[str]:
    """What is wrong with the links and pictures of a document."""
    found = []
    for words, address in [*document.links(), *document.images()]:
        fault = outside(words, address) if "://" in address else inside(document, address)
        if fault:
            found.append(f"{document.name}: [{words}]({address}) {fault}")
    return found


def outside(words: str, address: str) -> str:
    parts = urlsplit(address)
    if parts.scheme != "https" and parts.hostname not in WITHOUT_TLS:
        return "is not https"
    if parts.hostname not in HOSTS:
        return "leads to a host that nobody has looked at: see HOSTS"
    if not address.isascii() or re.search(r"[\s\\^`{|}]", address):
        return "has a character that belongs in no address"
    cited = re.match(r"arXiv:\s?(\S+)$", words)
    if parts.hostname == "arxiv.org" or cited:
        identifier = re.fullmatch(rf"/abs/({ARXIV.pattern})", parts.path)
        if parts.hostname != "arxiv.org" or not identifier:
            return "is no address of an abstract on arXiv"
        if not 1 <= int(identifier[1][2:4]) <= 12:
            return "has an identifier of no month"
        if cited and cited[1] != identifier[1]:
            return "says one paper and leads to another"
    cited = re.match(r"doi:\s?(\S+)$", words)
    if parts.hostname == "doi.org" or cited:
        identifier = unquote(parts.path.lstrip("/"))
        if parts.hostname != "doi.org" or not DOI.fullmatch(identifier):
            return "is no DOI"
        if cited and cited[1] != identifier:
            return "says one DOI and leads to another"
    return ""


def inside(document: Document, address: str) -> str:
    """A file of this repository, and a heading in it."""
    if address.startswith(("mailto:", "data:", "/")):
        return "is no relative address"
    path, _, anchor = address.partition("#")
    target = (document.path.parent / unquote(path)).resolve() if path else document.path
    if not target.is_relative_to(ROOT):
        return "leads out of the repository"
    source = origin(target)
    if source is None:  # written by the build of the site, which checks it
        return ""
    in_docs = document.path.is_relative_to(ROOT / "docs")
    if in_docs and not source.exists() and source.with_name(source.name + ".md").exists():
        source = source.with_name(source.name + ".md")  # MyST takes the name of a page
    if not source.exists():
        return "is not there"
    if not anchor:
        return ""
    if source.suffix not in (".md", ".ipynb"):
        return "has an anchor in what has no headings"
    known = Document(source, read(source)).anchors()
    if in_docs and not path:  # MyST finds a target of any page
        known = known.union(*(other.anchors() for other in documents() if other.path.is_relative_to(ROOT / "docs")))
    return "" if unquote(anchor) in known else "names a section that is not there"


@each
def test_every_link_leads_somewhere(document):
    assert not faults(document)


def test_there_are_links_to_check():
    """Else the patterns have stopped matching."""
    links = [address for document in documents() for _, address in document.links()]
    assert sum("://" in address for address in links) > 80
    assert sum(address.endswith(".ipynb") for address in links) > 50
    assert len([image for document in documents() for image in document.images()]) >= 2


def test_a_paper_is_cited_once_in_a_notebook_and_with_a_link():
    for document in documents():
        if document.path.suffix == ".ipynb":
            cited = re.findall(r"(?<!\[)\barXiv:\d", document.prose)
            assert not cited, f"{document.name}: cited without a link"
            papers = [address for _, address in document.links() if "arxiv.org" in address]
            assert len(papers) == len(set(papers)), f"{document.name}: {sorted(papers)}"


@pytest.mark.parametrize(
    ("markdown", "fault"),
    [
        ("[x](notebooks/01_returns.ipynb)", "is not there"),
        ("[x](notebooks/01_returns_and_advantages.ipynb#2--the-return-by-foot)", "names a section"),
        ("[x](notebooks/01_returns_and_advantages.ipynb#2--the-return-by-hand)", ""),
        ("[x](#licenses)", "names a section"),
        ("[x](#licences)", ""),
        ("[x](../elsewhere.md)", "leads out"),
        ("[x](/work.md)", "no relative"),
        ("![A picture of nothing at all.](docs/nothing.png)", "is not there"),
        ('<a href="docs/nothing.md">x</a>', "is not there"),
        ("[x](LICENSE#mit)", "has an anchor"),
        ("[x](http://arxiv.org/abs/1506.02438)", "not https"),
        ("<https://example.org/x>", "nobody has looked at"),
        ("[arXiv:1506.02438](https://arxiv.org/abs/1506.02439)", "one paper"),
        ("[arXiv:1506.02438](https://arxiv.org/pdf/1506.02438)", "no address of an abstract"),
        ("[arXiv:1546.02438](https://arxiv.org/abs/1546.02438)", "no month"),
        ("[arXiv:1506.02438](https://arxiv.org/abs/1506.02438)", ""),
        ("[doi:10.2307/3318418](https://doi.org/10.2307/331841)", "one DOI"),
        ("[doi:3318418](https://doi.org/3318418)", "no DOI"),
        ("[doi:10.2307/3318418](https://doi.org/10.2307/3318418)", ""),
        ("`[x](nothing.md)`\n\n```md\n[x](nothing.md)\n```", ""),
    ],
)
def test_a_broken_link_is_found(markdown, fault):
    found = faults(Document(ROOT / "README.md", f"# Licences\n\n{markdown}"))
    assert (len(found) == 1 and fault in found[0]) if fault else not found


def test_bibliographies_have_addresses_that_can_be():
    for bibliography in sorted((ROOT / "docs").glob("*.bib")):
        text = bibliography.read_text("utf-8")
        for entry in re.split(r"(?m)^(?=@)", text)[1:]:
            name = re.match(r"@\w+\{([^,]+),", entry)[1]
            doi, eprint, url = (
                re.search(rf"(?im)^\s*{f}\s*=\s*[{{\"]([^}}\"]+)", entry) for f in ("doi", "eprint", "url")
            )
            assert doi or eprint or url, f"{name}: no doi, eprint or url"
            assert not doi or DOI.fullmatch(doi[1]), name
            assert not eprint or ARXIV.fullmatch(eprint[1]), name
            assert not url or not outside("", url[1]), f"{name}: {url[1]} {outside('', url[1])}"


def test_the_paths_of_a_link_are_written_as_the_file_is():
    """A file system that ignores case hides what GitHub does not find."""
    for document in documents():
        for _, address in document.links():
            if "://" not in address and address.partition("#")[0]:
                target = (document.path.parent / unquote(address.partition("#")[0])).resolve()
                source = origin(target)
                if source is not None and source.exists() and source != ROOT:
                    assert source.name in {path.name for path in Path(source.parent).iterdir()}, address
