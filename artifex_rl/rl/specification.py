"""What a policy would say about actions, as shapes: known before anything is computed."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from artifex_rl.rl.batches import check_finite, signature
from artifex_rl.rl.distributions import Categorical, DiagonalGaussian
from artifex_rl.rl.policies import Evaluation


class Specification:
    """Calling it returns the policy's `Evaluation` of actions with shapes in place of arrays; traced once for each.

    Args:
        evaluate: `evaluate(state, observations, actions, batch_axes)`, what is traced.
    """

    def __init__(self, evaluate: Callable[[Any, Any, Any, int], Evaluation]):
        self._evaluate = evaluate
        self._known: dict[Any, Evaluation] = {}

    def __call__(
        self, state: Callable[[], Any], observations: Any, actions: Any, batch_axes: int = 1, name: str = "actions"
    ) -> Evaluation:
        """Shapes, after a first look at the actions; `name` is what an error calls them.

        Raises:
            ValueError: the policy cannot read the observations or the actions.
        """
        key = batch_axes, signature((observations, actions))
        if key not in self._known:  # tracing takes longer than a step
            try:
                seen = jax.eval_shape(lambda *x: self._evaluate(*x, batch_axes), state(), observations, actions)
            except (TypeError, ValueError, IndexError) as error:
                shapes, done = jax.tree.map(np.shape, (observations, actions))
                raise ValueError(
                    f"observations and {name}: got shapes {shapes} and {done}, which the policy cannot read: {error}"
                ) from error
            check_actions(name, actions, seen, batch_axes)  # before anything is compiled for them
            self._known[key] = seen
        return self._known[key]

    def known(self, observations: Any, actions: Any, batch_axes: int = 1) -> Evaluation | None:
        """Shapes that were asked for before; None if they were not. It may be called while JAX traces."""
        return self._known.get((batch_axes, signature((observations, actions))))


def plausible_actions(actions: Any, seen: Evaluation | None) -> Array | None:
    """Whether `check_actions` would raise nothing, as a traced flag; None where that cannot be told from here."""
    distribution = None if seen is None else seen.distribution
    if isinstance(distribution, Categorical):
        return jnp.all((actions >= 0) & (actions < distribution.logits.shape[-1]))
    if seen is None or (hasattr(distribution, "check_actions") and not isinstance(distribution, DiagonalGaussian)):
        return None
    return all_finite(actions)


def all_finite(entries: Any) -> Array:
    """Whether all floats of a tree are finite, as a traced flag."""
    floats = [leaf for leaf in jax.tree.leaves(entries) if jnp.issubdtype(jnp.result_type(leaf), jnp.floating)]
    return functools.reduce(jnp.logical_and, (jnp.isfinite(leaf).all() for leaf in floats), jnp.ones((), bool))


def check_actions(name: str, actions: Any, seen: Evaluation, batch_axes: int = 1) -> None:
    """ValueError unless the actions are finite and the policy has them; `name` is what the error calls them."""
    check_finite(name, actions)
    if hasattr(seen.distribution, "check_actions"):
        taken = np.asarray(actions)
        try:
            seen.distribution.check_actions(taken.reshape(-1, *taken.shape[batch_axes:]))
        except ValueError as error:
            raise ValueError(str(error).replace("actions:", f"{name}:", 1)) from None
