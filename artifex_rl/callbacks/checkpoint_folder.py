"""A folder of checkpoints, each of which is there whole or not at all.

A checkpoint is the folder `step_00000120`: what `Trainer.save` writes, `more.json`, and `manifest.json`, which
lists the size and the SHA-256 of every other file. It is written under another name, brought to the disk, and
renamed: no moment at which a process may die leaves half of one under its own name.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import shutil
import stat
from pathlib import Path
from typing import Any

from artifex_rl.checkpoints import save_trainer

FORMAT = "artifex_rl checkpoint 1"
#: Names under which a checkpoint is written and taken away. What has one of them is rubbish of a process that died.
WRITING, REMOVING = ".writing-", ".removing-"


@dataclasses.dataclass(frozen=True)
class SavedCheckpoint:
    """A checkpoint on the disk: the step that it is of, its path, and the metrics of that step."""

    step: int
    path: Path
    metrics: dict[str, float]


class BrokenCheckpointError(ValueError):
    """A checkpoint is truncated, corrupted or none at all; the message names it and says what is wrong."""


class CheckpointFolder:
    """Writes, lists, verifies and removes the checkpoints of one folder."""

    def __init__(self, path: Path):
        self.path = path

    def path_of(self, step: int) -> Path:
        """Where the checkpoint of a step is, or would be."""
        return self.path / f"step_{step:08d}"

    def paths(self) -> list[Path]:
        """What is named like a checkpoint, by step, whole or not; nothing where there is no folder."""
        if not self.path.is_dir():
            return []
        found = [path for path in self.path.iterdir() if re.fullmatch(r"step_\d{8,}", path.name)]
        return sorted(found, key=lambda path: (int(path.name[5:]), path.name))

    def foreign(self) -> list[Path]:
        """Checkpoints in the folder, or the folder itself, that something else than this class has written."""
        if not self.path.is_dir():
            return []
        mine = {*self.paths()}
        places = [self.path, *(path for path in sorted(self.path.iterdir()) if path.is_dir() and path not in mine)]
        return [
            place
            for place in places
            if (place / "_CHECKPOINT_METADATA").exists() and not place.name.startswith((WRITING, REMOVING, "broken-"))
        ]

    def describe(self, path: Path) -> SavedCheckpoint:
        """What the checkpoint's manifest says, its other files unread; a BrokenCheckpointError if it says nothing."""
        manifest = _read_manifest(path)
        return SavedCheckpoint(manifest["step"], path, manifest["metrics"])

    def write(self, trainer: Any, metrics: dict[str, float], more: dict[str, Any]) -> SavedCheckpoint:
        """Write the trainer as it stands, with `more`, which is JSON; whatever goes wrong leaves nothing behind.

        Raises:
            OSError: it cannot be written, for want of space perhaps. The others are as they were.
        """
        step = int(trainer.step)
        place = self.path / f"{WRITING}{step:08d}"
        try:
            self.sweep()
            save_trainer(trainer, place)
            (place / "more.json").write_text(json.dumps(more))
            manifest = {"format": FORMAT, "step": step, "metrics": metrics, "files": _files(place)}
            (place / "manifest.json").write_text(json.dumps({**manifest, "sha256": _digest(manifest)}))
            _sync(place)
            os.rename(place, self.path_of(step))
            _sync_folder(self.path)
        except BaseException as error:
            self.sweep()
            number = re.search(r"os_error_code='(\d+)'", str(error))  # how tensorstore says that a disk is full
            if number is not None:
                raise OSError(int(number[1]), os.strerror(int(number[1])), str(place)) from error
            raise
        return SavedCheckpoint(step, self.path_of(step), metrics)

    def annotate(self, saved: SavedCheckpoint, metrics: dict[str, float]) -> SavedCheckpoint:
        """The same checkpoint with other metrics, in one stroke."""
        manifest = {**_read_manifest(saved.path), "metrics": metrics}
        new = self.path / f"{WRITING}manifest-{saved.step:08d}"
        try:
            new.write_text(json.dumps({**manifest, "sha256": _digest(manifest)}))
            _sync_file(new)
            os.replace(new, saved.path / "manifest.json")
        except BaseException:
            new.unlink(missing_ok=True)
            raise
        return dataclasses.replace(saved, metrics=metrics)

    def verify(self, path: Path) -> tuple[SavedCheckpoint, Any]:
        """The checkpoint there, and what `write` was given as `more`, after a look at every byte.

        Raises:
            BrokenCheckpointError: it is not what was written.
        """
        manifest = _read_manifest(path)
        needed, found = manifest["files"], _files(path, but="manifest.json")
        for name in sorted({*needed, *found}):
            if needed.get(name) != found.get(name):
                raise BrokenCheckpointError(
                    f"{path} is broken: {name} {_difference(needed.get(name), found.get(name))}"
                )
        return SavedCheckpoint(manifest["step"], path, manifest["metrics"]), _read_json(path, "more.json")

    def remove(self, path: Path) -> None:
        """Take a checkpoint away: at once under its name, and then from the disk."""
        gone = self.path / f"{REMOVING}{path.name}"
        os.rename(path, gone)
        shutil.rmtree(gone)

    def set_aside(self, path: Path) -> Path:
        """Rename what is broken, so that it is in nobody's way and can still be looked at."""
        names = (self.path / f"broken-{path.name}{f'-{n}' if n else ''}" for n in range(10**6))
        aside = next(name for name in names if not os.path.lexists(name))
        os.rename(path, aside)
        return aside

    def sweep(self) -> None:
        """Remove what processes that died have left half written or half removed."""
        for path in self.path.iterdir():
            if path.name.startswith((WRITING, REMOVING)):
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path, ignore_errors=True)  # orbax's threads may still be failing in it
                else:
                    path.unlink(missing_ok=True)


def _read_manifest(path: Path) -> dict[str, Any]:
    manifest = _read_json(path, "manifest.json")
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise BrokenCheckpointError(f"{path} is no checkpoint of ModelCheckpoint: its manifest.json is another's")
    said = manifest.pop("sha256", None)
    if said != _digest(manifest):
        raise BrokenCheckpointError(f"{path} is broken: manifest.json is not as it was written")
    step, metrics, files = (manifest.get(name) for name in ("step", "metrics", "files"))
    if not isinstance(files, dict) or not isinstance(metrics, dict) or not all(map(_is_number, metrics.values())):
        raise BrokenCheckpointError(f"{path} is broken: manifest.json says nothing of its files or metrics")
    if not isinstance(step, int) or path.name != f"step_{step:08d}":
        raise BrokenCheckpointError(f"{path} is broken: manifest.json is of step {step}")
    return manifest


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)


def _read_json(path: Path, name: str) -> Any:
    try:
        if not stat.S_ISREG(os.lstat(path / name).st_mode):
            raise BrokenCheckpointError(f"{path} is broken: {name} is no file")
        return json.loads((path / name).read_bytes())
    except FileNotFoundError:
        raise BrokenCheckpointError(f"{path} is no checkpoint of ModelCheckpoint: it has no {name}") from None
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, BrokenCheckpointError):
            raise
        raise BrokenCheckpointError(f"{path} is broken: {name} cannot be read: {error}") from error


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _files(folder: Path, but: str | None = None) -> dict[str, list[Any]]:
    """Size and SHA-256 of each file under a folder; links and pipes are not opened."""
    found = {}
    for place, _, names in os.walk(folder):
        for name in names:
            path = Path(place, name)
            relative = path.relative_to(folder).as_posix()
            if relative == but:
                continue
            if not stat.S_ISREG(os.lstat(path).st_mode):
                found[relative] = [0, "no file"]
                continue
            with open(path, "rb") as file:
                found[relative] = [os.fstat(file.fileno()).st_size, hashlib.file_digest(file, "sha256").hexdigest()]
    return found


def _difference(needed: list[Any] | None, got: list[Any] | None) -> str:
    if got is None:
        return "is missing"
    if needed is None:
        return "does not belong to it"
    if got[1] == "no file":
        return "is a link, or a pipe"
    return f"has {got[0]} bytes, needs {needed[0]}" if got[0] != needed[0] else "has other bytes than were written"


def _sync(folder: Path) -> None:
    for place, _, names in os.walk(folder):
        for name in names:
            _sync_file(Path(place, name))
        _sync_folder(Path(place))


def _sync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


_sync_folder = _sync_file
