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


def save_trainer(trainer: Any, path: str | os.PathLike, *, overwrite: bool = False) -> None:
    """Write a trainer to the folder `path`; see `Trainer.save`."""
    path = Path(path).absolute()
    if path.exists() and not overwrite:
        raise FileExistsError(f"path: {path} exists; needs a new folder, or overwrite=True")
    with _checkpointer() as checkpointer:
        arguments = {"state": ocp.args.StandardSave(_arrays(trainer)), "about": ocp.args.JsonSave(_about(trainer))}
        checkpointer.save(path, ocp.args.Composite(**arguments), force=overwrite)


def restore_trainer(trainer: Any, path: str | os.PathLike) -> None:
    """Bring a trainer to where the one stood that was saved; see `Trainer.restore`."""
    path = Path(path).absolute()
    if not path.exists():
        raise FileNotFoundError(f"path: there is no checkpoint at {path}")
    mine = _arrays(trainer)
    with _checkpointer() as checkpointer:
        about = checkpointer.restore(path, ocp.args.Composite(about=ocp.args.JsonRestore()))["about"]
        _check_fit(about, _about(trainer))
        saved = checkpointer.restore(path, ocp.args.Composite(state=ocp.args.StandardRestore(mine)))["state"]

    config = trainer.config if about["config"] is None else dataclasses.replace(trainer.config, **about["config"])
    values = [_like(saved[name], leaf) for name, leaf in _named_leaves(trainer).items()]
    trainer.config, trainer.key = config, _like(saved["key"], trainer.key)
    structure = jax.tree.structure(trainer.state.variables)
    trainer.state = trainer.state._replace(variables=jax.tree.unflatten(structure, values), step=saved["step"])


def _checkpointer() -> ocp.Checkpointer:
    return ocp.Checkpointer(ocp.CompositeCheckpointHandler())


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
    config = dataclasses.asdict(trainer.config) if dataclasses.is_dataclass(trainer.config) else None
    about = {"trainer": type(trainer).__name__, "variables": leaves, "config": config}
    return json.loads(json.dumps(about))  # an error now, and not in the middle of writing


def _check_fit(saved: dict[str, Any], mine: dict[str, Any]) -> None:
    if saved["trainer"] != mine["trainer"]:
        raise ValueError(f"path: is a checkpoint of {saved['trainer']}, needs one of {mine['trainer']}")
    theirs, ours = saved["variables"], mine["variables"]
    if theirs != ours:
        wrong = [name for name in sorted({*theirs, *ours}) if theirs.get(name) != ours.get(name)]
        first = wrong[0]
        raise ValueError(
            f"path: the model or optimizer is another: {len(wrong)} variables differ, such as {first}, saved as "
            f"{theirs.get(first)}, here {ours.get(first)}"
        )


def _plain(leaf: Any) -> Any:
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf


def _like(value: Any, leaf: Any) -> jax.Array:
    """What was written, as the kind of array that it was, where that one lies."""
    if _is_key(leaf):
        return jax.random.wrap_key_data(value, impl=jax.random.key_impl(leaf))
    return jax.device_put(value, leaf.sharding)


def _is_key(leaf: Any) -> bool:
    return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
