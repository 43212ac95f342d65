"""Where the course is, how a learner gets a copy of their own, and why its widgets live when it is opened.

`python -m artifex_rl.lab.course FOLDER` copies and trusts it and opens nothing: for a hub, when a server starts.

In a checkout the course is the repository's `notebooks/` and is opened in place. An installed wheel carries the
notebooks inside the package, where nobody should edit them, so they are copied out first.
"""

import argparse
import hashlib
import json
import shutil
from collections.abc import Iterable
from pathlib import Path

START = "00_start_here.ipynb"
COPY = "artifex_rl_course"
# What was copied, by digest: an older file of ours is told from one that the learner worked on.
RECORD = ".artifex_rl.json"


def find_course(package: Path | None = None) -> tuple[Path, bool]:
    """The folder of the notebooks, and whether it belongs to a checkout (and so is opened in place).

    Args:
        package: the folder of the package; that of the `artifex_rl` in use by default.

    Raises:
        FileNotFoundError: neither a checkout nor an installed package with notebooks.
    """
    package = package or Path(__file__).resolve().parent.parent
    checkout = package.parent / "notebooks"
    if (checkout / START).is_file() and (package.parent / "pyproject.toml").is_file():
        return checkout, True
    if (package / "notebooks" / START).is_file():
        return package / "notebooks", False
    raise FileNotFoundError(
        f"The course was not found: {START} is neither in {checkout} nor in {package / 'notebooks'}."
    )


def copy_course(source: Path, target: Path) -> tuple[list[Path], list[Path]]:
    """Copy the course into `target`, never over a file that the learner changed.

    A file is replaced only while it is what an earlier call put there; a deleted or renamed one comes back.

    Returns:
        The files that are now as in `source`, and those that were kept because they were changed.
    """
    record = target / RECORD
    copied = json.loads(record.read_text()) if record.is_file() else {}
    current, kept = [], []
    for file in sorted(path for path in source.rglob("*") if path.is_file() and path.name != RECORD):
        name = file.relative_to(source).as_posix()
        if ".ipynb_checkpoints" in name or "__pycache__" in name:
            continue
        here, digest = target / name, _digest(file)
        if here.exists() and _digest(here) not in (digest, copied.get(name)):
            kept.append(here)
            continue
        here.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, here)
        copied[name] = digest
        current.append(here)
    record.write_text(json.dumps(copied, indent=1) + "\n")
    return current, kept


def find_notebook(course: Path, name: str = START) -> Path:
    """The notebook called `name`: its file name, with or without `.ipynb`, or the start of it (`01`).

    Raises:
        ValueError: no such notebook, or several; the message lists the notebooks of the course.
    """
    notebooks = sorted(course.glob("*.ipynb"))
    exact = [notebook for notebook in notebooks if Path(name).name in (notebook.name, notebook.stem)]
    found = exact or [notebook for notebook in notebooks if name and notebook.name.startswith(name)]
    if len(found) != 1:
        listed = "\n".join(f"  {notebook.stem}" for notebook in notebooks)
        raise ValueError(
            f"{'Several notebooks are' if found else 'No notebook is'} called {name!r}. There are:\n{listed}"
        )
    return found[0]


def trust(files: Iterable[Path]) -> None:
    """Sign the notebooks among `files`: Jupyter shows the stored widgets of a notebook only if it is trusted."""
    from jupyter_core.paths import jupyter_data_dir
    from nbformat import NO_CONVERT, read
    from nbformat.sign import NotebookNotary

    folder = Path(jupyter_data_dir())
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # on a new machine Jupyter never ran
    with NotebookNotary(data_dir=str(folder)) as notary:
        for file in files:
            if file.suffix == ".ipynb":
                notary.sign(read(file, NO_CONVERT))


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        "python -m artifex_rl.lab.course",
        description="Copy the course, never over what a learner changed, and trust what was copied.",
    )
    parser.add_argument("folder", nargs="?", type=Path, default=Path(COPY), help=f"default: ./{COPY}")
    folder = parser.parse_args(arguments).folder
    current, kept = copy_course(find_course()[0], folder)
    trust(current)
    print(f"{len(current)} files are current in {folder}, {len(kept)} kept as they were changed")


if __name__ == "__main__":
    main()
