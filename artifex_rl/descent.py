"""One step down a gradient: what every trainer does to a model with its optimizer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import ArrayLike
from jaxtyping import Array

from artifex_rl.metrics import Metrics


def descend(
    compute_loss: Callable[..., tuple[Array, Metrics]],
    model: nnx.Module,
    optimizer: nnx.Optimizer,
    *arguments: Any,
    max_grad_norm: ArrayLike | None = None,
) -> Metrics:
    """One step of `optimizer` along the gradient of `compute_loss(model, *arguments)` by the model; it moves both.

    Modules among the arguments may change what is no parameter, such as the statistics of a batch norm or the count
    of a dropout's draws; one that is closed over may not.

    Args:
        compute_loss: returns the scalar to minimise, and scalars to report.
        model: moves.
        optimizer: made for `model`.
        arguments: passed on.
        max_grad_norm: a longer gradient is scaled down to this length, > 0. None: never.

    Returns:
        The metrics of `compute_loss`, "loss", and "grad_norm": the gradient's length before it is cut.
    """
    loss_and_grads = nnx.value_and_grad(compute_loss, argnums=nnx.DiffState(0, optimizer.wrt), has_aux=True)
    (loss, metrics), grads = loss_and_grads(model, *arguments)
    squares = [jnp.sum(jnp.square(grad), dtype=jnp.float32) for grad in jax.tree.leaves(grads)]
    grad_norm = jnp.sqrt(jnp.stack(squares).sum())
    if max_grad_norm is not None:
        scale = jnp.minimum(1.0, max_grad_norm / jnp.maximum(grad_norm, 1e-12))
        grads = jax.tree.map(lambda grad: grad * scale.astype(grad.dtype), grads)
    with jax.numpy_dtype_promotion("standard"):  # optax counts steps in integers and mixes them with floats
        optimizer.update(model, grads)
    return {**metrics, "loss": loss, "grad_norm": grad_norm}
