"""A sweep: the runs are those of the trainers one by one, compiled once, and a wrong argument is named."""

import dataclasses
import threading

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from refusals import snapshot

from artifex_rl import DPOConfig, DPOTrainer, REINFORCEConfig, REINFORCETrainer, as_policy, sweep
from artifex_rl.models import MLP

ROWS, ACTIONS = 12, 3
SEEDS = (3, 1, 4)


class Counting(REINFORCETrainer):
    """Counts its traces."""

    traces = 0

    def compute_loss(self, model, batch, key):
        type(self).traces += 1
        return super().compute_loss(model, batch, key)


def make_model(seed, hidden=4):
    return MLP(2, [hidden], ACTIONS, rngs=nnx.Rngs(seed))


def make(seed, cls=Counting, hidden=4, **options):
    model = make_model(seed, hidden)
    return cls(model, nnx.Optimizer(model, optax.adam(1e-2), wrt=nnx.Param), key=seed, **options)


def start(trainer, seed):
    """Put a trainer where `make(seed)` begins."""
    trainer.state, trainer.key = make(seed).state, seed


def make_dpo(seed):
    """Each with a reference of its own."""
    return make(seed, DPOTrainer, reference_model=make_model(seed + 100))


def samples(seed=0):
    rng = np.random.default_rng(seed)
    observations = rng.normal(size=(ROWS, 2)).astype(np.float32)
    actions = rng.integers(0, ACTIONS, ROWS)
    return {
        "observations": observations,
        "actions": actions,
        "rewards": rng.normal(size=ROWS),
        "dones": np.ones(ROWS),
    }


def preferences(seed=0):
    rng = np.random.default_rng(seed)
    chosen = rng.integers(0, ACTIONS, ROWS)
    observations = rng.normal(size=(ROWS, 2)).astype(np.float32)
    return {"observations": observations, "chosen": chosen, "rejected": (chosen + 1) % ACTIONS}


def assert_same_run(result, run, trainer, history):
    for name, values in history.items():
        np.testing.assert_allclose(result.metrics[name][run], values, rtol=1e-4, atol=1e-6)
    for got, expected in zip(jax.tree.leaves(result.state(*run)), jax.tree.leaves(trainer.state), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-5)
    x = jnp.ones((1, 2))
    np.testing.assert_allclose(result.model(*run)(x), trainer.model(x), rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_seeds_and_configs_are_the_trainers_one_by_one_and_compile_once():
    configs = [REINFORCEConfig(entropy_coeff=c, gamma=g) for c, g in ((0.0, 0.9), (0.5, 1.0))]
    Counting.traces = 0
    result = sweep(make, seeds=SEEDS, configs=configs, data=samples(), steps=5)
    assert Counting.traces == 1
    assert result.metrics["loss"].shape == (2, 3, 5) and (result.states.step == 5).all()
    trainer = make(0)  # one for all runs, because each compiles for itself
    for c, s in np.ndindex(2, 3):
        start(trainer, SEEDS[s])
        trainer.config = configs[c]
        assert_same_run(result, (c, s), trainer, trainer.fit(samples(), steps=5))


@pytest.mark.slow
@pytest.mark.parametrize("at_once", [1, 4, 7])
def test_some_at_once_are_the_same_runs_as_all(at_once):
    configs, arguments = [DPOConfig(beta=beta) for beta in (0.1, 1.0)], {"steps": 6, "batch_size": 4}
    runs = [
        sweep(make_dpo, seeds=SEEDS, configs=configs, data=preferences(), at_once=number, **arguments)
        for number in (None, at_once)
    ]
    for expected, got in zip(*map(jax.tree.leaves, [(run.metrics, run.states) for run in runs]), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_calls_of_a_sweep_are_under_way_side_by_side_and_compiled_once(monkeypatch):
    """As many as there are processors, here three: each waits in the middle until the others are there."""
    monkeypatch.setattr("os.cpu_count", lambda: 3)
    meet, wait = threading.Barrier(3, timeout=60), jax.block_until_ready

    def wait_for_all(result):
        meet.wait()
        return wait(result)

    monkeypatch.setattr(jax, "block_until_ready", wait_for_all)
    Counting.traces = 0
    result = sweep(make, seeds=range(6), data=samples(), steps=3, at_once=1)
    assert Counting.traces == 1
    monkeypatch.undo()
    for seed in range(6):
        trainer = make(seed)
        assert_same_run(result, (seed,), trainer, trainer.fit(samples(), steps=3))


@pytest.mark.slow
def test_without_configs_the_trainers_own_count_and_there_is_no_axis_for_them():
    result = sweep(lambda seed: make(seed, config=REINFORCEConfig(entropy_coeff=seed / 10)), seeds=SEEDS,
                   data=samples(), steps=3)  # fmt: skip
    assert result.metrics["loss"].shape == (3, 3)
    trainer = make(1, config=REINFORCEConfig(entropy_coeff=0.1))
    assert_same_run(result, (1,), trainer, trainer.fit(samples(), steps=3))


@pytest.mark.slow
def test_each_run_has_its_own_reference_and_its_own_order_of_a_dataset():
    configs = [DPOConfig(beta=beta) for beta in (0.1, 1.0)]
    result = sweep(make_dpo, seeds=SEEDS, configs=configs, data=preferences(), steps=6, batch_size=4)
    trainer = make_dpo(SEEDS[2])
    trainer.config = configs[1]
    assert_same_run(result, (1, 2), trainer, trainer.fit(preferences(), steps=6, batch_size=4))


@pytest.mark.slow
def test_each_run_may_draw_its_own_samples_and_they_are_those_of_a_step_with_a_reward_fn():
    observations = samples()["observations"]

    def draw(model, key):
        actions, _ = as_policy(model).sample(observations, key)
        rewards = jnp.where(actions == 2, 1.0, 0.0)
        return {"observations": observations, "actions": actions, "rewards": rewards, "dones": jnp.ones(ROWS, bool)}

    result = sweep(make, seeds=SEEDS, data=draw, steps=4)
    trainer = make(0)
    for s, seed in enumerate(SEEDS):
        start(trainer, seed)
        rewards = [
            trainer.train_step({"observations": observations}, lambda actions, _: np.asarray(actions) == 2)
            for _ in range(4)
        ]
        history = {name: [now[name] for now in rewards] for name in ("loss", "mean_reward")}
        assert_same_run(result, (s,), trainer, history)


@pytest.mark.slow
def test_a_state_goes_back_into_a_trainer():
    result = sweep(make, seeds=SEEDS, data=samples(), steps=2)
    trainer = make(0)
    trainer.state = result.state(2)
    assert trainer.step == 2
    np.testing.assert_array_equal(trainer.model(jnp.ones((1, 2))), result.model(2)(jnp.ones((1, 2))))
    with pytest.raises(ValueError, match=r"run: got .*needs 1 positions"):
        result.state(0, 0)


def test_a_run_that_diverges_leaves_the_others_alone():
    def make_wild(seed):
        trainer = make(seed)
        if seed == 1:
            trainer.model.layers.layers[0].bias[...] = jnp.full(4, jnp.nan)
        return trainer

    loss = sweep(make_wild, seeds=SEEDS, data=samples(), steps=2).metrics["loss"]
    np.testing.assert_array_equal(np.isnan(loss).all(axis=1), [False, True, False])


@pytest.mark.slow
def test_the_trainers_given_stay_as_they_were():
    made = {seed: make(seed) for seed in SEEDS}
    before = [snapshot(trainer) for trainer in made.values()]
    sweep(made.get, seeds=SEEDS, configs=[REINFORCEConfig(gamma=0.5)], data=samples(), steps=2)
    assert [snapshot(trainer) for trainer in made.values()] == before


TWO = [REINFORCEConfig(), REINFORCEConfig(baseline="mean")]
SAME = make(0)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"configs": TWO}, ValueError, "configs: baseline: got 'none' and 'mean', needs one for all runs"),
        ({"configs": [DPOConfig()]}, TypeError, "config: got DPOConfig, needs REINFORCEConfig"),
        ({"configs": []}, ValueError, "configs: got none"),
        ({"seeds": []}, ValueError, "seeds: got none"),
        ({"seeds": 3}, TypeError, "seeds: got 3, needs several"),
        ({"steps": 0}, ValueError, "steps: got 0"),
        ({"steps": None}, ValueError, "steps: got None"),
        ({"at_once": 0}, ValueError, "at_once: got 0, needs an integer of at least 1, or None"),
        ({"at_once": True}, ValueError, "at_once: got True"),
        ({"make_trainer": make_model}, TypeError, "make_trainer: returned MLP, needs a Trainer"),
        ({"make_trainer": lambda seed: SAME}, ValueError, "make_trainer: returned the same trainer twice"),
        ({"make_trainer": lambda seed: make(0, hidden=seed)}, ValueError, "make_trainer: seed 1 .* needs those of"),
        ({"make_trainer": lambda seed: make_dpo(0) if seed == 1 else make(0)}, TypeError, "returned DPOTrainer"),
        ({"make_trainer": lambda seed: make(seed, mesh=jax.make_mesh((1,), ("data",)))}, ValueError, "a mesh"),
        ({"data": {**samples(), "rewards": np.full(ROWS, np.nan)}}, ValueError, "rewards: got nan"),
        ({"batch_size": 4}, ValueError, "batch_size: got 4, needs None with Counting"),
    ],
)
def test_a_wrong_argument_is_named(arguments, error, words):
    right = {"make_trainer": make, "seeds": SEEDS, "data": samples(), "steps": 2}
    with pytest.raises(error, match=words):
        sweep(**{**right, **arguments})


def test_numbers_that_some_configs_lack_are_named():
    from artifex_rl import PPOConfig
    from artifex_rl.sweeps import _check_configs

    configs = [PPOConfig(), PPOConfig(gamma=0.5)]
    _check_configs(configs)
    with pytest.raises(ValueError, match=r"target_kl: got None and 0\.1"):
        _check_configs([*configs, dataclasses.replace(configs[0], target_kl=0.1)])
