"""What a batch of experience is, and the checks that it passes on the host before anything changes.

A batch is a mapping, or a named tuple such as a `Rollout`. Its keys are the guide's; `ALIASES` lists the other names
that are understood. Arrays of experience are `(T,)` or `(T, N)`, in order of time, as `artifex_rl.rl.returns` has
them; those of a sequential policy are `(B,)` for a response and `(B, T)` for its tokens.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any

import jax
import numpy as np
from jax.typing import ArrayLike

#: Canonical keys, and what else they may be called.
ALIASES: dict[str, tuple[str, ...]] = {
    "data": ("images", "inputs", "x"),
    "labels": ("classes", "y"),
    "tokens": ("input_ids", "sequences"),
    "observations": ("states", "obs", "conditions", "prompts"),
    "actions": ("samples", "responses"),
    "rewards": ("reward", "scores"),
    "log_probs": ("old_log_probs", "logprobs", "old_logprobs"),
    "values": ("old_values", "value_estimates"),
    "dones": ("done", "terminals"),
    "truncations": ("truncated",),
    "next_values": (),
    "next_observations": ("next_states", "next_obs"),
    "last_value": (),
    "mask": ("masks", "response_mask"),
    "lengths": ("response_lengths",),
    "group_size": ("num_generations",),
    "ref_log_probs": ("reference_log_probs",),
    "chosen": ("chosen_responses",),
    "rejected": ("rejected_responses",),
    "chosen_mask": (),
    "rejected_mask": (),
    "chosen_lengths": (),
    "rejected_lengths": (),
    "chosen_log_probs": ("policy_chosen_log_probs",),
    "rejected_log_probs": ("policy_rejected_log_probs",),
    "ref_chosen_log_probs": ("reference_chosen_log_probs",),
    "ref_rejected_log_probs": ("reference_rejected_log_probs",),
}

#: What JAX makes of types of 64 bits.
NARROW = {np.dtype(wide): np.dtype(narrow) for wide, narrow in (("f8", "f4"), ("i8", "i4"), ("u8", "u4"))}

_CANONICAL = {key: name for name, others in ALIASES.items() for key in (name, *others)}


@jax.tree_util.register_static
class StaticInt(int):
    """An integer that compiled code knows: `group_size` decides shapes."""


def one_step_batch(
    observations: Any,
    actions: Any,
    rewards: ArrayLike,
    log_probs: ArrayLike | None = None,
    values: ArrayLike | None = None,
    mask: ArrayLike | None = None,
) -> dict[str, Any]:
    """A batch of independent samples, each an episode of one step: `dones` are all true.

    Without `dones`, rewards `(B,)` would be one episode of B steps, and a sample would be paid for those after it.

    Args:
        observations: `(B, ...)`, what each sample was drawn for.
        actions: `(B, ...)`, the samples.
        rewards: `(B,)`.
        log_probs: `(B,)` or `(B, T)` under the policy that drew them, for PPO and GRPO.
        values: `(B,)`, V(observation), for PPO.
        mask: `(B, T)`, which tokens of a response count.
    """
    batch = {"observations": observations, "actions": actions, "rewards": rewards}
    batch |= {"dones": np.ones(np.shape(rewards), bool)}
    optional = {"log_probs": log_probs, "values": values, "mask": mask}
    return batch | {name: value for name, value in optional.items() if value is not None}


def read_batch(batch: Any, required: Sequence[str], optional: Sequence[str] = ()) -> dict[str, Any]:
    """The entries of a batch under their canonical names, as arrays of numbers.

    Entries that are None count as absent; entries that are neither required nor optional are left out.

    Raises:
        ValueError: it is no mapping, a required key is missing, a key is given twice under two names or looks
            misspelt, or an entry is not made of numbers. All missing keys are listed, with their aliases.
    """
    if hasattr(batch, "_asdict"):
        batch = batch._asdict()
    if not isinstance(batch, Mapping):
        raise ValueError(f"batch: got {type(batch).__name__}, needs a mapping with {_listed(required)}")
    names, read, unknown = (*required, *optional), {}, []
    for key, value in batch.items():
        name = _CANONICAL.get(key, key)
        if value is None:
            continue
        if name in names:
            if name in read:
                first = next(k for k, v in batch.items() if _CANONICAL.get(k, k) == name and v is not None)
                raise ValueError(f"{name}: got both {first!r} and {key!r}, needs one of them")
            read[name] = read_group_size(value) if name == "group_size" else _read(name, value)
        elif key not in _CANONICAL:
            unknown.append(key)
    check_present(batch, read, required)
    for key in unknown:
        close = difflib.get_close_matches(str(key), names, n=1, cutoff=0.8)
        if close:
            raise ValueError(f"batch: got the unknown key {key!r}, needs {close[0]!r} if that is what it is")
    return read


def check_present(batch: Any, read: dict[str, Any], required: Sequence[str]) -> None:
    """ValueError that lists every required name that was not read from the batch, and what the batch has."""
    missing = [name for name in required if name not in read]
    if missing:
        has = ", ".join(map(repr, batch._asdict() if hasattr(batch, "_asdict") else batch)) or "nothing"
        raise ValueError(f"batch: needs {_listed(missing)}; it has {has}")


def read_group_size(value: Any) -> StaticInt:
    """A positive integer, of any kind."""
    value = value.item() if isinstance(value, np.ndarray | np.generic | jax.Array) and np.ndim(value) == 0 else value
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
        raise ValueError(f"group_size: got {value!r}, needs an integer of at least 1")
    return StaticInt(value)


def leaves(value: Any) -> list[Any]:
    """The arrays of an entry, which is most often a single one."""
    return [value] if hasattr(value, "shape") else jax.tree.leaves(value)


def signature(entries: tuple[Any, ...]) -> Any:
    """What compiled code depends on: the structure, shapes and types of entries; to be used as a key."""
    if not all(hasattr(entry, "shape") for entry in entries):
        entries, treedef = jax.tree.flatten(entries)
        return treedef, signature(tuple(entries))
    return tuple((entry.shape, entry.dtype) for entry in entries)


def as_floats(value: Any) -> np.ndarray:
    """As a NumPy array of float32, or of float64 if it is one."""
    array = np.asarray(value)
    return array if array.dtype == np.float64 else array.astype(np.float32, copy=False)


def check_finite(name: str, value: Any, mask: np.ndarray | None = None) -> None:
    """ValueError for a NaN or an infinity where the mask is true."""
    for leaf in leaves(value):
        array = np.asarray(leaf)
        if array.dtype.kind not in "biu" and not np.isfinite(array).all():
            bad = ~np.isfinite(array)
            if mask is not None:
                bad = bad & mask
            if bad.any():
                where = tuple(int(i) for i in np.argwhere(bad)[0])
                raise ValueError(
                    f"{name}: got {array[where]} at {where} and {int(bad.sum())} entries in all that are NaN or "
                    f"infinite, needs finite numbers"
                )


def check_leading(name: str, value: Any, lead: tuple[int, ...], like: str = "rewards") -> None:
    """ValueError unless every array of the entry begins with these axes."""
    for leaf in leaves(value):
        if leaf.shape[: len(lead)] != lead:
            axes = ", ".join(map(str, lead))
            raise ValueError(f"{name}: got shape {leaf.shape}, needs ({axes}, ...), with the leading axes of {like}")


def check_shape(name: str, value: Any, *shapes: tuple[int, ...]) -> None:
    """ValueError unless the entry has one of these shapes."""
    if np.shape(value) not in shapes:
        raise ValueError(f"{name}: got shape {np.shape(value)}, needs {' or '.join(map(str, shapes))}")


def read_flags(name: str, value: Any) -> np.ndarray:
    """0/1 or booleans as booleans; a number in between is an error, not a flag."""
    array = np.asarray(value)
    if array.dtype != bool and not np.isin(array, (0, 1)).all():
        raise ValueError(f"{name}: got values other than 0 and 1, needs flags")
    return array.astype(bool, copy=False)


def read_mask(batch: dict[str, Any], shape: tuple[int, ...]) -> np.ndarray | None:
    """The mask of a batch, of this shape, from `mask` or from `lengths` `(B,)`; None where it has neither."""
    if "lengths" in batch:
        if "mask" in batch:
            raise ValueError("lengths: given beside mask, needs one of them")
        lengths = np.asarray(batch["lengths"])
        if len(shape) != 2:
            raise ValueError(f"lengths: got shape {lengths.shape}, needs a policy whose log-probs are (B, T)")
        check_shape("lengths", lengths, shape[:1])
        if lengths.dtype.kind not in "iu" or (lengths < 0).any() or (lengths > shape[1]).any():
            raise ValueError(
                f"lengths: got {lengths.dtype} from {lengths.min()} to {lengths.max()}, needs integers from 0 to "
                f"{shape[1]}"
            )
        mask = np.arange(shape[1]) < lengths[:, None]
    elif "mask" in batch:
        check_shape("mask", batch["mask"], shape)
        mask = read_flags("mask", batch["mask"])
    else:
        return None
    if not mask.any():
        raise ValueError("mask: got no true entry, needs at least one: nothing would count")
    return mask


def repeat_rows(value: Any, times: int) -> Any:
    """Every row `times` times, one after another, as the samples of a group stand."""
    return value if times == 1 else jax.tree.map(lambda leaf: np.repeat(np.asarray(leaf), times, axis=0), value)


def _read(name: str, value: Any) -> Any:
    """One entry: an array, or for observations and actions a tree of arrays. Floats are at least 32 bits wide."""
    if isinstance(value, Mapping) or hasattr(value, "_asdict"):
        if name not in ("observations", "actions"):
            raise ValueError(f"{name}: got {type(value).__name__}, needs an array of numbers")
        return jax.tree.map(lambda leaf: _read_array(name, leaf), value)
    return _read_array(name, value)


def _read_array(name: str, value: Any) -> Any:
    array = value
    if not isinstance(value, jax.Array):
        try:
            array = np.asarray(value)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{name}: got {type(value).__name__}, needs an array of numbers ({error})") from error
        if array.dtype in (np.int64, np.uint64) and array.size and np.abs(array).max() > np.iinfo(np.int32).max:
            raise ValueError(f"{name}: got integers beyond 32 bits, needs smaller ones: JAX would wrap them")
        if not jax.config.jax_enable_x64:  # as JAX would do, and so that what it traces is of the same type
            array = array.astype(NARROW.get(array.dtype, array.dtype), copy=False)
    if array.dtype.kind not in "fiub" and array.dtype.name != "bfloat16":
        raise ValueError(f"{name}: got {array.dtype}, needs an array of real numbers")
    if array.size == 0:
        raise ValueError(f"{name}: got shape {array.shape}, needs at least one entry")
    return array


def _listed(names: Sequence[str]) -> str:
    """Names with their aliases: 'observations' (or 'states', 'obs'), 'actions'."""
    aliases = {name: " or ".join(map(repr, ALIASES.get(name, ()))) for name in names}
    return ", ".join(f"{name!r} (or {others})" if others else f"{name!r}" for name, others in aliases.items())
