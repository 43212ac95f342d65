"""Making files of a whole course: what the commands for editions and slides share."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

import nbformat
from nbformat import NotebookNode


def make_texts(
    source: str | os.PathLike, out: str | os.PathLike, make: Callable[[str, NotebookNode], dict[str, str]]
) -> dict[str, str]:
    """What is made of every notebook of a folder, in the order of their names; nothing is written.

    Args:
        source: the folder of the notebooks.
        out: a folder outside of it, where the texts will go.
        make: of a notebook's stem and the notebook, texts by the names of their files in `out`.

    Raises:
        ValueError: there are no notebooks, `out` lies in `source`, or a notebook is not valid; the message names it.
    """
    source, out = Path(source), Path(out)
    paths = sorted(source.glob("*.ipynb"))
    if not paths:
        raise ValueError(f"source: got {source}, needs a folder with notebooks")
    if out.resolve().is_relative_to(source.resolve()):
        raise ValueError(f"out: got {out}, needs a folder outside of {source}")
    texts = {}
    for path in paths:
        try:
            texts |= make(path.stem, nbformat.read(path, as_version=4))
        except (ValueError, nbformat.ValidationError) as error:
            raise ValueError(f"{path.name}: {error}") from error
    return texts


def write_texts(out: str | os.PathLike, texts: dict[str, str]) -> list[Path]:
    """Write texts into a folder, the same bytes on every system; other files of it stay as they are."""
    targets = [Path(out) / name for name in texts]
    for target, text in zip(targets, texts.values(), strict=True):
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8", newline="\n")
    return targets


def run_command(
    build: Callable[[Path, Path], list[Path]], module: str, description: str, goes: str, arguments: list[str] | None
) -> None:
    """`python -m module source --out folder`: say what `build(source, out)` has written, or what was wrong.

    Args:
        goes: help for `--out`.
        arguments: those of the command line by default.
    """
    parser = argparse.ArgumentParser(f"python -m {module}", description=description)
    parser.add_argument("source", type=Path, help="the folder of the notebooks")
    parser.add_argument("--out", type=Path, required=True, help=goes)
    options = parser.parse_args(arguments)
    try:
        written = build(options.source, options.out)
    except (ValueError, ModuleNotFoundError) as error:
        sys.exit(str(error))
    for path in written:
        print(f"{path}: {path.stat().st_size:,} bytes")
