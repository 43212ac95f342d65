"""A discriminator as a reward: paid is what it takes for real."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

OUTPUTS = {"raw": lambda scores: scores, "sigmoid": jax.nn.sigmoid, "log_sigmoid": jax.nn.log_sigmoid}


class DiscriminatorReward:
    """How real a discriminator finds samples: a reward, `reward(samples, conditions)` → `(B,)`.

    It is the discriminator of now, in its evaluation mode: what is trained afterwards changes nothing. Pure JAX: it
    may be jitted, and differentiated by the samples.

    Args:
        discriminator: an `nnx.Module`, called with samples, returns scores `(B,)`, higher for what looks real.
        output: "raw", the score itself: for a discriminator that was trained on logits it is log p/q, the log-ratio
            of how often data and fakes look like this, when it is at its best. "sigmoid", the probability of being
            real, in (0, 1); "log_sigmoid", its logarithm, at most 0. Both are meant for logits.
        conditional: whether the discriminator is told the conditions as labels of the samples, or their "labels"
            where they are a mapping, as those of a conditional `GeneratorPolicy` are.

    Raises:
        TypeError: `discriminator` is no module that can be called.
        ValueError: `output` has no such name; in a call, conditions are missing, or the discriminator cannot read the
            samples or returns something else than a score for each.

    Reference: Goodfellow et al. (2014), arXiv:1406.2661, proposition 1, for the best discriminator.
    """

    def __init__(self, discriminator: nnx.Module, output: str = "raw", *, conditional: bool = False):
        if not isinstance(discriminator, nnx.Module) or not callable(discriminator):
            raise TypeError(f"discriminator: got {type(discriminator).__name__}, needs an nnx.Module that is called")
        if output not in OUTPUTS:
            raise ValueError(f"output: got {output!r}, needs {' or '.join(map(repr, OUTPUTS))}")
        self.output, self.conditional = output, conditional
        graphdef, state = nnx.split(discriminator)
        self._values, treedef = jax.tree.flatten(state)

        def score(values, *inputs):
            model = nnx.merge(graphdef, jax.tree.unflatten(treedef, values))
            model.eval()
            return OUTPUTS[output](model(*inputs))

        self._score = jax.jit(score)

    def __call__(self, samples: Float[Array, "B *D"], conditions: Any = None, **kwargs: Any) -> Float[Array, "B"]:
        samples = jnp.asarray(samples)
        if self.conditional and conditions is None:
            raise ValueError("conditions: got None, needs the labels that the discriminator is told")
        labels = conditions["labels"] if isinstance(conditions, Mapping) else conditions
        inputs = (samples, jnp.asarray(labels)) if self.conditional else (samples,)
        shapes = ", ".join(str(x.shape) for x in inputs)
        try:
            scores = self._score(self._values, *inputs)
        except (TypeError, ValueError) as error:
            raise ValueError(f"samples: got shape {shapes}, which the discriminator cannot read: {error}") from error
        if scores.shape != samples.shape[:1]:
            raise ValueError(f"discriminator: returned shape {scores.shape}, needs {samples.shape[:1]}, one a sample")
        return scores
