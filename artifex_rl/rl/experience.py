"""A batch of experience held against its policy: every shape, number and flag, before anything changes.

Shapes are checked before a step is computed, numbers while it is: a step is kept only if both are right.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from artifex_rl.rl.batches import (
    as_floats,
    check_finite,
    check_leading,
    check_shape,
    leaves,
    read_flags,
    read_mask,
    repeat_rows,
)
from artifex_rl.rl.distributions import Categorical
from artifex_rl.rl.policies import Evaluation
from artifex_rl.rl.specification import check_actions

#: Logarithms of probabilities are at most 0, but for rounding.
MAX_LOG_PROB = 1e-3


def check_experience(
    batch: dict[str, Any], specify: Callable[[dict[str, Any]], Evaluation], sequential: bool, group_size: int = 1
) -> dict[str, Any]:
    """Check the shapes of a batch that `read_batch` has read, and bring it into the form that trainers compute with.

    Afterwards rewards are floats, `(T,)` or `(T, N)`, or for a sequential policy `(B,)` or `(B, T)`. Observations and
    actions begin with the same axes; observations of n prompts beside n · group_size rewards are repeated for each
    sample of a group. "dones", "truncations" and "mask" are booleans, "lengths" has become "mask". Log-probabilities
    have the shape of the policy's own, and are 0 outside of the mask.

    Args:
        batch: canonical keys, arrays.
        specify: what the policy says about the batch, as shapes; raises where the policy cannot read it.
        sequential: whether the policy's log-probabilities are `(B, T)`.
        group_size: samples for each observation, where the batch does not say.

    Raises:
        ValueError: something does not fit; the message names the key, what it got, and what it needs.
    """
    batch = dict(batch)
    rewards = batch["rewards"] = as_floats(batch["rewards"])
    if rewards.ndim not in (1, 2):
        raise ValueError(f"rewards: got shape {rewards.shape}, needs (T,) or (T, N)")
    group_size = batch.get("group_size", group_size)
    if "group_size" in batch and len(rewards) % group_size:
        raise ValueError(f"group_size: got {group_size}, needs a divisor of the {len(rewards)} rewards")
    batch["observations"] = _repeat_for_groups(batch["observations"], len(rewards), group_size)

    lead = rewards.shape[:1] if sequential else rewards.shape
    actions = leaves(batch["actions"])[0].shape
    if lead[1:] == (1,) and actions[:2] != lead:
        raise ValueError(f"rewards: got shape {lead}, needs {lead[:1]}: one number for each of the {lead[0]} actions")
    for name in ("observations", "actions"):
        check_leading(name, batch[name], lead)
    scored = specify(batch).log_probs.shape
    if rewards.shape not in (scored, scored[:1]):
        raise ValueError(f"rewards: got shape {rewards.shape}, needs {scored[:1]} or {scored}")
    mask = read_mask(batch, scored)
    batch.pop("lengths", None)
    if mask is not None:
        batch["mask"] = mask
    for name in ("log_probs", "ref_log_probs"):
        if name in batch:
            check_shape(name, batch[name], scored)
            log_probs = as_floats(batch[name])
            batch[name] = log_probs if mask is None else np.where(mask, log_probs, np.float32(0))
    for name in ("dones", "truncations"):
        if name in batch:
            check_shape(name, batch[name], rewards.shape)
            batch[name] = read_flags(name, batch[name])
    if "last_value" in batch:
        check_shape("last_value", batch["last_value"], (), rewards.shape[1:])
    return batch


def check_numbers(batch: dict[str, Any], seen: Evaluation, batch_axes: int) -> None:
    """Check the numbers of a batch of which `check_experience` has checked the shapes.

    Args:
        batch: as `check_experience` has returned it, and perhaps with more.
        seen: what the policy says about the batch, as shapes.
        batch_axes: how many leading axes of observations and actions are batch.

    Raises:
        ValueError: NaN or an infinity under the mask, an action that the policy does not have, or a probability
            above 1; the message names the key, what it got, and what it needs.
    """
    check_finite("observations", batch["observations"])
    check_actions("actions", batch["actions"], seen, batch_axes)
    rewards, mask = batch["rewards"], batch.get("mask")
    check_finite("rewards", rewards, mask if np.shape(mask) == rewards.shape else None)
    for name in ("log_probs", "ref_log_probs"):
        if name in batch:
            log_probs = np.asarray(batch[name])
            check_finite(name, log_probs)
            discrete = isinstance(seen.distribution, Categorical)  # densities may exceed 1
            if discrete and log_probs.max() > MAX_LOG_PROB:
                raise ValueError(
                    f"{name}: got {log_probs.max():.4g}, needs logarithms of probabilities, which are at most 0"
                )
    for name in ("values", "next_values", "last_value"):
        if name in batch:
            check_finite(name, batch[name])


def _repeat_for_groups(observations: Any, rows: int, group_size: int) -> Any:
    """Conditions of n prompts beside n · G samples, once for each sample; as they are if there is one for each."""
    prompts = {leaf.shape[:1] for leaf in leaves(observations)}
    return repeat_rows(observations, group_size) if prompts == {(rows / group_size,)} else observations
