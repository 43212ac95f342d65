"""For tests of callbacks: the least trainer there is, compiled once for all of them, and loops that call hooks."""

from __future__ import annotations

import functools

import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from artifex_rl import Trainer


class Line(Trainer):
    """Least squares by Adam; "error" is the loss once more."""

    def compute_loss(self, model, batch, key):
        error = jnp.mean((model(batch["x"])[:, 0] - batch["y"]) ** 2)
        return error, {"error": error}


@functools.cache
def _original() -> Line:
    model = nnx.Linear(3, 1, rngs=nnx.Rngs(0))
    return Line(model, nnx.Optimizer(model, optax.adam(1e-2), wrt=nnx.Param))


def make() -> Line:
    """A trainer at step 0: a clone, so that it compiles nothing which another one has compiled."""
    return _original().clone()


def data(rows: int = 8, seed: int = 0) -> dict[str, np.ndarray]:
    """A batch."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, 3)).astype(np.float32)
    return {"x": x, "y": x.sum(axis=1) + 3}


def by_hand(trainer, steps: int, callbacks, batch=None) -> None:
    """The guide's loop, which counts from 0."""
    for callback in callbacks:
        callback.on_train_begin(trainer)
    for step in range(steps):
        metrics = trainer.train_step(data() if batch is None else batch)
        for callback in callbacks:
            callback.on_train_batch_end(trainer, metrics, step)
    for callback in callbacks:
        callback.on_train_end(trainer)
