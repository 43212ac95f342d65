"""The library's own source as pages with a link for every line, and a role that points at a line by its words.

    {line}`rl/ppo.py "ratio = jnp.exp"`

is a link to the one line of `artifex_rl/rl/ppo.py` that holds those words. When none does, or several do, the build
fails: a page cannot point at what is no longer there.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from docutils import nodes
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer
from source_lines import find_line
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxRole

PACKAGE = Path(__file__).resolve().parents[2] / "artifex_rl"


def page_name(path: Path) -> str:
    """The document of a source file: artifex_rl/rl/ppo.py is at source/rl/ppo."""
    return f"source/{path.relative_to(PACKAGE).with_suffix('').as_posix()}"


class LineRole(SphinxRole):
    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        try:
            found = find_line(self.text)
        except ValueError as error:
            message = self.inliner.reporter.error(str(error), line=self.lineno)
            return [self.inliner.problematic(self.rawtext, self.rawtext, message)], [message]
        path = PACKAGE / found.path
        uri = self.env.app.builder.get_relative_uri(self.env.docname, page_name(path))
        link = nodes.reference("", "", refuri=f"{uri}#line-{found.number}", internal=True)
        link += nodes.literal("", f"{path.name}:{found.number}")
        return [link], []


def pages(app: Sphinx) -> Iterator[tuple[str, dict, str]]:
    """One page for each file of the package."""
    formatter = HtmlFormatter(linenos="inline", lineanchors="line", anchorlinenos=True, wrapcode=True)
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE.parent).as_posix()
        code = highlight(path.read_text("utf-8"), PythonLexer(), formatter)
        yield (
            page_name(path),
            {"title": name, "body": f'<div class="source-page"><h1>{name}</h1>{code}</div>'},
            "page.html",
        )


def setup(app: Sphinx) -> dict:
    app.add_role("line", LineRole())
    app.connect("html-collect-pages", pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
