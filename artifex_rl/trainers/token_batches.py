"""Batches of sequences, checked and brought into the one form that `AutoregressiveTrainer` computes with."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Int

from artifex_rl.rl.batches import check_leading, read_mask


def read_tokens(name: str, value: Any, shape: str = "(B, T)") -> Int[np.ndarray, "B T"]:
    """Tokens as int32; ValueError unless they are integers with two axes and at least one entry."""
    array = np.asarray(value)
    if array.ndim != 2 or array.dtype.kind not in "iu" or not array.size:
        raise ValueError(f"{name}: got {array.dtype} of shape {array.shape}, needs integers {shape}")
    return array.astype(np.int32, copy=False)


def check_prompts(name: str, prompts: Int[np.ndarray, "B P"]) -> None:
    """ValueError for a negative token. Which is the largest that can be read, a network does not say."""
    if np.min(prompts) < 0:
        raise ValueError(f"{name}: got {np.min(prompts)}, needs tokens, which are at least 0")


def split_prompts(batch: dict[str, Any]) -> None:
    """Bring a batch that `read_batch` has read into one form, in place.

    Afterwards it has "observations" `(B, P)`, the prompts; "tokens" `(B, T)`, 0 behind the last that counts, so that
    nothing there reaches compiled code; and a "mask" if something does not count. Without prompts the first token of
    each sequence has become its prompt.

    Raises:
        ValueError: shapes or types do not fit, or nothing counts.
    """
    tokens = read_tokens("tokens", batch["tokens"])
    mask = read_mask(batch, tokens.shape)
    batch.pop("lengths", None)
    if "observations" in batch:
        batch["observations"] = read_tokens("observations", batch["observations"], "(B, P)")
        check_leading("observations", batch["observations"], tokens.shape[:1], like="tokens")
    else:
        if tokens.shape[1] < 2 or (mask is not None and not mask[:, 1:].any()):
            raise ValueError(
                f"tokens: got shape {tokens.shape} and no prompts, needs tokens that count behind the first: that is "
                f"the prompt of the others"
            )
        batch["observations"], tokens = tokens[:, :1], tokens[:, 1:]
        mask = None if mask is None else mask[:, 1:]
    if mask is not None:
        to_come = np.flip(np.logical_or.accumulate(np.flip(mask, axis=1), axis=1), axis=1)
        batch["mask"], tokens = mask, np.where(to_come, tokens, np.int32(0))
    batch["tokens"] = tokens
