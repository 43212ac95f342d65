"""Four algorithms on one task whose best policy is known, at equal samples; and the chooser between them."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from artifex_rl.lab import AlgorithmChooser, AlgorithmExplorer
from artifex_rl.lab.algorithm_chooser import DATA, MEMORY, REWARDS, WISHES
from artifex_rl.lab.algorithm_explorer import BUDGETS, RATES
from artifex_rl.lab.answers_task import (
    ALGORITHMS,
    ANSWERS,
    PROMPTS,
    SAMPLES,
    UPDATES,
    AnswerTable,
    make_trainer,
    qualities,
    train,
)
from artifex_rl.rl.advice import advise, facts

NEW_SEEDS = jax.vmap(jax.random.key)(jnp.arange(100, 106, dtype=jnp.uint32))  # none that the explorer draws


@pytest.fixture(scope="module")
def run():
    """`run(rate, noise, sparsity, flips)`: mean quality by algorithm, `(seeds, updates + 1)`, on new seeds."""

    def all_seeds(name, *knobs):
        return jax.vmap(lambda key: train(name, key, *knobs))(NEW_SEEDS)

    every = jax.jit(lambda *knobs: {name: all_seeds(name, *knobs) for name in ALGORITHMS})
    return lambda *knobs: {name: np.asarray(seen) for name, seen in every(*map(jnp.float32, knobs)).items()}


@pytest.mark.parametrize("sparsity", [0.0, 0.5, 1.0])
def test_the_best_policy_earns_1_and_one_that_knows_nothing_the_mean(sparsity):
    quality = np.asarray(qualities(sparsity))
    assert quality.shape == (PROMPTS, ANSWERS) and quality.min() >= 0
    np.testing.assert_allclose(quality.max(axis=1), 1, rtol=1e-6)
    assert ((quality == quality.max(axis=1, keepdims=True)).sum(axis=1) == 1).all()  # one right answer each


@pytest.mark.slow
def test_every_run_begins_at_the_uniform_policy_and_stays_below_the_best(run):
    for sparsity in (0.0, 1.0):
        for seen in run(0.1, 0.0, sparsity, 0.0).values():
            assert seen.shape == (6, UPDATES + 1)
            np.testing.assert_allclose(seen[:, 0], np.asarray(qualities(sparsity)).mean(), rtol=1e-5)
            assert seen.max() <= 1 + 1e-6


@pytest.mark.slow
def test_all_four_come_near_the_optimum(run):
    at = run(0.4, 0.0, 1.0, 0.0)
    for name in ("REINFORCE", "GRPO", "DPO"):
        assert at[name][:, -1].min() > 0.95, name
    assert run(0.05, 0.0, 1.0, 0.0)["PPO"][:, -1].min() > 0.95


@pytest.mark.slow
def test_what_notebook_00_says_of_new_seeds(run):
    slow, fast = run(0.05, 0.0, 0.0, 0.0), run(0.8, 0.0, 0.0, 0.0)
    assert all(slow["PPO"][:, -1].min() > slow[name][:, -1].max() + 0.1 for name in ("REINFORCE", "GRPO", "DPO"))
    assert fast["GRPO"][:, -1].mean() > fast["PPO"][:, -1].mean() + 0.02
    flipped = run(0.2, 0.0, 0.0, 0.5)
    assert abs(flipped["DPO"][:, -1].mean() - flipped["DPO"][:, 0].mean()) < 0.1  # half of them wrong: nothing learnt
    np.testing.assert_array_equal(flipped["GRPO"], run(0.2, 0.0, 0.0, 0.0)["GRPO"])  # the others are told no pairs


@pytest.mark.parametrize("name", ALGORITHMS)
def test_the_trainer_is_the_librarys_and_the_batch_one_that_it_accepts(name):
    from artifex_rl.lab.answers_task import _draw_answers, _draw_pairs
    from artifex_rl.rl.preferences import REFERENCES

    trainer = make_trainer(name, 0.1)
    draw = _draw_pairs if name == "DPO" else _draw_answers
    batch = draw(trainer.model, jax.random.key(0), qualities(0.0), 0.0, 0.0)
    prepared = trainer.prepare({key: np.asarray(value) for key, value in batch.items()})
    trainer.validate(prepared)
    assert len(batch["observations"]) == (SAMPLES // 2 if name == "DPO" else SAMPLES)
    if name == "DPO":
        np.testing.assert_allclose(batch[REFERENCES[0]], -np.log(ANSWERS), rtol=1e-6)
    else:
        np.testing.assert_allclose(batch["log_probs"], -np.log(ANSWERS), rtol=1e-6)


@pytest.mark.slow
def test_rounding_decides_nothing():
    """Adam with its usual ε makes whole steps of gradients that are rounding: 1e-2 apart after these updates."""
    together = jax.jit(jax.vmap(lambda key: train("GRPO", key, 0.2, 0.5)))(NEW_SEEDS)
    for key, seen in zip(NEW_SEEDS[:3], together, strict=False):
        np.testing.assert_allclose(train("GRPO", key, 0.2, 0.5), seen, atol=2e-5)


def test_a_table_has_values_only_as_a_critic():
    prompts = jnp.eye(PROMPTS)
    assert AnswerTable(critic=False)(prompts).shape == (PROMPTS, ANSWERS)
    logits, values = AnswerTable(critic=True)(prompts)
    assert logits.shape == (PROMPTS, ANSWERS) and values.shape == (PROMPTS,)


@pytest.mark.slow
def test_the_explorer_draws_the_runs():
    explorer = AlgorithmExplorer(num_seeds=3, seed=5)
    explorer.set(rate=3, noise=0.5)
    curves = explorer.curves()
    for name in ALGORITHMS:
        runs = [train(name, jax.random.key(seed), RATES[3], 0.5) for seed in (5, 6, 7)]
        np.testing.assert_allclose(curves[name], np.mean(runs, axis=0), atol=2e-5)
        np.testing.assert_allclose(curves[f"{name}_worst"], np.min(runs, axis=0), atol=2e-5)
        np.testing.assert_allclose(curves[f"{name}_best"], np.max(runs, axis=0), atol=2e-5)
        assert f"{name} {curves[name][-1]:.2f}" in explorer.summary()
    assert BUDGETS[-1] == UPDATES * SAMPLES and f"After {BUDGETS[-1]} " in explorer.summary()


@pytest.mark.parametrize("num_seeds", [1, 33, 2.5, True])
def test_a_number_of_seeds_that_makes_no_band_is_refused(num_seeds):
    with pytest.raises(ValueError, match="num_seeds: got"):
        AlgorithmExplorer(num_seeds=num_seeds)


def test_the_chooser_marks_what_is_advised_at_every_setting():
    chooser = AlgorithmChooser()
    for data, reward, memory, wish in itertools.product(range(3), range(2), MEMORY, range(2)):
        chooser.set(data=data, reward=reward, memory=memory, wish=wish)
        curves = chooser.curves()
        task = {"scores": data != 1, "pairs": data != 0, "step_rewards": reward == 1, "memory": memory}
        advice = advise(**task, stable=wish == 1)
        marked = tuple(name for name in facts() if np.isfinite(curves[f"{name}_best"]).all())
        assert marked == advice.best
        out = {name for name in facts() if np.isfinite(curves[f"{name}_out"]).all()}
        assert out == {name for name, reason in advice.reasons.items() if reason.startswith("needs")}
        assert all(name in chooser.summary() for name in facts()) and "\n" not in chooser.summary()


def test_the_chooser_takes_words():
    chooser = AlgorithmChooser()
    chooser.set(data=DATA[1], reward=REWARDS[0], memory=6, wish=WISHES[1])
    assert chooser.summary().startswith("Begin with DPO: ")
