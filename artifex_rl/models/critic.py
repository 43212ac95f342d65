"""A critic: the value of a state, learned by regression on what the states turned out to be worth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from artifex_rl.models.mlp import MLP


def fit_critic(
    observations: ArrayLike,
    targets: ArrayLike,
    key: Array,
    *,
    hidden_features: Sequence[int] = (64, 64),
    num_steps: int = 1000,
    batch_size: int = 256,
    learning_rate: float = 3e-3,
) -> Callable[[ArrayLike], Float[Array, "*B"]]:
    """Fit V(s) to targets by least squares: an MLP, Adam with a cosine decay, and minibatches drawn with repeats.

    Observations and targets are scaled to zero mean and unit variance for the fit and back again for the answer,
    so that the learning rate need not know whether a return is worth 1 or 1,000.

    Args:
        observations: `(..., D)`, any batch axes, such as `(T, N, D)`.
        targets: `(...)`, like the batch axes: returns, or advantages plus values.
        key: a JAX random key, for the initial weights and the minibatches.
        hidden_features: size of each hidden layer.
        num_steps: gradient steps, at least 1.
        batch_size: states in a minibatch, at least 1.
        learning_rate: Adam's first step size, positive.

    Returns:
        `critic(observations)`, a pure function from `(..., D)` to values `(...)` in the targets' unit. It is a
        pytree (`jax.tree_util.Partial`): as an argument of a jitted function its weights are traced, so that another
        critic of the same size compiles nothing.

    Raises:
        ValueError: the batch axes differ, there is no state, an entry is NaN or infinite, or a setting is out of
            its range.

    Reference: Sutton & Barto (2018), *Reinforcement Learning*, section 9.3; targets that are complete returns make
    it gradient Monte Carlo.
    """
    observations, targets = np.asarray(observations, np.float32), np.asarray(targets, np.float32)
    if observations.ndim == 0 or targets.size == 0 or observations.shape[:-1] != targets.shape:
        raise ValueError(
            f"targets: got shape {targets.shape} beside observations of shape {observations.shape}, needs one "
            f"target for each observation and at least one of them"
        )
    if not (np.isfinite(observations).all() and np.isfinite(targets).all()):
        raise ValueError("observations and targets: got NaN or infinity, needs finite numbers")
    if min(num_steps, batch_size) < 1 or not learning_rate > 0:
        raise ValueError(
            f"got num_steps={num_steps}, batch_size={batch_size}, learning_rate={learning_rate}; needs at least 1, "
            f"at least 1, and more than 0"
        )
    size = observations.shape[-1]
    observations, targets = observations.reshape(-1, size), targets.reshape(-1)
    centre, spread = _centre_and_spread(observations)
    middle, scale = _centre_and_spread(targets)

    init_key, batch_key = jax.random.split(key)
    graphdef, params = nnx.split(MLP(size, hidden_features, 1, rngs=nnx.Rngs(init_key)))
    # Minibatches are laid out beforehand: the compiled fit then serves any number of states.
    rows = np.asarray(jax.random.randint(batch_key, (num_steps, batch_size), 0, len(targets)))
    batches = ((observations - centre) / spread)[rows], ((targets - middle) / scale)[rows]
    params = _fit(graphdef, params, batches, learning_rate)

    return jax.tree_util.Partial(_value, graphdef, params, (centre, spread), (middle, scale))


@jax.jit
def _value(graphdef, params, input_scale, target_scale, observations):
    (centre, spread), (middle, scale) = input_scale, target_scale
    observations = jnp.asarray(observations, jnp.float32)
    inputs = (observations.reshape(-1, observations.shape[-1]) - centre) / spread
    return (middle + scale * _predict(graphdef, params, inputs)).reshape(observations.shape[:-1])


@partial(jax.jit, static_argnums=0)
def _fit(graphdef, params, batches, learning_rate):
    """One gradient step for each minibatch, all in one compiled scan."""
    optimizer = optax.adam(optax.cosine_decay_schedule(learning_rate, len(batches[0])))

    def loss(params, inputs, targets):
        return jnp.mean((_predict(graphdef, params, inputs) - targets) ** 2)

    def step(carry, batch):
        params, opt_state = carry
        grads = jax.grad(loss)(params, *batch)
        with jax.numpy_dtype_promotion("standard"):  # optax counts steps in integers and mixes them with floats
            updates, opt_state = optimizer.update(grads, opt_state)
        return (optax.apply_updates(params, updates), opt_state), None

    (params, _), _ = jax.lax.scan(step, (params, optimizer.init(params)), batches)
    return params


@partial(jax.jit, static_argnums=0)
def _predict(graphdef, params, inputs):
    return nnx.merge(graphdef, params)(inputs)[:, 0]


def _centre_and_spread(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation over the rows, with their axis kept; a constant column is only shifted."""
    spread = x.std(axis=0, keepdims=True)
    return x.mean(axis=0, keepdims=True), np.where(spread > 1e-6, spread, 1.0).astype(np.float32)
