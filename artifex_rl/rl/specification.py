"""What a policy would say about actions, as shapes: known before anything is computed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from artifex_rl.rl.batches import check_finite, signature
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
        if key not in self._known:
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


def check_actions(name: str, actions: Any, seen: Evaluation, batch_axes: int = 1) -> None:
    """ValueError unless the actions are finite and the policy has them; `name` is what the error calls them."""
    check_finite(name, actions)
    if hasattr(seen.distribution, "check_actions"):
        taken = np.asarray(actions)
        try:
            seen.distribution.check_actions(taken.reshape(-1, *taken.shape[batch_axes:]))
        except ValueError as error:
            raise ValueError(str(error).replace("actions:", f"{name}:", 1)) from None
