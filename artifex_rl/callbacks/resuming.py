"""How a run goes on from a folder of checkpoints: from the newest that is whole, or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from artifex_rl.callbacks.checkpoint_folder import BrokenCheckpointError, CheckpointFolder, SavedCheckpoint
from artifex_rl.callbacks.kept_states import (
    callback_states,
    load_callback_states,
    load_random_states,
    random_states,
)
from artifex_rl.checkpoints import config_dict, restore_trainer
from artifex_rl.notices import warn_caller


def check_folder(folder: CheckpointFolder, may_be_used: bool) -> None:
    """A FileExistsError if the folder holds what a run must not mix with: a file, another's checkpoints, a run's."""
    path = folder.path
    if path.exists() and not path.is_dir():
        raise FileExistsError(f"dirpath: {path} is a file, needs a folder")
    foreign = folder.foreign()
    if foreign:
        raise FileExistsError(
            f"dirpath: {path} holds what something else than ModelCheckpoint has saved, such as {foreign[0]}; needs "
            f"a folder for each run"
        )
    used = folder.paths()
    if used and not may_be_used:
        raise FileExistsError(
            f"dirpath: {path} holds {len(used)} checkpoints of a run, the newest {used[-1].name}; needs another "
            f'folder, or resume="auto" to go on with that run'
        )


def extras(trainer: Any, but: Any, initial_config: Any) -> dict[str, Any]:
    """What a checkpoint holds besides the trainer, as JSON; a TypeError names the callback whose state is none."""
    states = callback_states(trainer.callbacks, but)
    return {"initial_config": initial_config, "callbacks": states, "random": random_states()}


def resume(folder: CheckpointFolder, trainer: Any, but: Any) -> tuple[list[SavedCheckpoint], Any]:
    """Bring the trainer, its callbacks and the host's random states to the newest checkpoint that is whole.

    What is broken is renamed, with a warning for each that names it and says what is wrong.

    Returns:
        The checkpoints that there are, and the config that the run began with. None of either in an empty folder.

    Raises:
        ValueError: there are checkpoints, and none can be restored into this trainer. Nothing has changed.
    """
    saved: list[SavedCheckpoint] = []
    broken: dict[Path, Exception] = {}
    initial_config = None
    paths = folder.paths()
    for path in reversed(paths):
        try:
            if saved:
                saved.insert(0, folder.describe(path))
            else:
                newest, initial_config = _restore_all(folder, path, trainer, but)
                saved = [newest]
        except Exception as error:
            broken[path] = error
    if paths and not saved:
        reasons = "; ".join(str(error) for error in broken.values())
        raise ValueError(f"dirpath: none of {len(paths)} checkpoints can be restored: {reasons}")
    for path, error in broken.items():
        aside = folder.set_aside(path)
        warn_caller(but, f"{error}. It is {aside.name} now, and the run goes on from step {saved[-1].step}")
    return saved, initial_config


def _restore_all(folder: CheckpointFolder, path: Path, trainer: Any, but: Any) -> tuple[SavedCheckpoint, Any]:
    saved, more = folder.verify(path)
    if saved.step < trainer.step:
        raise ValueError(f"{path} is older than the trainer, which stands at step {trainer.step}")
    given = config_dict(trainer)
    before = (trainer.config, trainer.key, trainer.state, random_states())
    try:
        restore_trainer(trainer, path)
        if trainer.step != saved.step:
            raise BrokenCheckpointError(f"{path} is broken: its trainer is of step {trainer.step}")
        _load_extras(path, more, trainer, but)
    except BaseException:
        trainer.config, trainer.key, trainer.state, host = before
        load_random_states(host)
        raise
    _warn_of_changes(but, given, more["initial_config"])
    return saved, more["initial_config"]


def _load_extras(path: Path, more: Any, trainer: Any, but: Any) -> None:
    try:
        states = {(name, number): state for name, number, state in more["callbacks"]}
        more["initial_config"]
        load_random_states(more["random"])
    except Exception as error:
        raise BrokenCheckpointError(f"{path} is broken: more.json cannot be used: {error!r}") from error
    load_callback_states(trainer.callbacks, states, but)


def _warn_of_changes(but: Any, given: Any, initial: Any) -> None:
    if not isinstance(given, dict) or not isinstance(initial, dict):
        return
    changes = [
        f"{name} was {initial.get(name)} and is {value}"
        for name, value in given.items()
        if initial.get(name) != value
    ]
    if changes:
        warn_caller(but, f"config: {', '.join(changes)} since the run began; what counts is the checkpoint's config")
