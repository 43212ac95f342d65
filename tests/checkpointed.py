"""For tests of checkpoints: a small trainer whose every step is random, a callback with a state, digests."""

from __future__ import annotations

import functools
import hashlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from artifex_rl.callbacks import Callback
from artifex_rl.configs import config, number
from artifex_rl.trainer import Trainer


@config
class LineConfig:
    noise: float = number(0.1, low=0)


class Line(nnx.Module):
    def __init__(self, width=3):
        self.weights = nnx.Param(jnp.asarray(np.linspace(-1, 1, width, dtype=np.float32)))  # nothing to compile
        self.dropout = nnx.Dropout(0.2, rngs=nnx.Rngs(dropout=1))

    def __call__(self, x):
        return self.dropout(x) @ self.weights[...]


class LineTrainer(Trainer):
    """Fits a line; the step's key, the model's dropout and Adam's moments all have a part in the next weights."""

    config_class = LineConfig

    def compute_loss(self, model, batch, key):
        target = batch["y"] + self.config.noise * jax.random.normal(key, batch["y"].shape)
        error = jnp.mean((model(batch["x"]) - target) ** 2)
        return error, {"error": error, "score": -error}


@functools.cache
def _original(width: int) -> LineTrainer:
    model = Line(width)
    return LineTrainer(model, nnx.Optimizer(model, optax.adam(1e-2), wrt=nnx.Param), key=7)


def make_line(width: int = 3) -> LineTrainer:
    """A trainer at step 0: a clone, so that it compiles nothing which another one has compiled."""
    return _original(width).clone()


def line_data(rows: int = 12, width: int = 3) -> dict[str, np.ndarray]:
    x = np.random.default_rng(0).normal(size=(rows, width)).astype(np.float32)
    return {"x": x, "y": x.sum(axis=1)}


class Counter(Callback):
    """A state that depends on every step that it has seen, and on their order."""

    def __init__(self):
        self.seen, self.mixed, self.epochs = 0, 0.0, []

    def on_train_batch_end(self, trainer, metrics, step):
        self.seen, self.mixed = self.seen + 1, 0.9 * self.mixed + metrics["loss"]

    def on_epoch_end(self, trainer, epoch):
        self.epochs.append(epoch)

    def state_dict(self):
        return {"seen": self.seen, "mixed": self.mixed, "epochs": self.epochs}

    def load_state_dict(self, state):
        self.seen, self.mixed, self.epochs = state["seen"], state["mixed"], state["epochs"]


def digest(trainer: Trainer, *callbacks: Callback) -> str:
    """All bits of a trainer and of the states of callbacks."""
    parts = [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(_plain(trainer.state))]
    parts += [np.asarray(jax.random.key_data(trainer.key)).tobytes(), repr(trainer.config).encode()]
    parts += [repr(callback.state_dict()).encode() for callback in callbacks]
    return hashlib.sha256(b"|".join(parts)).hexdigest()[:16]


def _plain(state):
    is_key = lambda leaf: jax.dtypes.issubdtype(jnp.asarray(leaf).dtype, jax.dtypes.prng_key)  # noqa: E731
    return jax.tree.map(lambda leaf: jax.random.key_data(leaf) if is_key(leaf) else leaf, state)
