"""Record the six runs of notebook 13: `python -m artifex_rl.data.make_recorded_runs`. What is wrong stands in here.

One PPO on CartPole, six times, with one line changed in five of them. A `HistoryCallback` writes down what the
trainer reports, and what nobody is paid for: how long the pole stands.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from artifex_rl.callbacks import HistoryCallback
from artifex_rl.configs import PPOConfig, config, number
from artifex_rl.data.recorded_runs import FILE, METRICS, UPDATES
from artifex_rl.envs import CartPole
from artifex_rl.models import ActorCritic
from artifex_rl.rl.onpolicy import collect_trajectory
from artifex_rl.rl.ppo import PPOTrainer

STEPS, ENVS, SEED = 128, 8, 0


@config
class Bugs(PPOConfig):
    """PPO's settings, and what a slip of the pen would change: numbers, so that one compiled step serves for all."""

    advantage_sign: float = number(1.0, low=-1, high=1)
    entropy_sign: float = number(1.0, low=-1, high=1)


class BuggyPPO(PPOTrainer):
    def compute_loss(self, model, batch, key):
        if "advantages" in batch:
            batch = batch | {"advantages": self.config.advantage_sign * batch["advantages"]}
        loss, seen = super().compute_loss(model, batch, key)
        wrong = (1 - self.config.entropy_sign) * self.config.entropy_coeff * seen["entropy"]
        return loss + wrong, seen


@dataclass(frozen=True)
class Run:
    """What one run does differently."""

    settings: Bugs = field(default_factory=Bugs)
    learning_rate: float = 1e-3
    paid: Any = lambda rewards, observations: rewards  # what the trainer is told of each step


#: In the order of the dashboard.
RUNS = {
    "reward hacking": Run(paid=lambda rewards, observations: np.abs(observations[..., 1])),  # the cart's speed
    "sign flip": Run(Bugs(advantage_sign=-1.0)),
    "healthy": Run(),
    "value loss": Run(paid=lambda rewards, observations: 1000 * rewards),
    "learning rate": Run(learning_rate=0.1),
    "entropy collapse": Run(Bugs(entropy_coeff=2.0, entropy_sign=-1.0)),
}


class Recorder:
    """Collects a batch at a time with the policy as it is, and knows how the episodes went."""

    def __init__(self, trainer: PPOTrainer, run: Run, collect: Any):
        self.trainer, self.run, self.collect = trainer, run, collect
        self.length, self.paid = np.zeros(ENVS), np.zeros(ENVS)
        self.last = {"episode_length": 0.0, "episode_return": 0.0}

    def batches(self) -> Iterator[dict[str, Any]]:
        key, envs = jax.random.key(SEED + 1), None
        envs = jax.vmap(CartPole().reset)(jax.random.split(key, ENVS))
        while True:
            now = jax.random.fold_in(key, self.trainer.step)
            batch, envs = self.collect(self.trainer.state.variables, envs, now)
            batch = jax.tree.map(np.asarray, batch)
            batch["rewards"] = np.asarray(self.run.paid(batch["rewards"], batch["observations"]), np.float32)
            self.count(batch["rewards"], batch["dones"])
            yield batch

    def count(self, rewards: np.ndarray, dones: np.ndarray) -> None:
        """The mean length and return of the episodes that ended in this batch; where none did, as before."""
        lengths, returns = [], []
        for reward, done in zip(rewards, dones, strict=True):
            self.length, self.paid = self.length + 1, self.paid + reward
            lengths += self.length[done].tolist()
            returns += self.paid[done].tolist()
            self.length, self.paid = np.where(done, 0, self.length), np.where(done, 0, self.paid)
        if lengths:
            self.last = {"episode_length": float(np.mean(lengths)), "episode_return": float(np.mean(returns))}


class WithEpisodes(HistoryCallback):
    """A history that also knows how the episodes of a batch went."""

    def __init__(self, recorder: Recorder):
        super().__init__()
        self.recorder = recorder

    def on_train_batch_end(self, trainer, metrics, step):
        super().on_train_batch_end(trainer, metrics | self.recorder.last, step)


def record() -> dict[str, np.ndarray]:
    """`(6, metrics, UPDATES)` numbers, and the names of both axes."""
    model = ActorCritic(CartPole.observation_size, (64, 64), CartPole.num_actions, rngs=nnx.Rngs(SEED))
    adam = optax.inject_hyperparams(optax.adam)(learning_rate=1e-3, eps=1e-5)
    original = BuggyPPO(model, nnx.Optimizer(model, adam, wrt=nnx.Param), Bugs(), key=SEED)

    @jax.jit
    def collect(variables, envs, key):
        policy = original.merge(original.state._replace(variables=variables))[0]
        return collect_trajectory(CartPole(), policy, key, STEPS, ENVS, envs)

    found = []
    for run in RUNS.values():
        trainer = original.clone()
        trainer.config = run.settings
        trainer.optimizer.opt_state.hyperparams["learning_rate"].set_value(jnp.float32(run.learning_rate))
        recorder = Recorder(trainer, run, collect)
        history = WithEpisodes(recorder)
        trainer.fit(recorder.batches(), steps=UPDATES, callbacks=[history])
        series = history.series()
        found.append([series[name] for name in METRICS])
    return {"runs": np.array(list(RUNS)), "metrics": np.array(METRICS), "values": np.array(found, np.float32)}


if __name__ == "__main__":
    np.savez_compressed(Path(__file__).parent / FILE, **record())
