"""A batch of preference pairs held against its policy: every shape, token and reference, before anything changes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from artifex_rl.rl.batches import (
    as_floats,
    check_finite,
    check_leading,
    check_present,
    check_shape,
    read_batch,
    read_mask,
)
from artifex_rl.rl.distributions import Categorical
from artifex_rl.rl.experience import MAX_LOG_PROB
from artifex_rl.rl.policies import Evaluation
from artifex_rl.rl.specification import check_actions

SIDES = ("chosen", "rejected")
RESPONSES = ("observations", *SIDES)
LOG_PROBS = ("chosen_log_probs", "rejected_log_probs")
REFERENCES = ("ref_chosen_log_probs", "ref_rejected_log_probs")
MASKS = ("chosen_mask", "chosen_lengths", "rejected_mask", "rejected_lengths")


def check_preferences(
    batch: Any,
    specify: Callable[[Any, Any, str], Evaluation],
    reference: Callable[..., Any] | None,
    reference_free: bool,
) -> dict[str, Any]:
    """Check the shapes of a batch of preferences, and bring it into the form that `DPOTrainer` computes with.

    Afterwards there are either "observations", "chosen" and "rejected", with "chosen_mask" and "rejected_mask"
    `(B, T)` where responses have tokens, or "chosen_log_probs" and "rejected_log_probs" as `(B,)` sums; and in both
    cases "chosen_lengths" and "rejected_lengths" `(B,)` if `reference_free`, and else the reference's `(B,)` sums.

    Args:
        batch: see `DPOTrainer`.
        specify: what the policy says about (observations, responses, their name), as shapes; raises where it cannot
            read them.
        reference: log-probabilities of (observations, responses, mask) under the live reference, or None.
        reference_free: whether no reference is needed.

    Raises:
        ValueError: something is missing or does not fit; the message names the key, what it got, what it needs.
    """
    given = read_batch(batch, (), (*RESPONSES, *LOG_PROBS, *REFERENCES, *MASKS))
    trains = any(side in given for side in SIDES) or not any(name in given for name in LOG_PROBS)
    check_present(batch, given, RESPONSES if trains else LOG_PROBS)
    if not reference_free:
        _check_reference(given, reference if trains else None)

    ready = {}
    if trains:
        check_leading("observations", given["observations"], np.shape(given["chosen"])[:1], like="chosen")
        ready["observations"] = given["observations"]
    for side in SIDES:
        name = side if trains else f"{side}_log_probs"
        first = "chosen" if trains else "chosen_log_probs"
        responses = given[name]
        if np.ndim(responses) == 0:
            raise ValueError(f"{name}: got shape (), needs (B, ...), one response for each pair")
        check_leading(name, responses, np.shape(given[first])[:1], like=first)
        seen = specify(given["observations"], responses, name) if trains else None
        scored = seen.log_probs.shape if trains else responses.shape
        if len(scored) > 2:
            raise ValueError(f"{name}: got shape {scored}, needs (B,) or (B, T)")
        mask, lengths = _read_lengths(given, side, scored, trains)
        if reference_free:
            ready[f"{side}_lengths"] = lengths
        if trains:
            ready[side] = responses
            if mask is not None:
                ready[f"{side}_mask"] = mask
        else:
            ready[name] = _total(responses, mask)
        if not reference_free:
            name = f"ref_{side}_log_probs"
            log_probs = given[name] if name in given else reference(given["observations"], responses, mask)
            check_shape(name, log_probs, *dict.fromkeys([scored[:1], scored]))
            ready[name] = _total(log_probs, mask if np.ndim(log_probs) == 2 else None)
    return ready


def check_preference_numbers(batch: dict[str, Any], specify: Callable[[Any, Any, str], Evaluation]) -> None:
    """Check the numbers of a batch of which `check_preferences` has checked the shapes.

    Raises:
        ValueError: NaN or an infinity under the mask, an action that the policy does not have, or a probability
            above 1; the message names the key, what it got, and what it needs.
    """
    if "observations" in batch:
        check_finite("observations", batch["observations"])
    for side in SIDES:
        discrete = False
        if side in batch:
            seen = specify(batch["observations"], batch[side], side)
            check_actions(side, batch[side], seen)
            discrete = isinstance(seen.distribution, Categorical)
        for name in (f"{side}_log_probs", f"ref_{side}_log_probs"):
            if name in batch:
                check_finite(name, batch[name])
                if discrete and batch[name].max() > MAX_LOG_PROB:
                    raise ValueError(
                        f"{name}: got {batch[name].max():.4g}, needs logarithms of probabilities, which are at most 0"
                    )


def _check_reference(given: dict[str, Any], reference: Any) -> None:
    """One reference, whole, or an error: DPO without one would be another algorithm."""
    has = [name for name in REFERENCES if name in given]
    if has and reference is not None:
        raise ValueError(f"{has[0]}: given beside reference_model, needs one of them")
    if not has and reference is None:
        raise ValueError(
            f"{REFERENCES[0]} and {REFERENCES[1]}: got neither, needs both, or with 'chosen' and 'rejected' a "
            f"reference_model; DPOConfig(reference_free=True) is SimPO, which has no reference"
        )
    if len(has) == 1:
        (missing,) = {*REFERENCES} - {*has}
        raise ValueError(f"{missing}: got None beside {has[0]}, needs both")


def _read_lengths(
    given: dict[str, Any], side: str, scored: tuple[int, ...], trains: bool
) -> tuple[np.ndarray | None, np.ndarray]:
    """Mask `(B, T)` or None, and lengths `(B,)` as floats, of at least one token each."""
    marks = {kind: given[f"{side}_{kind}"] for kind in ("mask", "lengths") if f"{side}_{kind}" in given}
    if len(scored) == 1 and not trains and set(marks) == {"lengths"}:  # of sums, which have no T to hold them against
        lengths = np.asarray(marks["lengths"])
        check_shape(f"{side}_lengths", lengths, scored)
        check_finite(f"{side}_lengths", lengths)
        mask = None
    else:
        try:
            mask = read_mask(marks, scored)
        except ValueError as error:
            raise ValueError(f"{side}_{error}".replace("beside mask", f"beside {side}_mask")) from None
        if len(scored) == 1:
            mask = None if mask is None else mask[:, None]
        full = np.full(scored[0], scored[1] if len(scored) == 2 else 1)
        lengths = full if mask is None else mask.sum(axis=1)
    if (lengths < 1).any():
        row = int(np.argmax(lengths < 1))
        raise ValueError(
            f"{side}_{next(iter(marks))}: got a response of length {lengths[row]} in row {row}, needs at least 1"
        )
    return mask if len(scored) == 2 else None, lengths.astype(np.float32)


def _total(log_probs: Any, mask: np.ndarray | None) -> np.ndarray:
    """`(B,)` sums over the tokens that count."""
    log_probs = as_floats(log_probs)
    if log_probs.ndim == 1 and mask is None:
        return log_probs
    counted = log_probs if mask is None else np.where(mask, log_probs, np.zeros((), log_probs.dtype))
    return counted.reshape(len(counted), -1).sum(axis=1)
