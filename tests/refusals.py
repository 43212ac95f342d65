"""For tests of bad input: an error that says what it is about, and a trainer in which nothing changed."""

from __future__ import annotations

import re

import jax
import numpy as np
import pytest
from flax import nnx


def snapshot(trainer) -> list[bytes]:
    """Every bit of a trainer's state: model, optimizer, their companions, step, key."""
    trees = nnx.state((trainer.model, trainer.optimizer, *trainer.companions)), np.uint32(trainer.step), trainer.key
    return [np.asarray(_data(leaf)).tobytes() for leaf in jax.tree.leaves(trees)]


def assert_refused(trainer, batch, *words, error=ValueError, **step_arguments):
    """`train_step(batch, ...)` raises `error`, the message has all the words, and no bit of the trainer changed.

    The words are what the error must say: the key, what it got, what it needs.
    """
    before = snapshot(trainer)
    with pytest.raises(error) as caught:
        trainer.train_step(batch, **step_arguments)
    assert snapshot(trainer) == before
    for word in words:
        assert re.search(rf"(?<!\w){re.escape(str(word))}(?!\w)", str(caught.value)), (word, str(caught.value))


def _data(leaf):
    return jax.random.key_data(leaf) if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf
