"""Rewards with a rule of their own: several objectives behind a safety gate, and sequences with a length penalty."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from artifex_rl.rl.arrays import check_shape, read_array, read_floats, read_mask, read_scalar
from artifex_rl.rl.scoring import (
    RewardFunction,
    apply_threshold,
    check_callable,
    check_number,
    count_samples,
    score_samples,
    weighted_sum,
)


@dataclass(frozen=True, eq=False)
class MultiObjectiveReward:
    """Weighted sum of named objectives, and a fixed reward for samples that one of them finds unsafe.

    Where the score of the safety objective is strictly above `safety_threshold` the reward is Σ wₙ sₙ, else it is
    `unsafe_reward`. That is a penalty only if it lies below what safe samples get: choose it by the scores' ranges.
    The weights are constants; `dataclasses.replace(reward, weights=...)` gives a reward with others.

    Args:
        objectives: a reward for each name, each on a scale on which the weights mean something: a cosine in
            [−1, 1], `sigmoid` of a score, the probability of "safe".
        weights: a finite number for each name; 0 for a safety objective that should gate and no more. None: 1/n.
        safety: the name of the objective that gates. None: no gate.
        safety_threshold: a finite number; a score equal to it is unsafe.
        unsafe_reward: a finite number.

    Raises:
        ValueError: there are no objectives, one is not callable, the weights have other names than the objectives,
            `safety` is none of them, or a number is not finite.
    """

    objectives: Mapping[str, RewardFunction]
    weights: Mapping[str, ArrayLike] | None = None
    safety: str | None = None
    safety_threshold: ArrayLike = 0.5
    unsafe_reward: ArrayLike = -1.0

    def __post_init__(self):
        if not isinstance(self.objectives, Mapping) or not self.objectives:
            raise ValueError(
                f"objectives: got {self.objectives!r}, needs a mapping from at least one name to a reward"
            )
        objectives = dict(self.objectives)
        for name, reward_fn in objectives.items():
            if not isinstance(name, str):
                raise ValueError(f"objectives: got the name {name!r}, needs strings")
            check_callable(f"objectives[{name!r}]", reward_fn)
        weights = dict.fromkeys(objectives, 1 / len(objectives)) if self.weights is None else self.weights
        _check_names("weights", weights, objectives)
        weights = {name: weights[name] for name in objectives}
        for name, weight in weights.items():
            check_number(f"weights[{name!r}]", weight)
        if self.safety is not None and self.safety not in objectives:
            raise ValueError(f"safety: got {self.safety!r}, needs None or one of {', '.join(map(repr, objectives))}")
        check_number("safety_threshold", self.safety_threshold)
        check_number("unsafe_reward", self.unsafe_reward)
        object.__setattr__(self, "objectives", objectives)
        object.__setattr__(self, "weights", weights)

    def __call__(self, samples: Any, conditions: Any = None, **kwargs: Any) -> Float[Array, "B"]:
        return self.combine(self.components(samples, conditions, **kwargs))

    def components(self, samples: Any, conditions: Any = None, **kwargs: Any) -> dict[str, Float[Array, "B"]]:
        """The score of each objective, `(B,)`, before weights and gate: the metrics to watch for reward hacking."""
        return {
            name: score_samples(f"objectives[{name!r}]", reward_fn, samples, conditions, **kwargs)
            for name, reward_fn in self.objectives.items()
        }

    def combine(self, components: Mapping[str, ArrayLike]) -> Float[Array, "B"]:
        """The reward of samples whose scores are known, so that logging them does not score twice.

        Args:
            components: what `components` returned, all `(B,)`.

        Returns:
            `(B,)`.

        Raises:
            ValueError: the names are not the objectives', or the shapes differ.
        """
        _check_names("components", components, self.objectives)
        names = list(self.objectives)
        scores = read_floats(**{name: components[name] for name in names})
        for name, score in zip(names, scores, strict=True):
            check_shape(f"components[{name!r}]", score, scores[0].shape)
        total = weighted_sum(scores, self.weights.values())
        if self.safety is None:
            return total
        threshold = read_scalar("safety_threshold", self.safety_threshold, total.dtype)
        unsafe = read_scalar("unsafe_reward", self.unsafe_reward, total.dtype)
        return apply_threshold(scores[names.index(self.safety)], threshold, total, unsafe)


@dataclass(frozen=True, eq=False)
class SequenceReward:
    """A reward of sequences minus a penalty for their length, against the reward model's liking for long answers.

    The penalty is `length_coeff · log(length + 1) / log(reference_length)`, see `compute_length_penalty`. The length
    of each sequence comes from the call: `lengths` of `(B,)`, or a `mask` of `(B, T)` that is true on every token of
    the response. Without either it is the number of tokens other than `pad_id`, which is wrong for a tokenizer whose
    padding is also its end of sequence or may be sampled: pass the mask there. `lengths` and `mask` are also passed
    on to `reward_fn`.

    Args:
        reward_fn: the reward of whole sequences.
        pad_id: the padding's token id, for samples of `(B, T)` token ids. None: every call brings its lengths.
        length_coeff: a finite number, the penalty of a sequence of `reference_length` − 1 tokens.
        reference_length: a finite number above 1.

    Raises:
        ValueError: an argument is of the wrong kind, or a call brings no lengths, both kinds of them, or bad ones.
    """

    reward_fn: RewardFunction
    pad_id: int | None = None
    length_coeff: ArrayLike = 0.1
    reference_length: ArrayLike = 100

    def __post_init__(self):
        check_callable("reward_fn", self.reward_fn)
        if self.pad_id is not None and (not isinstance(self.pad_id, Integral) or isinstance(self.pad_id, bool)):
            raise ValueError(f"pad_id: got {self.pad_id!r}, needs the integer id of a token, or None")
        check_number("length_coeff", self.length_coeff)
        _check_reference_length(self.reference_length)

    def __call__(
        self,
        samples: Any,
        conditions: Any = None,
        *,
        mask: ArrayLike | None = None,
        lengths: ArrayLike | None = None,
        **kwargs: Any,
    ) -> Float[Array, "B"]:
        length = self._read_lengths(samples, mask, lengths)
        given = {name: value for name, value in (("mask", mask), ("lengths", lengths)) if value is not None}
        scores = score_samples("reward_fn", self.reward_fn, samples, conditions, **given, **kwargs)
        coeff = read_scalar("length_coeff", self.length_coeff, scores.dtype)
        return scores - coeff * compute_length_penalty(length, self.reference_length).astype(scores.dtype)

    def _read_lengths(self, samples: Any, mask: ArrayLike | None, lengths: ArrayLike | None) -> jax.Array:
        count = count_samples(samples)
        if lengths is not None:
            if mask is not None:
                raise ValueError("lengths: given beside mask, whose sum they are; pass one of them")
            (lengths,) = read_floats(lengths=lengths)
            check_shape("lengths", lengths, (count,))
            return lengths
        if mask is not None:
            mask = read_array("mask", mask)
            if mask.ndim != 2 or mask.shape[0] != count:
                raise ValueError(f"mask: got shape {mask.shape}, needs (B, T) with B = {count}")
            return jnp.sum(read_mask("mask", mask, mask.shape), axis=-1)
        if self.pad_id is None:
            raise ValueError("lengths: got None, needs lengths or mask in the call, or pad_id in the constructor")
        tokens = read_array("samples", samples)
        if tokens.ndim != 2:
            raise ValueError(
                f"samples: got shape {tokens.shape}, needs token ids (B, T) to count those beside pad_id"
            )
        return jnp.sum(tokens.astype(jnp.float32) != float(self.pad_id), axis=-1)


def compute_length_penalty(lengths: ArrayLike, reference_length: ArrayLike = 100) -> Float[Array, "B"]:
    """How long a sequence is, on a scale of its own: log(length + 1) / log(reference_length).

    0 for an empty sequence and 1 for one of `reference_length` − 1 tokens. The logarithm makes the next token cost
    less the longer the sequence already is.

    Args:
        lengths: `(B,)` or any shape, tokens in each sequence, ≥ 0.
        reference_length: a scalar above 1.

    Returns:
        Like `lengths`.

    Raises:
        ValueError: a length is negative or not finite, or `reference_length` is not above 1.
    """
    (lengths,) = read_floats(lengths=lengths)
    if not isinstance(lengths, jax.core.Tracer) and not jnp.all(jnp.isfinite(lengths) & (lengths >= 0)):
        raise ValueError("lengths: got a negative or non-finite number, needs counts of tokens")
    _check_reference_length(reference_length)
    return jnp.log1p(lengths) / jnp.log(read_scalar("reference_length", reference_length, lengths.dtype))


def _check_names(argument: str, got: Mapping[str, Any], needed: Iterable[str]) -> None:
    if not isinstance(got, Mapping) or set(got) != set(needed):
        names = sorted(map(str, got)) if isinstance(got, Mapping) else type(got).__name__
        raise ValueError(f"{argument}: got {names}, needs a mapping with the names of objectives, {sorted(needed)}")


def _check_reference_length(reference_length: ArrayLike) -> None:
    number = check_number("reference_length", reference_length)
    if number is not None and number <= 1:
        raise ValueError(
            f"reference_length: got {reference_length}, needs a number above 1, whose logarithm is positive"
        )
