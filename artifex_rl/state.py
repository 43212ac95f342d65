"""The state of a trainer as arrays: out of a model and its optimizer, into compiled code, and back into them."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array


class TrainState(NamedTuple):
    """What a step changes, as arrays alone: a carry for `lax.scan`, an axis for `vmap`."""

    variables: list[Any]  # values of all variables; see `Variables`
    step: Array  # uint32, how many `train_step`s lie behind


class Variables:
    """All variables of a model, of its optimizer and of their companions, by reference.

    `read` and `write` go between the variables and a flat list of their values, which is what compiled code takes
    and returns: to flatten modules at every call, as `nnx.jit` does, costs several times what a small step takes.

    Raises:
        TypeError: the model or the optimizer is of the wrong kind.
        ValueError: the optimizer was made for another model.
    """

    def __init__(self, model: nnx.Module, optimizer: nnx.Optimizer, *companions: Any):
        check_parts(model, optimizer)
        self._graphdef, state = nnx.split((model, optimizer, *companions))
        # Each with whether it is a variable: a module may also hold bare arrays, which are constants.
        self._holders = [(x, _is_variable(x)) for x in jax.tree.leaves(state, is_leaf=_is_variable)]
        self._arrays = jax.tree.structure(state)
        self._values = jax.tree.structure(self.read())

    def read(self) -> list[Any]:
        """The values of now."""
        return [holder.get_raw_value() if known else holder for holder, known in self._holders]

    def write(self, values: list[Any]) -> None:
        """Put values into the variables."""
        for (holder, known), value in zip(self._holders, values, strict=True):
            if known:
                # As set_raw_value, but past the __setattr__ of variables, which takes eight times as long.
                object.__setattr__(holder, "_raw_value", value)

    def merge(self, values: list[Any]) -> tuple[Any, ...]:
        """A model, an optimizer and companions, new objects, that hold these values, traced perhaps."""
        return nnx.merge(self._graphdef, jax.tree.unflatten(self._arrays, jax.tree.leaves(values)))

    def split(self, *parts: Any) -> list[Any]:
        """The values that they hold: the inverse of `merge`."""
        return jax.tree.unflatten(self._values, jax.tree.leaves(nnx.state(parts)))


def _is_variable(x: Any) -> bool:
    return isinstance(x, nnx.Variable)


def check_parts(model: Any, optimizer: Any, name: str = "model", optimizer_name: str = "optimizer") -> None:
    """TypeError or ValueError, with these names, unless `model` is a module and `optimizer` was made for it."""
    if not isinstance(model, nnx.Module):
        raise TypeError(f"{name}: got {type(model).__name__}, needs an nnx.Module")
    if not isinstance(optimizer, nnx.Optimizer) or isinstance(optimizer, nnx.ModelAndOptimizer):
        raise TypeError(
            f"{optimizer_name}: got {type(optimizer).__name__}, needs nnx.Optimizer({name}, optax.adam(1e-3), "
            f"wrt=nnx.Param)"
        )
    params = nnx.as_pure(nnx.state(model, optimizer.wrt))
    if not jax.tree.leaves(params):
        raise ValueError(f"{optimizer_name}: wrt={optimizer.wrt} selects nothing of {type(model).__name__} to train")
    needed = jax.tree.map(jnp.shape, jax.eval_shape(optimizer.tx.init, params))
    if jax.tree.map(jnp.shape, nnx.as_pure(optimizer.opt_state)) != needed:
        raise ValueError(
            f"{optimizer_name}: was made for another model; needs nnx.Optimizer({name}, ...) of this very model"
        )
