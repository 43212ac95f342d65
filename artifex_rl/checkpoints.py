"""A trainer on disk: its arrays through orbax, and beside them what is needed to know that they fit."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath


def save_trainer(trainer: Any, path: str | os.PathLike, *, overwrite: bool = False) -> None:
    """Write a trainer to the folder `path`; see `Trainer.save`."""
    path = Path(path).absolute()
    if path.exists() and not overwrite:
        raise FileExistsError(f"path: {path} exists; needs a new folder, or overwrite=True")
    with _checkpointer() as checkpointer:
        arguments = {"state": ocp.args.StandardSave(_arrays(trainer)), "about": ocp.args.JsonSave(_about(trainer))}
        checkpointer.save(path, ocp.args.Composite(**arguments), force=overwrite)


def restore_trainer(trainer: Any, path: str | os.PathLike) -> None:
    """Bring a trainer to where the one stood that was saved; see `Trainer.restore`.

    Arrays and JSON are all that is read: nothing in a checkpoint is a program, or names one. How long the arrays are
    is known, and checked, before memory is taken for them.
    """
    path = Path(path).absolute()
    if not path.exists():
        raise FileNotFoundError(f"path: there is no checkpoint at {path}")
    mine = _arrays(trainer)
    with _checkpointer() as checkpointer:
        about = _read(path, "about", lambda: checkpointer.restore(path, _composite(about=ocp.args.JsonRestore())))
        _check_fit(about, _about(trainer))
        _check_arrays(_read(path, "state", lambda: _stored_arrays(path)), mine)
        wanted = _composite(state=ocp.args.StandardRestore(mine))
        saved = _read(path, "state", lambda: checkpointer.restore(path, wanted))

    config = _restored_config(trainer.config, about.get("config"))
    values = [_like(saved[name], leaf) for name, leaf in _named_leaves(trainer).items()]
    key = _like(saved["key"], trainer.key)
    trainer.config, trainer.key = config, key
    structure = jax.tree.structure(trainer.state.variables)
    trainer.state = trainer.state._replace(variables=jax.tree.unflatten(structure, values), step=saved["step"])


def config_dict(trainer: Any) -> dict[str, Any] | None:
    """The settings of a trainer as JSON has them; None where they are no dataclass."""
    config = dataclasses.asdict(trainer.config) if dataclasses.is_dataclass(trainer.config) else None
    return json.loads(json.dumps(config))  # an error now, and not in the middle of writing


def _checkpointer() -> ocp.Checkpointer:
    return ocp.Checkpointer(ocp.CompositeCheckpointHandler())


def _composite(**arguments: Any) -> ocp.args.Composite:
    return ocp.args.Composite(**arguments)


def _read(path: Path, item: str, read: Any) -> Any:
    """What `read()` finds for that item; whatever it raises becomes a ValueError that names the checkpoint."""
    try:
        found = read()
        found = found[item] if isinstance(found, ocp.args.Composite) else found
    except Exception as error:
        reason = str(error).strip().splitlines() or [""]
        raise ValueError(f"path: {path} cannot be read as a checkpoint: {reason[0][:300]}") from error
    if not isinstance(found, dict):
        raise ValueError(f"path: {path} cannot be read as a checkpoint: there is no {item} in it")
    return found


def _stored_arrays(path: Path) -> dict[str, list[Any]]:
    """Shape and dtype of each array in a checkpoint, without its numbers."""
    tree = ocp.StandardCheckpointHandler().metadata(epath.Path(path / "state")).tree
    return {name: [list(found.shape), str(np.dtype(found.dtype))] for name, found in tree.items()}


def _named_leaves(trainer: Any) -> dict[str, Any]:
    """Arrays of the state by number: a list, in which orbax keeps no order of its own."""
    return {f"variable_{i:05d}": leaf for i, leaf in enumerate(jax.tree.leaves(trainer.state.variables))}


def _arrays(trainer: Any) -> dict[str, np.ndarray]:
    """All that is written, as plain arrays: orbax is not asked to know random keys."""
    leaves = {**_named_leaves(trainer), "key": trainer.key, "step": np.uint32(trainer.step)}
    return {name: np.asarray(_plain(leaf)) for name, leaf in leaves.items()}


def _about(trainer: Any) -> dict[str, Any]:
    """What a trainer must have in common with the one that was saved, and the config, which it need not."""
    leaves = {name: [list(np.shape(leaf)), str(leaf.dtype)] for name, leaf in _named_leaves(trainer).items()}
    return {"trainer": type(trainer).__name__, "variables": leaves, "config": config_dict(trainer)}


def _check_fit(saved: dict[str, Any], mine: dict[str, Any]) -> None:
    if saved.get("trainer") != mine["trainer"]:
        raise ValueError(f"path: is a checkpoint of {saved.get('trainer')}, needs one of {mine['trainer']}")
    _check_same(saved.get("variables"), mine["variables"], "the model or optimizer is another")


def _check_arrays(stored: dict[str, list[Any]], mine: dict[str, np.ndarray]) -> None:
    needed = {name: [list(array.shape), str(array.dtype)] for name, array in mine.items()}
    _check_same(stored, needed, "its arrays are not what it says that they are")


def _check_same(theirs: Any, ours: dict[str, Any], what: str) -> None:
    if theirs == ours:
        return
    theirs = theirs if isinstance(theirs, dict) else {}
    wrong = [name for name in sorted({*theirs, *ours}) if theirs.get(name) != ours.get(name)]
    raise ValueError(
        f"path: {what}: {len(wrong)} variables differ, such as {wrong[0]}, saved as {theirs.get(wrong[0])}, here "
        f"{ours.get(wrong[0])}"
    )


def _restored_config(config: Any, saved: Any) -> Any:
    if saved is None:
        return config
    try:
        return dataclasses.replace(config, **saved)
    except (TypeError, ValueError) as error:
        raise ValueError(f"path: its config is none of {type(config).__name__}: {error}") from error


def _plain(leaf: Any) -> Any:
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf


def _like(value: Any, leaf: Any) -> jax.Array:
    """What was written, as the kind of array that it was, where that one lies."""
    if _is_key(leaf):
        return jax.random.wrap_key_data(value, impl=jax.random.key_impl(leaf))
    return jax.device_put(value, leaf.sharding)


def _is_key(leaf: Any) -> bool:
    return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
