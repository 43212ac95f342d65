"""A batch of experience held against its policy: every shape, action and flag, before anything changes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from artifex_rl.rl.batches import check_finite, check_leading, check_shape, read_flags, read_mask, repeat_rows
from artifex_rl.rl.distributions import Categorical
from artifex_rl.rl.policies import Evaluation


def check_experience(
    batch: dict[str, Any], specify: Callable[[dict[str, Any]], Evaluation], sequential: bool, group_size: int = 1
) -> dict[str, Any]:
    """Check a batch that `read_batch` has read, and bring it into the form that the trainers compute with.

    Afterwards rewards are floats, `(T,)` or `(T, N)`, or for a sequential policy `(B,)` or `(B, T)`. Observations and
    actions begin with the same axes; observations of n prompts beside n · group_size rewards are repeated for each
    sample of a group. "dones", "truncations" and "mask" are booleans, "lengths" has become "mask". Log-probabilities
    have the shape of the policy's own.

    Args:
        batch: canonical keys, arrays.
        specify: what the policy says about the batch, as shapes; raises where the policy cannot read it.
        sequential: whether the policy's log-probabilities are `(B, T)`.
        group_size: samples for each observation, where the batch does not say.

    Raises:
        ValueError: something does not fit; the message names the key, what it got, and what it needs.
    """
    batch = dict(batch)
    rewards = batch["rewards"] = _as_floats(batch["rewards"])
    if rewards.ndim not in (1, 2):
        raise ValueError(f"rewards: got shape {rewards.shape}, needs (T,) or (T, N)")
    group_size = batch.get("group_size", group_size)
    if "group_size" in batch and len(rewards) % group_size:
        raise ValueError(f"group_size: got {group_size}, needs a divisor of the {len(rewards)} rewards")
    batch["observations"] = _repeat_for_groups(batch["observations"], len(rewards), group_size)

    lead = rewards.shape[:1] if sequential else rewards.shape
    actions = np.shape(jax.tree.leaves(batch["actions"])[0])
    if lead[1:] == (1,) and actions[:2] != lead:
        raise ValueError(f"rewards: got shape {lead}, needs {lead[:1]}: one number for each of the {lead[0]} actions")
    for name in ("observations", "actions"):
        check_leading(name, batch[name], lead)
        check_finite(name, batch[name])
    seen = specify(batch)
    if hasattr(seen.distribution, "check_actions"):
        taken = np.asarray(batch["actions"])
        seen.distribution.check_actions(taken.reshape(-1, *taken.shape[len(lead) :]))

    scored = seen.log_probs.shape
    if rewards.shape not in (scored, scored[:1]):
        raise ValueError(f"rewards: got shape {rewards.shape}, needs {scored[:1]} or {scored}")
    mask = read_mask(batch, scored)
    batch.pop("lengths", None)
    if mask is not None:
        batch["mask"] = mask
    check_finite("rewards", rewards, mask if np.shape(mask) == rewards.shape else None)
    for name in ("log_probs", "ref_log_probs"):
        if name in batch:
            batch[name] = _check_log_probs(
                name, batch[name], scored, mask, isinstance(seen.distribution, Categorical)
            )
    for name in ("dones", "truncations"):
        if name in batch:
            check_shape(name, batch[name], rewards.shape)
            batch[name] = read_flags(name, batch[name])
    if "last_value" in batch:
        check_shape("last_value", batch["last_value"], (), rewards.shape[1:])
        check_finite("last_value", batch["last_value"])
    return batch


def _as_floats(value: Any) -> np.ndarray:
    array = np.asarray(value)
    return array if array.dtype == np.float64 else array.astype(np.float32)


def _repeat_for_groups(observations: Any, rows: int, group_size: int) -> Any:
    """Conditions of n prompts beside n · G samples, once for each sample; as they are if there is one for each."""
    prompts = {np.shape(leaf)[:1] for leaf in jax.tree.leaves(observations)}
    return repeat_rows(observations, group_size) if prompts == {(rows / group_size,)} else observations


def _check_log_probs(
    name: str, value: Any, shape: tuple[int, ...], mask: np.ndarray | None, discrete: bool
) -> np.ndarray:
    """Floats of the shape of the policy's own, finite under the mask and 0 elsewhere."""
    check_shape(name, value, shape)
    check_finite(name, value, mask)
    log_probs = _as_floats(value) if mask is None else np.where(mask, _as_floats(value), np.float32(0))
    if discrete and log_probs.max() > 1e-3:  # densities may exceed 1, probabilities may not
        raise ValueError(f"{name}: got {log_probs.max():.4g}, needs logarithms of probabilities, which are at most 0")
    return log_probs
