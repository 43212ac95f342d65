"""Eight devices train as one does: the RL trainers with their batches split over a mesh.

The number of devices is settled when JAX starts. So this file is a script too, which measures on eight simulated
devices and prints what it saw; the tests run it once.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import jax
import numpy as np
import optax
import pytest
from flax import nnx

from artifex_rl import (
    DPOConfig,
    DPOTrainer,
    GRPOConfig,
    GRPOTrainer,
    PPOConfig,
    PPOTrainer,
    REINFORCEConfig,
    REINFORCETrainer,
    SequencePolicy,
)
from artifex_rl.models import MLP, ActorCritic

pytestmark = pytest.mark.slow  # each case is compiled twice

ROWS, FEATURES, ACTIONS, TOKENS, STEPS = 16, 3, 8, 4, 4


class Writer(nnx.Module):
    """Logits of the next of 8 tokens from the last one."""

    def __init__(self, seed):
        rngs = nnx.Rngs(seed)
        self.embed, self.head = nnx.Embed(ACTIONS, 8, rngs=rngs), nnx.Linear(8, ACTIONS, rngs=rngs)

    def __call__(self, tokens):
        return self.head(self.embed(tokens))


def writer(seed=0):
    return SequencePolicy(Writer(seed), max_length=TOKENS)


def chooser(seed=0):
    return MLP(FEATURES, [8], ACTIONS, rngs=nnx.Rngs(seed))


def actor_critic():
    return ActorCritic(FEATURES, (8,), ACTIONS, rngs=nnx.Rngs(0))


def experience(*shape):
    """Random choices and rewards; an episode ends at every fifth step."""
    rng = np.random.default_rng(0)
    batch = {
        "observations": rng.normal(size=(*shape, FEATURES)),
        "actions": rng.integers(0, ACTIONS, shape),
        "rewards": rng.normal(size=shape),
        "values": rng.normal(size=shape),
        "log_probs": rng.uniform(-3, -1, shape),
        "dones": np.zeros(shape, bool),
    }
    batch["dones"][4::5] = True
    return batch


def without(batch, *names):
    return {name: value for name, value in batch.items() if name not in names}


def responses(rows):
    """Groups of four responses of one to four tokens."""
    rng = np.random.default_rng(0)
    return {
        "observations": np.repeat(rng.integers(0, ACTIONS, (rows // 4, 1)), 4, axis=0),
        "actions": rng.integers(0, ACTIONS, (rows, TOKENS)),
        "rewards": rng.normal(size=rows),
        "log_probs": rng.uniform(-3, -1, (rows, TOKENS)),
        "lengths": rng.integers(1, TOKENS + 1, rows),
    }


def pairs(rows):
    rng = np.random.default_rng(0)
    chosen = rng.integers(0, ACTIONS, rows)
    observations = rng.normal(size=(rows, FEATURES))
    return {"observations": observations, "chosen": chosen, "rejected": (chosen + 1) % ACTIONS}


def make(cls, model, config, **options):
    return cls(model, nnx.Optimizer(model, optax.adam(0.02), wrt=nnx.Param), config, **options)


#: A trainer, a batch of so many rows, and twelve of them, which eight devices cannot share.
CASES = {
    "REINFORCE": (
        lambda mesh: make(REINFORCETrainer, chooser(), REINFORCEConfig(baseline="mean"), mesh=mesh),
        lambda rows: without(experience(rows), "values", "log_probs"),
    ),
    "REINFORCE, environments": (
        lambda mesh: make(REINFORCETrainer, actor_critic(), REINFORCEConfig(baseline="value"), mesh=mesh),
        lambda rows: without(experience(rows, 3), "values", "log_probs") | {"last_value": np.array([1.0, 0.0, -1.0])},
    ),
    "PPO": (  # twice 32 rows in parts of 11, 11 and 10
        lambda mesh: make(PPOTrainer, actor_critic(), PPOConfig(num_epochs=2, num_minibatches=3), mesh=mesh),
        lambda rows: experience(rows, 2) | {"last_value": np.array([1.0, -1.0])},
    ),
    "GRPO": (
        lambda mesh: make(GRPOTrainer, writer(), GRPOConfig(beta=0.1), reference_model=writer(1), mesh=mesh),
        responses,
    ),
    "GRPO, exact KL": (
        lambda mesh: make(
            GRPOTrainer,
            writer(),
            GRPOConfig(beta=0.1, kl_estimator="exact", num_updates=2, advantage_scale="batch"),
            reference_model=writer(1),
            mesh=mesh,
        ),
        responses,
    ),
    "DPO": (
        lambda mesh: make(DPOTrainer, chooser(), DPOConfig(), reference_model=chooser(1), mesh=mesh),
        pairs,
    ),
}


def measure(make_trainer, batch_of):
    """Train on one device and on eight, and let the eight be given twelve rows."""
    from refusals import snapshot

    mesh = jax.make_mesh((8,), ("data",))
    one, many = make_trainer(None), make_trainer(mesh)
    start = jax.tree.map(np.asarray, nnx.state(many.model))
    for trainer in (one, many):
        trainer.history = [trainer.train_step(batch_of(ROWS)) for _ in range(STEPS)]
    before, refused = snapshot(many), ""
    try:
        many.train_step(batch_of(12))
    except ValueError as error:
        refused = str(error)
    leaves, split = jax.tree.leaves(many.state.variables), many._place(many.prepare(batch_of(ROWS)))["observations"]
    return {
        "parameters": distance(one.state.variables, many.state.variables),
        "metrics": distance(one.history, many.history),
        "moved": distance(start, nnx.state(many.model)),
        "rows": split.addressable_shards[0].data.shape[0],
        "devices": min(len(leaf.sharding.device_set) for leaf in leaves),
        "copies": all(leaf.sharding.is_fully_replicated for leaf in leaves),
        "refused": refused,
        "unchanged": snapshot(many) == before,
    }


def distance(one, other):
    """The largest difference of any two numbers, in units of 1 or of the number itself."""
    both = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return max(float(np.max(np.abs(np.asarray(a) - b) / np.maximum(1, np.abs(a)))) for a, b in both)


@pytest.fixture(scope="module")
def seen():
    """What `measure` saw of each case, in a process with eight devices."""
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu"}
    run = subprocess.run([sys.executable, __file__], capture_output=True, text=True, env={**os.environ, **flags})
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.splitlines()[-1])


@pytest.mark.parametrize("case", CASES)
def test_eight_devices_train_as_one_does(seen, case):
    assert seen[case]["rows"] == ROWS / 8 and seen[case]["devices"] == 8 and seen[case]["copies"]
    assert seen[case]["moved"] > 0.01
    assert seen[case]["parameters"] < 1e-5 and seen[case]["metrics"] < 1e-4


@pytest.mark.parametrize("case", CASES)
def test_a_batch_that_eight_devices_cannot_share_is_refused(seen, case):
    assert "12 rows, needs a multiple of the mesh's 8 devices" in seen[case]["refused"]
    assert seen[case]["unchanged"]


if __name__ == "__main__":
    import conftest  # noqa: F401 (JAX at its strictest here, too)

    assert jax.device_count() == 8
    print(json.dumps({name: measure(*case) for name, case in CASES.items()}))
