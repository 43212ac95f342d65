"""Every trainer with every callback, in `fit` and in the guide's loop: all is written down, nothing is changed."""

import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from refusals import snapshot
from small_runs import by_hand
from test_callbacks_tensorboard import series
from wandb_records import offline_runs

from artifex_rl import (
    DPOConfig,
    DPOTrainer,
    GRPOConfig,
    GRPOTrainer,
    PPOConfig,
    PPOTrainer,
    REINFORCETrainer,
    callbacks,
)
from artifex_rl.models import VAE, ActorCritic, Discriminator, EnergyNetwork, Generator
from artifex_rl.trainers import (
    AutoregressiveConfig,
    AutoregressiveTrainer,
    DiffusionTrainer,
    EnergyConfig,
    EnergyTrainer,
    FlowTrainer,
    GANTrainer,
    VAETrainer,
)

ROWS, SHAPE = 8, (2, 2)
RNG = np.random.default_rng(0)
DATA = {"data": RNG.uniform(0, 1, (ROWS, *SHAPE)).astype(np.float32)}
SEEN = {
    "observations": RNG.normal(size=(ROWS, 3)).astype(np.float32),
    "actions": RNG.integers(0, 2, ROWS),
    "rewards": RNG.normal(size=ROWS).astype(np.float32),
    "log_probs": np.full(ROWS, -0.7, np.float32),
    "values": np.zeros(ROWS, np.float32),
    "dones": np.ones(ROWS, bool),
}
PAIRS = {"observations": SEEN["observations"], "chosen": np.arange(ROWS) % 2, "rejected": np.arange(1, ROWS + 1) % 2}
TOKENS = {"observations": np.zeros((ROWS, 1), np.int32), "tokens": RNG.integers(0, 4, (ROWS, 3)).astype(np.int32)}


class Moves(nnx.Module):
    """What a denoiser is called with, and no more than a linear layer."""

    def __init__(self):
        self.linear = nnx.Linear(4, 4, rngs=nnx.Rngs(0))

    def __call__(self, x, time, labels=None):
        return self.linear(x.reshape(len(x), -1)).reshape(x.shape) + time[:, None, None]


class Writes(nnx.Module):
    """Logits of the next token, from the last one."""

    def __init__(self):
        self.embed = nnx.Embed(4, 4, rngs=nnx.Rngs(0))

    def __call__(self, tokens):
        return self.embed(tokens)


def with_optimizer(cls, model, *config, **more):
    return cls(model, nnx.Optimizer(model, optax.adam(1e-2), wrt=nnx.Param), *config, **more)


def policy():
    return nnx.Linear(3, 2, rngs=nnx.Rngs(0))


def gan():
    discriminator = Discriminator(SHAPE, (4,), rngs=nnx.Rngs(1))
    optimizer = nnx.Optimizer(discriminator, optax.adam(1e-2), wrt=nnx.Param)
    generator = Generator(2, SHAPE, (4,), rngs=nnx.Rngs(0))
    return with_optimizer(GANTrainer, generator, discriminator=discriminator, discriminator_optimizer=optimizer)


ALL = {
    "REINFORCE": (lambda: with_optimizer(REINFORCETrainer, policy()), SEEN),
    "PPO": (
        lambda: with_optimizer(PPOTrainer, ActorCritic(3, (4,), 2, rngs=nnx.Rngs(0)), PPOConfig(num_epochs=1)),
        SEEN,
    ),
    "GRPO": (lambda: with_optimizer(GRPOTrainer, policy(), GRPOConfig(num_generations=4)), SEEN),
    "DPO": (lambda: with_optimizer(DPOTrainer, policy(), DPOConfig(reference_free=True)), PAIRS),
    "VAE": (lambda: with_optimizer(VAETrainer, VAE(SHAPE, 2, (4,), rngs=nnx.Rngs(0))), DATA),
    "GAN": (gan, DATA),
    "diffusion": (lambda: with_optimizer(DiffusionTrainer, Moves()), DATA),
    "flow": (lambda: with_optimizer(FlowTrainer, Moves()), DATA),
    "energy": (
        lambda: with_optimizer(
            EnergyTrainer, EnergyNetwork(SHAPE, (4,), rngs=nnx.Rngs(0)), EnergyConfig(num_steps=2)
        ),
        DATA,
    ),
    "autoregressive": (
        lambda: with_optimizer(AutoregressiveTrainer, Writes(), AutoregressiveConfig(max_length=3)),
        TOKENS,
    ),
}
STEPS, BY_HAND = 4, 3


def weights(model, key):
    """Some picture of a model."""
    leaves = [leaf for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)) if jnp.ndim(leaf) == 2]
    return np.asarray(leaves[0])


def every_callback(folder):
    return {
        "wandb": callbacks.WandbLoggerCallback(callbacks.WandbLoggerConfig("all", mode="offline", dir=folder)),
        "checkpoint": callbacks.ModelCheckpoint(
            callbacks.CheckpointConfig(folder / "checkpoints", monitor="loss", every_n_steps=3, resume="auto")
        ),
        "tensorboard": callbacks.TensorBoardCallback(folder / "tensorboard"),
        "jsonl": callbacks.HistoryCallback(folder / "run.jsonl"),
        "csv": callbacks.HistoryCallback(folder / "run.csv"),
        "profiler": callbacks.JAXProfiler(callbacks.ProfilingConfig(folder / "profile", 1, 3)),
        "bar": callbacks.ProgressBarCallback(),
        "grid": callbacks.SampleGrid(weights, folder / "samples", every_n_steps=2),
        "early": callbacks.EarlyStopping("loss", patience=99),
        "kl": callbacks.KLStop(1e9, window=1, monitor="loss"),
    }


QUICK = {"GRPO", "DPO", "VAE"}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in ALL]
)
def test_every_trainer_trains_as_before_with_every_callback_and_all_is_written_down(name, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_SILENT", "true")
    build, batch = ALL[name]
    trainer = build()
    bare = trainer.clone()
    bare.fit(batch, STEPS, steps_per_call=1)
    by_hand(bare, BY_HAND, [], batch)

    used = every_callback(tmp_path)
    seen = trainer.fit(batch, STEPS, [*used.values()])
    by_hand(trainer, BY_HAND, [*used.values()], batch)  # whose steps are counted from 0
    assert snapshot(trainer) == snapshot(bare)

    total = STEPS + BY_HAND
    rows = [json.loads(line) for line in (tmp_path / "run.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(total)) and set(rows[0]) == {"step", *seen}
    logged = [row for run in offline_runs(tmp_path) for row in run["rows"]]
    assert [row["_step"] for row in logged] == list(range(total))
    for metric, values in used["jsonl"].series().items():
        assert values[:STEPS].tolist() == seen[metric].tolist()
        np.testing.assert_array_equal(used["csv"].series()[metric], values)
        np.testing.assert_allclose([*series(tmp_path / "tensorboard", metric).values()], values, rtol=1e-6)
        np.testing.assert_allclose([row[metric] for row in logged], values, rtol=1e-6)
    assert len((tmp_path / "run.csv").read_text().splitlines()) == total + 1
    assert used["profiler"].trace.exists()
    again = build()
    used["checkpoint"].restore(again, used["checkpoint"].last)
    assert snapshot(again) == snapshot(trainer)
    assert f"{BY_HAND} steps in" in used["bar"].summary() and "loss " in used["bar"].summary()
    assert len(list((tmp_path / "samples").glob("*.png"))) == 5  # after 0, 2, 4, 6 and 7 steps
    assert used["early"].best == min(used["jsonl"].series()["loss"]) and used["early"].reason is None
    assert used["kl"].mean == used["jsonl"].series()["loss"][-1]


def test_a_loop_by_hand_that_was_interrupted_may_be_run_again_with_the_same_callbacks_or_new_ones(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("WANDB_SILENT", "true")
    trainer, used = ALL["DPO"][0](), every_callback(tmp_path)
    used["profiler"].config = callbacks.ProfilingConfig(tmp_path / "profile", 1, 99)
    for _ in range(2):
        for callback in used.values():
            callback.on_train_begin(trainer)
        for step in range(3):
            metrics = trainer.train_step(PAIRS)
            for callback in used.values():
                callback.on_train_batch_end(trainer, metrics, step)
    del callback, used["checkpoint"]
    before = used["jsonl"].series()["loss"]
    used.clear()
    history = callbacks.HistoryCallback(tmp_path / "run.jsonl")
    trainer.fit(PAIRS, 1, [history])
    assert history.steps().tolist() == list(range(7)) and history.series()["loss"][:6].tolist() == before.tolist()
    assert [[row["_step"] for row in run["rows"]] for run in offline_runs(tmp_path)] == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize("name", ["PPO", "GRPO"])
def test_kl_stop_watches_what_these_trainers_report(name):
    build, batch = ALL[name]
    stop, trainer = callbacks.KLStop(1e-9, window=2), build()
    trainer.fit({**batch, "log_probs": np.full(ROWS, -1.5, np.float32)}, 20, [stop])
    assert trainer.step == 2 and "approx_kl" in stop.reason


def test_rewards_that_are_asked_for_in_fit_are_logged():
    history = callbacks.HistoryCallback()
    trainer = ALL["GRPO"][0]()
    trainer.fit(
        {"observations": SEEN["observations"]},
        6,
        [history],
        reward_fn=lambda samples, conditions: np.asarray(samples, np.float32),
        validation=lambda trainer: {"share": trainer.step / 10},
        validate_every=3,
    )
    assert len(history.series()["mean_reward"]) == 6
    np.testing.assert_allclose(history.series()["val_share"], [0.3, 0.6])


def test_importing_the_callbacks_imports_none_of_their_libraries():
    heavy = ("wandb", "tensorboardX", "orbax", "matplotlib", "IPython", "flax")
    script = f"import sys, artifex_rl.callbacks as c; dir(c); print([n for n in {heavy} if n in sys.modules])"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout == "[]\n"
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        callbacks.Nothing  # noqa: B018
