"""Settings of the trainers: frozen dataclasses that check themselves, and whose numbers a compiled step reads anew.

A config is a JAX pytree. Its floats, and PPO's number of epochs, are leaves, traced like any array; its other
integers, strings and flags are static. So `dataclasses.replace(trainer.config, clip_param=0.3)`, assigned to the
trainer, compiles nothing, while another number of minibatches does: it is a shape.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from numbers import Integral, Real
from typing import Any

import jax
import numpy as np


def config(cls: type) -> type:
    """Class decorator: a frozen dataclass of `number`, `count`, `choice` and `flag` fields, as a JAX pytree.

    Numbers, and counts that say so, become traced leaves. JAX rebuilds a config around tracers without a check: a
    tracer has no value.
    """
    cls.__post_init__ = _check_fields
    cls = dataclasses.dataclass(frozen=True)(cls)
    fields = dataclasses.fields(cls)
    traced = [field.name for field in fields if field.metadata.get("traced")]
    static = [field.name for field in fields if field.name not in traced]
    keys = [jax.tree_util.GetAttrKey(name) for name in traced]

    def flatten(self):
        return [getattr(self, name) for name in traced], tuple(getattr(self, name) for name in static)

    def flatten_with_keys(self):
        leaves, static_values = flatten(self)
        return list(zip(keys, leaves, strict=True)), static_values

    def unflatten(static_values, leaves):
        self = object.__new__(cls)
        for name, value in (*zip(traced, leaves, strict=True), *zip(static, static_values, strict=True)):
            object.__setattr__(self, name, value)
        return self

    jax.tree_util.register_pytree_with_keys(cls, flatten_with_keys, unflatten, flatten)
    return cls


def number(
    default: float | None, *, low=None, above=None, high=None, below=None, optional: bool | None = None
) -> Any:
    """A field for a float in a range; `optional`, or a default of None, allows None as well."""
    optional = default is None if optional is None else optional
    ends = [
        (low, "at least", lambda x: x >= low),
        (above, "more than", lambda x: x > above),
        (high, "at most", lambda x: x <= high),
        (below, "less than", lambda x: x < below),
    ]
    ends = [(f"{word} {end:g}", holds) for end, word, holds in ends if end is not None]
    needed = " and ".join(["a number", *(text for text, _ in ends)]).replace("a number and ", "a number of ", 1)
    needed += ", or None" if optional else ""

    def read(value):
        if value is None and optional:
            return None
        value = _plain(value)
        if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
            raise ValueError(needed)
        if not all(holds(value) for _, holds in ends):
            raise ValueError(needed)
        return float(value)

    return _field(default, read, traced=True)


def count(default: int | None, *, low: int = 1, traced: bool = False) -> Any:
    """A field for an integer of at least `low`; None is allowed where it is the default.

    `traced`: the compiled step reads it, as the end of a loop; otherwise it is a part of the code, such as a shape.
    """
    needed = f"an integer of at least {low}" + (", or None" if default is None else "")

    def read(value):
        if value is None and default is None:
            return None
        value = _plain(value)
        if isinstance(value, bool) or not isinstance(value, Integral) or value < low:
            raise ValueError(needed)
        return int(value)

    return _field(default, read, traced)


def choice(default: str, *others: str) -> Any:
    """A field for one of several names; the first is the default."""
    names = (default, *others)

    def read(value):
        if not isinstance(value, str) or value not in names:
            raise ValueError(" or ".join(map(repr, names)))
        return value

    return _field(default, read)


def flag(default: bool) -> Any:
    """A field for True or False."""

    def read(value):
        if not isinstance(value, bool | np.bool_):
            raise ValueError("True or False")
        return bool(value)

    return _field(default, read)


def _field(default: Any, read: Callable[[Any], Any], traced: bool = False) -> Any:
    return dataclasses.field(default=default, metadata={"read": read, "traced": traced})


def _plain(value: Any) -> Any:
    """A NumPy or JAX scalar as the Python number that it holds; anything else as it is."""
    return value.item() if isinstance(value, np.generic | np.ndarray | jax.Array) and value.ndim == 0 else value


def _check_fields(self: Any) -> None:
    for field in dataclasses.fields(self):
        value = getattr(self, field.name)
        if isinstance(value, jax.core.Tracer) or "read" not in field.metadata:
            continue
        try:
            object.__setattr__(self, field.name, field.metadata["read"](value))
        except ValueError as error:
            raise ValueError(f"{type(self).__name__}.{field.name}: got {value!r}, needs {error}") from None


@config
class REINFORCEConfig:
    """Settings of `REINFORCETrainer`. The first three are the guide's.

    Args:
        gamma: discount γ of returns, in [0, 1].
        normalize_returns: shift and scale what weighs the log-probabilities to mean 0 and variance 1.
        entropy_coeff: weight of the entropy bonus, ≥ 0.
        baseline: what is subtracted from returns. "none"; "mean" of the batch; "leave_one_out", the mean of the
            other samples of the group (RLOO); "value", the model's own V(s), trained along.
        vf_coeff: weight of the value loss, ≥ 0; counts with the baseline "value" alone.
        num_generations: samples for each observation in `train_step(batch, reward_fn, key)`, and the size of a group
            for "leave_one_out". 1: the whole batch is one group.
        beta: β ≥ 0, what a nat of log π − log π_ref costs in the reward; counts where there is a reference.

    Raises:
        ValueError: a field is out of its range; the message names it, the value and what is needed.
    """

    gamma: float = number(0.99, low=0, high=1)
    normalize_returns: bool = flag(True)
    entropy_coeff: float = number(0.01, low=0)
    baseline: str = choice("none", "mean", "leave_one_out", "value")
    vf_coeff: float = number(0.5, low=0)
    num_generations: int = count(1)
    beta: float = number(0.0, low=0)


@config
class PPOConfig:
    """Settings of `PPOTrainer`. The first six are the guide's.

    Args:
        gamma: discount γ, in [0, 1].
        gae_lambda: λ of the advantage estimate, in [0, 1].
        clip_param: ε of the clipped surrogate, > 0.
        vf_coeff: weight of the value loss, ≥ 0.
        entropy_coeff: weight of the entropy bonus, ≥ 0.
        max_grad_norm: gradients longer than this are scaled down to it, > 0. None: never.
        clip_param_high: ε of the upper bound alone ("clip-higher", DAPO), > 0. None: `clip_param`.
        clip_value: how far V may move from the value that collected the data, > 0, in its units. None: freely.
        target_kl: updates stop once the policy is this far from the one that collected the data, > 0, in nats.
            None: they never stop early.
        num_epochs: passes over the batch in one `train_step`.
        num_minibatches: parts into which each pass cuts the batch; the last may be smaller.
        normalize_advantages: to mean 0 and variance 1 in each minibatch.

    Raises:
        ValueError: a field is out of its range; the message names it, the value and what is needed.
    """

    gamma: float = number(0.99, low=0, high=1)
    gae_lambda: float = number(0.95, low=0, high=1)
    clip_param: float = number(0.2, above=0)
    vf_coeff: float = number(0.5, low=0)
    entropy_coeff: float = number(0.01, low=0)
    max_grad_norm: float | None = number(0.5, above=0, optional=True)
    clip_param_high: float | None = number(None, above=0)
    clip_value: float | None = number(None, above=0)
    target_kl: float | None = number(None, above=0)
    num_epochs: int = count(4, traced=True)
    num_minibatches: int = count(4)
    normalize_advantages: bool = flag(True)


@config
class GRPOConfig:
    """Settings of `GRPOTrainer`. The first five are the guide's.

    Args:
        num_generations: samples for each prompt, G.
        clip_param: ε of the clipped surrogate, > 0.
        beta: weight of the KL penalty, ≥ 0; counts where there is a reference.
        entropy_coeff: weight of the entropy bonus, ≥ 0.
        gamma: discount γ of rewards `(B, T)`, in [0, 1]; rewards `(B,)` are terminal.
        clip_param_high: ε of the upper bound alone ("clip-higher", DAPO), > 0. None: `clip_param`.
        advantage_scale: a reward minus its group's mean is divided by the standard deviation of the "group", of the
            whole "batch", or by nothing ("none", Dr. GRPO).
        loss_aggregation: "sequence" averages over each response, then over responses (GRPO); "token" over all tokens
            (DAPO); "constant" divides each response's sum by `max_length` (Dr. GRPO).
        max_length: the divisor of "constant", in tokens. None: the longest response that the batch has room for.
        ratio_level: "token", or "sequence" for one ratio a response, length-normalised (GSPO).
        kl_estimator: "k3", "k1" or "k2" from samples, or "exact" where the distribution has one.
        num_updates: gradient steps on each batch.

    Raises:
        ValueError: a field is out of its range; the message names it, the value and what is needed.
    """

    num_generations: int = count(4)
    clip_param: float = number(0.2, above=0)
    beta: float = number(0.01, low=0)
    entropy_coeff: float = number(0.01, low=0)
    gamma: float = number(0.99, low=0, high=1)
    clip_param_high: float | None = number(None, above=0)
    advantage_scale: str = choice("group", "batch", "none")
    loss_aggregation: str = choice("sequence", "token", "constant")
    max_length: int | None = count(None)
    ratio_level: str = choice("token", "sequence")
    kl_estimator: str = choice("k3", "k1", "k2", "exact")
    num_updates: int = count(1)


@config
class DPOConfig:
    """Settings of `DPOTrainer`. The first three are the guide's.

    Args:
        beta: inverse temperature β, > 0; a lower one is a weaker pull to the reference.
        label_smoothing: share of labels thought to be flipped, in [0, 0.5).
        reference_free: SimPO: no reference, log-probabilities averaged over each response's length.
        loss_type: "sigmoid" (DPO), "ipo", "hinge" (SLiC) or "robust".
        gamma_beta_ratio: SimPO's target margin γ/β, ≥ 0, in nats a token.

    Raises:
        ValueError: a field is out of its range; the message names it, the value and what is needed.
    """

    beta: float = number(0.1, above=0)
    label_smoothing: float = number(0.0, low=0, below=0.5)
    reference_free: bool = flag(False)
    loss_type: str = choice("sigmoid", "ipo", "hinge", "robust")
    gamma_beta_ratio: float = number(0.25, low=0)
