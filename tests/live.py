"""Small trainers, each with what it learns from, for the tests of live training."""

import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
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
)
from artifex_rl.models import MLP, ActorCritic


def with_rate(model, rate=1e-2):
    return nnx.Optimizer(model, optax.inject_hyperparams(optax.adam)(learning_rate=rate), wrt=nnx.Param)


def policy(seed=0):
    return MLP(3, [8], 4, rngs=nnx.Rngs(seed))


OBSERVATIONS = np.asarray(jax.random.normal(jax.random.key(1), (48, 3)))
PAIRS = {"observations": OBSERVATIONS, "chosen": np.arange(48) % 4, "rejected": (np.arange(48) + 1) % 4}


def make_dpo(seed=0, **config):
    model = policy(seed)
    return DPOTrainer(model, with_rate(model), DPOConfig(**config), reference_model=policy(seed + 1))


def make_reinforce(**config):
    model = policy()
    return REINFORCETrainer(model, with_rate(model), REINFORCEConfig(**config))


def make_grpo(**config):
    model = policy()
    return GRPOTrainer(model, with_rate(model), GRPOConfig(num_generations=4, **config))


def make_ppo(**config):
    model = ActorCritic(4, (8,), 2, rngs=nnx.Rngs(0))
    return PPOTrainer(model, with_rate(model, 1e-3), PPOConfig(num_epochs=1, num_minibatches=2, **config))


def score(samples, conditions):
    """Python that no compiler sees: the reward is 1 for the action that the observation's sign asks for."""
    pairs = zip(samples, conditions, strict=True)
    return [float(int(sample) == (2 if condition[0] > 0 else 1)) for sample, condition in pairs]


def draw(model, key):
    observations = jnp.asarray(OBSERVATIONS[:16])
    actions = jax.random.categorical(key, model(observations))
    return {
        "observations": observations,
        "actions": actions,
        "rewards": (actions == 2).astype(jnp.float32),
        "dones": jnp.ones(16, bool),
    }


def wait_for(condition, seconds=120.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.002)
