"""What a frozen reference says about a batch of experience, on the host, before the compiled step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from artifex_rl.rl.batches import check_shape
from artifex_rl.rl.policies import Evaluation, FrozenPolicy


def ask_reference(
    batch: dict[str, Any],
    reference: FrozenPolicy | None,
    specify: Callable[[dict[str, Any]], Evaluation],
    batch_axes: int,
    kl_estimator: str,
) -> dict[str, Any]:
    """What a batch lacks for a KL penalty: "ref_log_probs", or for the exact KL the distribution "reference".

    Args:
        batch: after `check_experience`; it may bring its own "ref_log_probs".
        reference: the live reference, or None.
        specify: the policy's `specification` of a batch, as shapes.
        batch_axes: how many leading axes of observations and actions are batch.
        kl_estimator: "exact" asks for the distribution of the reference, all else for its log-probabilities.

    Returns:
        Entries to add; none where the batch has what it takes or there is no reference at all.

    Raises:
        ValueError: both kinds of reference are given, or the exact KL is not to be had.
    """
    if reference is None:
        if kl_estimator == "exact" and "ref_log_probs" in batch:
            raise ValueError(
                "ref_log_probs: given for the kl_estimator 'exact', which takes the probabilities of all actions: "
                "needs reference_model"
            )
        return {}
    if "ref_log_probs" in batch:
        raise ValueError("ref_log_probs: given beside reference_model, needs one of them")
    seen, inputs = specify(batch), (batch["observations"], batch["actions"], batch.get("mask"))
    if batch_axes > 1:
        inputs = jax.tree.map(lambda x: np.reshape(x, (-1, *np.shape(x)[batch_axes:])), inputs)
    if kl_estimator != "exact":
        log_probs = reference.log_probs(*inputs)
        log_probs = log_probs if batch_axes == 1 else log_probs.reshape(seen.log_probs.shape)
        check_shape("reference_model: log_probs", log_probs, seen.log_probs.shape)
        return {"ref_log_probs": log_probs}
    mine, theirs = seen.distribution, reference(*inputs).distribution
    if not hasattr(theirs, "kl") or jax.tree.map(np.shape, mine) != jax.tree.map(np.shape, theirs):
        raise ValueError(
            f"kl_estimator: got 'exact' for {type(mine).__name__} and {type(theirs).__name__}, needs distributions "
            f"of one kind and shape that have a kl(); 'k3' takes samples alone"
        )
    return {"reference": theirs}
