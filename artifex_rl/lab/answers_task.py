"""One toy task for all four algorithms: prompts, possible answers, and a best policy that is known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from artifex_rl.configs import DPOConfig, GRPOConfig, PPOConfig, REINFORCEConfig
from artifex_rl.rl.dpo import DPOTrainer
from artifex_rl.rl.grpo import GRPOTrainer
from artifex_rl.rl.ppo import PPOTrainer
from artifex_rl.rl.preferences import REFERENCES
from artifex_rl.rl.reinforce import REINFORCETrainer
from artifex_rl.trainer import Trainer

PROMPTS, ANSWERS, GROUP = 4, 10, 8
#: Scored samples that one update may use, and updates of a run.
SAMPLES, UPDATES = PROMPTS * GROUP, 30

#: How good each answer is, `(PROMPTS, ANSWERS)`, by its distance from the right one. What an answer to the easiest
#: prompt earns at least, one to the hardest does not earn at most.
_DISTANCE = np.abs(np.arange(ANSWERS) - np.array([[2], [7], [4], [9]]))
_LEAST = np.array([[0.6], [0.4], [0.2], [0.0]])
_NEAR = _LEAST + (1 - _LEAST) * np.maximum(1 - _DISTANCE / 5, 0)


class AnswerTable(nnx.Module):
    """A policy that is a table: a logit for each answer to each prompt, 0 at first, and V of each prompt.

    Called with prompts as one-hot rows `(B, PROMPTS)` it returns logits `(B, ANSWERS)`, with a `critic` also `(B,)`.
    """

    def __init__(self, critic: bool):
        self.logits = nnx.Param(jnp.zeros((PROMPTS, ANSWERS)))
        self.values = nnx.Param(jnp.zeros(PROMPTS)) if critic else None

    def __call__(self, prompts: Float[Array, "B P"]) -> Any:
        logits = prompts @ self.logits[...]
        return logits if self.values is None else (logits, prompts @ self.values[...])


def qualities(sparsity: ArrayLike) -> Float[Array, "P K"]:
    """What each answer is worth: from 0, where a near miss is worth nearly as much, to 1, where only the right one is
    worth anything. The best policy earns 1 in any case."""
    right = jnp.asarray(_DISTANCE == 0, jnp.float32)
    return (1 - sparsity) * jnp.asarray(_NEAR, jnp.float32) + sparsity * right


def make_trainer(algorithm: str, learning_rate: ArrayLike) -> Trainer:
    """A new trainer of a new table: "REINFORCE", "PPO", "GRPO" or "DPO", with the guide's settings and Adam.

    Raises:
        KeyError: there is no such algorithm.
    """
    kind, config = _KINDS[algorithm]
    table = AnswerTable(critic=algorithm == "PPO")
    # The gradient of an answer that nobody gave is rounding alone. Adam would make whole steps of it, on every
    # processor others; with this ε it makes none.
    adam = optax.adam(learning_rate, eps=1e-5)
    return kind(table, nnx.Optimizer(table, adam, wrt=nnx.Param), config)


def train(
    algorithm: str,
    key: Array,
    learning_rate: ArrayLike = 0.1,
    noise: ArrayLike = 0.0,
    sparsity: ArrayLike = 0.0,
    flips: ArrayLike = 0.0,
) -> Float[Array, "UPDATES+1"]:
    """A run of one algorithm, with as many scored samples for each: the exact mean quality before each update and at
    the end, found by enumeration. Pure, so it can be vmapped over anything.

    REINFORCE, PPO and GRPO score SAMPLES answers of the policy of now in each update. DPO is given half as many pairs
    of answers of the policy as it was at first, and is told which of a pair scored higher.

    Args:
        algorithm: see `make_trainer`.
        key: a JAX random key.
        learning_rate: of Adam, > 0.
        noise: standard deviation of the noise in each score, ≥ 0.
        sparsity: see `qualities`.
        flips: share of the pairs whose preference is told the wrong way round, in [0, 1]; DPO alone is told any.
    """
    trainer, quality = make_trainer(algorithm, learning_rate), qualities(sparsity)
    draw: Callable = _draw_pairs if algorithm == "DPO" else _draw_answers

    def mean_quality(model):
        return jnp.mean(jnp.sum(jax.nn.softmax(model.logits[...]) * quality, axis=1))

    def update(state, key):
        model = trainer.merge(state)[0]
        draw_key, key = jax.random.split(key)
        batch = draw(model, draw_key, quality, noise, flips)
        return trainer.pure_step(state, batch, key, trainer.config)[0], mean_quality(model)

    state, seen = jax.lax.scan(update, trainer.state, jax.random.split(key, UPDATES))
    return jnp.append(seen, mean_quality(trainer.merge(state)[0]))


#: The trainer and the settings of each.
_KINDS: dict[str, tuple[type[Trainer], Any]] = {
    "REINFORCE": (REINFORCETrainer, REINFORCEConfig()),
    "PPO": (PPOTrainer, PPOConfig()),
    "GRPO": (GRPOTrainer, GRPOConfig(num_generations=GROUP)),
    "DPO": (DPOTrainer, DPOConfig()),
}
ALGORITHMS = tuple(_KINDS)


def _score(key, quality, prompts, answers, noise):
    return quality[prompts, answers] + noise * jax.random.normal(key, answers.shape)


def _draw_answers(model, key, quality, noise, flips):
    """SAMPLES answers of the policy of now, a group for each prompt, as a prepared batch of independent samples."""
    answer_key, score_key = jax.random.split(key)
    prompts = jnp.repeat(jnp.arange(PROMPTS), GROUP)
    every = jax.nn.log_softmax(model.logits[...])[prompts]
    answers = jax.random.categorical(answer_key, every)
    batch = {
        "observations": jnp.eye(PROMPTS)[prompts],
        "actions": answers,
        "rewards": _score(score_key, quality, prompts, answers, noise),
        "log_probs": jnp.take_along_axis(every, answers[:, None], axis=1)[:, 0],
        "dones": jnp.ones(SAMPLES),
    }
    if model.values is not None:
        batch |= {"values": model.values[...][prompts], "next_values": jnp.zeros(SAMPLES)}
    return batch


def _draw_pairs(model, key, quality, noise, flips):
    """SAMPLES answers of the first policy, which takes each alike, as pairs with a preference."""
    answer_key, score_key, flip_key = jax.random.split(key, 3)
    prompts = jnp.repeat(jnp.arange(PROMPTS), GROUP // 2)
    pairs = jax.random.randint(answer_key, (2, SAMPLES // 2), 0, ANSWERS)
    scores = _score(score_key, quality, jnp.stack([prompts, prompts]), pairs, noise)
    first = (scores[0] > scores[1]) ^ jax.random.bernoulli(flip_key, jnp.float32(flips), prompts.shape)
    uniform = jnp.full(prompts.shape, -jnp.log(float(ANSWERS)))
    return {
        "observations": jnp.eye(PROMPTS)[prompts],
        "chosen": jnp.where(first, *pairs),
        "rejected": jnp.where(first, *pairs[::-1]),
        **dict.fromkeys(REFERENCES, uniform),
    }
