"""The reference, from the docstrings: a page for every module, and one for every public function and class."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from pathlib import Path
from types import ModuleType

from sphinx.application import Sphinx

import artifex_rl

#: The floors of the house, from the top of the page to the bottom, and what stands on each.
FLOORS = {
    "artifex_rl.rl": "Returns, losses, policies, rewards, and the four trainers on them",
    "artifex_rl.trainers": "Trainers of generative models",
    "artifex_rl.callbacks": "What happens beside the training",
    "artifex_rl.models": "Small models",
    "artifex_rl.envs": "Environments",
    "artifex_rl.data": "Data and scorers",
    "artifex_rl.diffusion": "Diffusion, as pure functions",
    "artifex_rl.generative": "The other model families, as pure functions",
    "artifex_rl.lab": "Explorers, live panels, exercises and editions",
    "artifex_rl": "What all trainers share",
}
HIDDEN = ("make_", "_")


def modules() -> dict[str, ModuleType]:
    """Every module that is meant to be read about, by name."""
    found = {}
    for info in pkgutil.walk_packages(artifex_rl.__path__, "artifex_rl."):
        parts = info.name.split(".")
        if not (any(part.startswith(HIDDEN) for part in parts) or {"exercises", "jupyter", "notebooks"} & set(parts)):
            found[info.name] = importlib.import_module(info.name)
    return found


def public(module: ModuleType) -> dict[str, object]:
    """Its own functions and classes, in the order of the file."""
    own = {
        name: thing
        for name, thing in vars(module).items()
        if not name.startswith("_")
        and (inspect.isclass(thing) or callable(thing))
        and getattr(thing, "__module__", None) == module.__name__
        and getattr(thing, "__name__", None) == name
    }
    return dict(sorted(own.items(), key=lambda item: inspect.getsourcelines(inspect.unwrap(item[1]))[1]))


def gathered(module: ModuleType) -> dict[str, object]:
    """What it hands on from other modules of the package, by `__all__`: the names that one imports."""
    named = {name: getattr(module, name) for name in getattr(module, "__all__", ())}
    return {
        name: thing
        for name, thing in named.items()
        if callable(thing)
        and getattr(thing, "__module__", "").startswith("artifex_rl")
        and name not in public(module)
    }


def write_pages(app: Sphinx) -> None:
    """Into the folder `api` of the sources, which git ignores."""
    folder = Path(app.srcdir) / "api"
    folder.mkdir(exist_ok=True)
    found = {name: module for name, module in modules().items() if public(module) or gathered(module)}
    texts = {"index.rst": _index(found)}
    for name, module in found.items():
        texts[f"{name}.rst"] = _module_page(module, found)
        for thing, value in public(module).items():
            texts[f"{name}.{thing}.rst"] = _object_page(name, thing, value)
    for path in folder.iterdir():
        if path.name not in texts:
            path.unlink()
    for name, text in texts.items():
        path = folder / name
        if not path.exists() or path.read_text("utf-8") != text:
            path.write_text(text, "utf-8")


def _module_page(module: ModuleType, found: dict[str, ModuleType]) -> str:
    name = module.__name__
    # In no table of contents: a hundred modules in the navigation of every page would take most of the build.
    lines = [":orphan:", "", _heading(name), f".. py:module:: {name}", "", _escaped(inspect.getdoc(module) or ""), ""]
    lines += [f"`Source <{_source(module)}>`__", ""]
    for thing, value in public(module).items():
        lines += [_linked(name, thing), f"   {_first_line(value)}", ""]
    elsewhere = {thing: value for thing, value in gathered(module).items() if value.__module__ in found}
    if elsewhere:
        lines += [_heading("Names that it hands on", "-")]
    for value in elsewhere.values():
        lines += [_linked(value.__module__, value.__name__), f"   {_first_line(value)}", ""]
    return "\n".join(lines)


def _object_page(module: str, name: str, thing: object) -> str:
    line = inspect.getsourcelines(inspect.unwrap(thing))[1]
    kind = "autoclass" if inspect.isclass(thing) else "autofunction"
    options = ["   :members:", "   :show-inheritance:"] if inspect.isclass(thing) else []
    where = f"In `{module} <{module}.html>`__, `source <{_source(importlib.import_module(module))}#line-{line}>`__."
    return "\n".join([":orphan:", "", _heading(name), where, "", f".. {kind}:: {module}.{name}", *options, ""])


def _index(found: dict[str, ModuleType]) -> str:
    lines = [
        _heading("Reference"),
        "Every public function and class, with the shapes that it takes, from its docstring.",
        "",
    ]
    left = set(found)
    for floor, title in FLOORS.items():
        here = sorted(name for name in left if f"{name}.".startswith(f"{floor}."))
        left -= set(here)
        lines += [_heading(title, "-")]
        for name in here:
            lines += [f"`{name} <{name}.html>`__", f"   {_first_line(found[name])}", ""]
            if public(found[name]):
                lines += ["   " + ", ".join(_linked(name, thing) for thing in public(found[name])), ""]
    return "\n".join(lines)


def _linked(module: str, name: str) -> str:
    return f"`{name} <{module}.{name}.html>`__"


def _source(module: ModuleType) -> str:
    path = Path(module.__file__).relative_to(Path(artifex_rl.__file__).parent)
    return f"../source/{path.with_suffix('').as_posix()}.html"


def _first_line(thing: object) -> str:
    return _escaped((inspect.getdoc(thing) or "").partition("\n\n")[0].replace("\n", " "))


def _escaped(text: str) -> str:
    """The docstrings are prose with code in backticks and in indented blocks; all other signs mean themselves."""
    text = re.sub(r"(?m)^(\S.*):\n\n(?=    \S)", r"\1::\n\n", text)
    parts = re.split(r"(``.*?``|`[^`]*`|::\n\n(?: {4}.*\n|\n)*)", text)
    parts[::2] = [re.sub(r"\||(?<=\w)_(?!\w)", r"\\\g<0>", part) for part in parts[::2]]
    parts[2::2] = [rf"\ {part}" if part[:1].isalnum() else part for part in parts[2::2]]  # `Slider`s
    return "".join(parts)


def escape_docstring(app: Sphinx, what: str, name: str, thing: object, options: object, lines: list[str]) -> None:
    lines[:] = _escaped("\n".join(lines)).split("\n")


#: Types are shown by the names that the code gives them, not by what these stand for.
WRITTEN = {
    re.compile(
        r"~?[\w.]*\bArray \| ~?[\w.]*ndarray \| ~?[\w.]*bool_? \| ~?[\w.]*number \| bool \| int \| float \| complex"
    ): "ArrayLike",
    re.compile(r"~?jaxlib\._jax\.Array"): "Array",
}


def shorten(
    app: Sphinx, what: str, name: str, thing: object, options: object, signature: str | None, returns: str | None
) -> tuple[str | None, str | None]:
    for long, short in WRITTEN.items():
        signature, returns = (text and long.sub(short, text) for text in (signature, returns))
    return signature, returns


def _heading(text: str, underline: str = "=") -> str:
    return f"{text}\n{underline * len(text)}\n"


def setup(app: Sphinx) -> dict:
    app.connect("builder-inited", write_pages)
    app.connect("autodoc-process-docstring", escape_docstring)
    app.connect("autodoc-process-signature", shorten)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
