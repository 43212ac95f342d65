"""DPO and SimPO: one step against a step written by hand, what trains and what does not, and bad batches."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from refusals import assert_refused, snapshot

from artifex_rl import DPOConfig, DPOTrainer, SequencePolicy
from artifex_rl.models import MLP

ROWS, TOKENS, VOCABULARY = 6, 3, 5


class Bigrams(nnx.Module):
    """The next token from the last one: causal, and small enough to be read."""

    def __init__(self, *, rngs):
        self.logits = nnx.Param(jax.random.normal(rngs.params(), (VOCABULARY, VOCABULARY)))

    def __call__(self, tokens):
        return self.logits[tokens]


def writer(seed=0):
    return SequencePolicy(Bigrams(rngs=nnx.Rngs(seed)), max_length=TOKENS)


def chooser(seed=0):
    return MLP(2, [8], VOCABULARY, rngs=nnx.Rngs(seed))


def make(model, reference_model=None, optimizer=None, **settings):
    optimizer = nnx.Optimizer(model, optimizer or optax.adam(1e-2), wrt=nnx.Param)
    return DPOTrainer(model, optimizer, DPOConfig(**settings), reference_model=reference_model)


def sequences(seed=0):
    rng = np.random.default_rng(seed)
    return {
        "observations": rng.integers(0, VOCABULARY, (ROWS, 1)),
        "chosen": rng.integers(0, VOCABULARY, (ROWS, TOKENS)),
        "rejected": rng.integers(0, VOCABULARY, (ROWS, TOKENS)),
        "chosen_lengths": rng.integers(1, TOKENS + 1, ROWS),
        "rejected_lengths": rng.integers(1, TOKENS + 1, ROWS),
    }


def choices(seed=0):
    """One action each, with the reference's log-probabilities."""
    rng = np.random.default_rng(seed)
    chosen = rng.integers(0, VOCABULARY, ROWS)
    return {
        "observations": rng.normal(size=(ROWS, 2)).astype(np.float32),
        "chosen": chosen,
        "rejected": (chosen + 1) % VOCABULARY,
        "ref_chosen_log_probs": np.full(ROWS, -1.5, np.float32),
        "ref_rejected_log_probs": np.full(ROWS, -1.7, np.float32),
    }


def log_probs_alone():
    rng = np.random.default_rng(0)
    names = ("chosen_log_probs", "rejected_log_probs", "ref_chosen_log_probs", "ref_rejected_log_probs")
    return {name: -rng.uniform(1, 3, ROWS).astype(np.float32) for name in names}


def without(batch, *names):
    return {key: value for key, value in batch.items() if key not in names}


def parameters(model):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(nnx.state(model, nnx.Param))]


def assert_same_parameters(one, other, **tolerance):
    for a, b in zip(parameters(one), parameters(other), strict=True):
        np.testing.assert_allclose(a, b, **tolerance)


# One step, by hand


def step_by_hand(model, reference, batch, config):
    """Pair by pair, token by token: the papers' formulas on a table of bigrams."""

    def log_prob(table, i, side):
        n = batch[f"{side}_lengths"][i]
        line = np.concatenate([batch["observations"][i], batch[side][i, :n]])
        total = table[line[:-1], line[1:]].sum()
        return total / n if config.reference_free else total

    def loss_of(h):
        beta = config.beta
        return {
            "sigmoid": jnp.log1p(jnp.exp(-beta * h)),
            "robust": jnp.log1p(jnp.exp(-beta * h)),
            "ipo": (h - 1 / (2 * beta)) ** 2,
            "hinge": jnp.maximum(0, 1 - beta * h),
        }[config.loss_type]

    def loss(logits):
        policy, held = jax.nn.log_softmax(logits), jax.nn.log_softmax(reference)
        total, rewards = 0.0, []
        for i in range(ROWS):
            won, lost = (log_prob(policy, i, side) for side in ("chosen", "rejected"))
            if config.reference_free:
                h = won - lost - config.gamma_beta_ratio
            else:
                won, lost = (x - log_prob(held, i, side) for x, side in ((won, "chosen"), (lost, "rejected")))
                h = won - lost
            s = config.label_smoothing
            if config.loss_type == "robust":
                total += ((1 - s) * loss_of(h) - s * loss_of(-h)) / (1 - 2 * s)
            else:
                total += (1 - s) * loss_of(h) + s * loss_of(-h)
            rewards.append(config.beta * jnp.stack([won, lost]))
        return total / ROWS, jnp.stack(rewards)

    (value, rewards), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(model)
    updates, _ = optax.sgd(1.0).update(gradient, optax.sgd(1.0).init(model))
    return value, rewards, gradient, optax.apply_updates(model, updates)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"beta": 0.5, "label_smoothing": 0.2},
        {"loss_type": "ipo", "beta": 0.3},
        {"loss_type": "hinge", "beta": 0.8},
        {"loss_type": "robust", "label_smoothing": 0.3, "beta": 0.7},
        {"reference_free": True, "beta": 2.0},
        {"reference_free": True, "gamma_beta_ratio": 0.6, "loss_type": "hinge", "beta": 2.5},
    ],
    ids=lambda settings: "-".join(map(str, settings.values())) or "guide",
)
def test_one_step_is_the_step_written_by_hand(settings):
    model, reference = writer(0), writer(1)
    start, held = model.network.logits[...], reference.network.logits[...]
    trainer = make(model, None if settings.get("reference_free") else reference, optax.sgd(1.0), **settings)
    metrics = trainer.train_step(sequences())
    with jax.numpy_dtype_promotion("standard"):
        loss, rewards, gradient, end = step_by_hand(start, held, sequences(), trainer.config)
    chosen, rejected = np.asarray(rewards).T
    assert metrics["loss"] == metrics["dpo_loss"] == pytest.approx(float(loss), rel=1e-5)
    assert metrics["chosen_reward"] == pytest.approx(chosen.mean(), rel=1e-4)
    assert metrics["rejected_reward"] == pytest.approx(rejected.mean(), rel=1e-4)
    assert metrics["reward_margin"] == pytest.approx((chosen - rejected).mean(), rel=1e-4)
    assert metrics["reward_accuracy"] == pytest.approx((chosen > rejected).mean())
    assert metrics["grad_norm"] == pytest.approx(float(optax.tree.norm(gradient)), rel=1e-4)
    np.testing.assert_allclose(model.network.logits[...], end, atol=1e-6)


# What trains, and against what


def test_a_live_reference_and_its_precomputed_log_probs_are_the_same():
    batch, ends = sequences(), []
    reference = writer(1)
    table = jax.nn.log_softmax(reference.network.logits[...])
    sums, tokens = {}, {}
    for side in ("chosen", "rejected"):
        before = np.concatenate([batch["observations"], batch[side][:, :-1]], axis=1)
        tokens[f"ref_{side}_log_probs"] = each = np.asarray(table)[before, batch[side]]
        mask = np.arange(TOKENS) < batch[f"{side}_lengths"][:, None]
        sums[f"ref_{side}_log_probs"] = np.where(mask, each, 0).sum(axis=1)
    for more, live in (({}, reference), (sums, None), (tokens, None)):
        trainer = make(writer(), live)
        trainer.train_step({**batch, **more})
        ends.append(trainer.model)
    assert_same_parameters(ends[0], ends[1], atol=1e-6)
    assert_same_parameters(ends[0], ends[2], atol=1e-6)


def test_masks_say_what_lengths_say_and_what_is_behind_the_end_does_not_count():
    batch, ends = sequences(), []
    masks = {f"{side}_mask": np.arange(TOKENS) < batch[f"{side}_lengths"][:, None] for side in ("chosen", "rejected")}
    padded = {side: np.where(masks[f"{side}_mask"], batch[side], 4) for side in ("chosen", "rejected")}
    for variant in (batch, {**without(batch, "chosen_lengths", "rejected_lengths"), **masks, **padded}):
        trainer = make(writer(), writer(1))
        trainer.train_step(variant)
        ends.append(trainer.model)
    assert_same_parameters(*ends, rtol=0, atol=0)


@pytest.mark.parametrize("settings", [{}, {"reference_free": True}], ids=["DPO", "SimPO"])
def test_without_lengths_every_token_counts(settings):
    batch = without(sequences(), "chosen_lengths", "rejected_lengths")
    full = {f"{side}_lengths": np.full(ROWS, TOKENS) for side in ("chosen", "rejected")}
    trainer = make(writer(), None if settings else writer(1), optax.sgd(0.0), **settings)
    assert trainer.train_step(batch) == pytest.approx(trainer.train_step({**batch, **full}), rel=1e-6)


def test_responses_of_two_widths():
    batch = sequences()
    shorter = {**batch, "rejected": batch["rejected"][:, :2], "rejected_lengths": np.full(ROWS, 2)}
    padded = {**batch, "rejected_lengths": np.full(ROWS, 2)}
    losses = [make(writer(), writer(1)).train_step(each)["loss"] for each in (shorter, padded)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_the_loss_is_log_2_where_the_policy_is_its_reference_and_falls_from_there():
    model = chooser()
    trainer = make(model, nnx.clone(model))
    batch = without(choices(), "ref_chosen_log_probs", "ref_rejected_log_probs")
    history = trainer.fit(batch, steps=100)
    assert history["loss"][0] == pytest.approx(np.log(2), abs=1e-6)
    assert history["loss"][-1] < history["loss"][0] - 0.05
    assert history["reward_accuracy"][-1] == 1


def test_rows_are_independent_so_that_fit_draws_batches():
    model = chooser()
    trainer = make(model, nnx.clone(model))
    batch = without(choices(), "ref_chosen_log_probs", "ref_rejected_log_probs")
    history = trainer.fit(batch, steps=60, batch_size=2)
    assert history["loss"][-10:].mean() < history["loss"][0]


def test_log_probs_alone_are_measured_and_train_nothing():
    trainer, batch = make(chooser()), log_probs_alone()
    before = parameters(trainer.model), jax.tree.leaves(nnx.state(trainer.optimizer))
    with pytest.warns(UserWarning, match="'chosen' and 'rejected'") as caught:
        metrics = trainer.train_step(batch)
    assert caught[0].filename == __file__
    after = parameters(trainer.model), jax.tree.leaves(nnx.state(trainer.optimizer))
    for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        np.testing.assert_array_equal(a, b)
    won = batch["chosen_log_probs"] - batch["ref_chosen_log_probs"]
    lost = batch["rejected_log_probs"] - batch["ref_rejected_log_probs"]
    assert metrics["dpo_loss"] == pytest.approx(np.log1p(np.exp(-0.1 * (won - lost))).mean(), rel=1e-5)
    assert metrics["reward_accuracy"] == pytest.approx((won > lost).mean())
    assert metrics["grad_norm"] == 0


@pytest.mark.filterwarnings("ignore:DPOTrainer")
def test_simpo_of_log_probs_alone_divides_by_lengths_that_are_given():
    trainer = make(chooser(), reference_free=True)
    batch = without(log_probs_alone(), "ref_chosen_log_probs", "ref_rejected_log_probs")
    averages = trainer.train_step(batch)
    lengths = {"chosen_lengths": np.full(ROWS, 4), "rejected_lengths": np.full(ROWS, 4)}
    sums = trainer.train_step({name: 4 * value for name, value in batch.items()} | lengths)
    assert sums == pytest.approx(averages, rel=1e-6)


def test_log_probs_beside_responses_are_not_read():
    batch, ends = choices(), []
    for more in ({}, without(log_probs_alone(), "ref_chosen_log_probs", "ref_rejected_log_probs")):
        trainer = make(chooser())
        trainer.train_step({**batch, **more})
        ends.append(trainer.model)
    assert_same_parameters(*ends, rtol=0, atol=0)


def test_impossible_responses_give_finite_numbers():
    class Never(nnx.Module):
        def __init__(self):
            self.scale = nnx.Param(jnp.ones(()))

        def __call__(self, x):
            return jnp.broadcast_to(jnp.asarray([0.0, -jnp.inf, 0.0, 0.0, 0.0]), (len(x), 5)) * self.scale[...]

    trainer = make(Never())
    metrics = trainer.train_step({**choices(), "chosen": np.full(ROWS, 1), "rejected": np.full(ROWS, 2)})
    assert all(np.isfinite(list(without(metrics, "grad_norm").values())))


def test_numbers_of_the_config_never_compile_again():
    traces = []

    class Counted(DPOTrainer):
        def compute_loss(self, *arguments):
            traces.append(1)
            return super().compute_loss(*arguments)

    model = chooser()
    trainer = Counted(model, nnx.Optimizer(model, optax.adam(1e-2), wrt=nnx.Param), DPOConfig())
    trainer.train_step(choices())
    once = len(traces)
    for name, value in (("beta", 0.5), ("label_smoothing", 0.1), ("gamma_beta_ratio", 1.0)):
        trainer.config = dataclasses.replace(trainer.config, **{name: value})
        trainer.train_step(choices())
    assert len(traces) == once


# Bad batches


def test_a_reference_that_is_the_model_is_an_error():
    model = chooser()
    with pytest.raises(ValueError, match="reference_model"):
        make(model, model)


def test_a_reference_is_not_the_third_argument():
    model = chooser()
    with pytest.raises(TypeError, match="config"):
        DPOTrainer(model, nnx.Optimizer(model, optax.adam(1e-2), wrt=nnx.Param), nnx.clone(model))


NAN = float("nan")
PAIR = ("chosen_log_probs", "rejected_log_probs")
REFERENCES = ("ref_chosen_log_probs", "ref_rejected_log_probs")
BAD = {
    "nothing": (lambda b: {}, ("observations", "chosen", "rejected")),
    "a list": (lambda b: [b], ("batch", "list", "mapping")),
    "no rejected": (lambda b: without(b, "rejected"), ("rejected", "rejected_responses")),
    "no chosen": (lambda b: without(b, "chosen"), ("chosen", "chosen_responses")),
    "no observations": (lambda b: without(b, "observations"), ("observations", "states")),
    "no reference": (lambda b: without(b, *REFERENCES), (*REFERENCES, "reference_model", "reference_free=True")),
    "half a reference": (lambda b: without(b, REFERENCES[0]), REFERENCES),
    "two names": (lambda b: {**b, "chosen_responses": b["chosen"]}, ("chosen", "chosen_responses")),
    "misspelt": (lambda b: {**b, "choosen_mask": b["chosen"]}, ("choosen_mask", "chosen_mask")),
    "rejected too few": (lambda b: {**b, "rejected": b["rejected"][:4]}, ("rejected", "(4,)", "6")),
    "observations too few": (lambda b: {**b, "observations": b["observations"][:4]}, ("observations", "(4, 2)", "6")),
    "observations wide": (lambda b: {**b, "observations": np.ones((ROWS, 7))}, ("observations", "(6, 7)")),
    "observations NaN": (lambda b: {**b, "observations": b["observations"] * NAN}, ("observations", "nan")),
    "chosen out of range": (lambda b: {**b, "chosen": b["chosen"] + 5}, ("chosen", "0 to 4")),
    "rejected below 0": (lambda b: {**b, "rejected": b["rejected"] - 5}, ("rejected", "0 to 4")),
    "chosen of floats": (lambda b: {**b, "chosen": b["chosen"] / 2}, ("chosen", "float32", "integers")),
    "chosen a scalar": (lambda b: {**b, "chosen": 1}, ("chosen", "()")),
    "chosen text": (lambda b: {**b, "chosen": ["yes"] * ROWS}, ("chosen", "numbers")),
    "chosen (B, 1)": (lambda b: {**b, "chosen": b["chosen"][:, None]}, ("chosen", "(6, 1)")),
    "ref NaN": (lambda b: {**b, REFERENCES[0]: b[REFERENCES[0]] * NAN}, (REFERENCES[0], "nan", "finite")),
    "ref too few": (lambda b: {**b, REFERENCES[1]: b[REFERENCES[1]][:3]}, (REFERENCES[1], "(3,)", "(6,)")),
    "ref (B, 1)": (lambda b: {**b, REFERENCES[1]: b[REFERENCES[1]][:, None]}, (REFERENCES[1], "(6, 1)", "(6,)")),
    "ref probabilities": (lambda b: {**b, REFERENCES[0]: np.full(ROWS, 0.3)}, (REFERENCES[0], "logarithms")),
    "lengths of actions": (lambda b: {**b, "chosen_lengths": np.ones(ROWS, int)}, ("chosen_lengths", "(6,)")),
    "alone, half": (lambda b: {PAIR[0]: -np.ones(ROWS)}, (PAIR[1], "policy_rejected_log_probs")),
    "alone, no ref": (lambda b: {name: -np.ones(ROWS) for name in PAIR}, (*REFERENCES, "reference_free=True")),
    "alone, NaN": (lambda b: {**log_probs_alone(), PAIR[0]: np.full(ROWS, NAN)}, (PAIR[0], "nan", "finite")),
    "alone, uneven": (lambda b: {**log_probs_alone(), PAIR[1]: -np.ones(4)}, (PAIR[1], "(4,)", "6")),
    "alone, 3 axes": (lambda b: {**log_probs_alone(), PAIR[0]: -np.ones((ROWS, 1, 1))}, (PAIR[0], "(6, 1, 1)")),
    "alone, scalar": (lambda b: {**log_probs_alone(), PAIR[0]: -1.0}, (PAIR[0], "()")),
}


@pytest.fixture(scope="module")
def trainer():
    return make(chooser())


@pytest.mark.parametrize("name", BAD)
def test_a_bad_batch_is_refused(name, trainer):
    spoil, words = BAD[name]
    assert_refused(trainer, spoil(choices()), *words)


def test_bad_batches_of_sequences_are_refused():
    trainer, batch = make(writer(), writer(1)), sequences()
    bare = without(batch, "chosen_lengths", "rejected_lengths")
    mask = np.ones((ROWS, TOKENS))
    assert_refused(trainer, {**batch, "chosen_lengths": np.full(ROWS, 4)}, "chosen_lengths", "4", "0 to 3")
    assert_refused(trainer, {**batch, "rejected_lengths": np.zeros(ROWS, int)}, "rejected_mask", "at least one")
    assert_refused(trainer, {**batch, "rejected_lengths": np.arange(ROWS) % 3}, "rejected_lengths", "0", "at least 1")
    assert_refused(trainer, {**batch, "chosen_mask": mask}, "chosen_lengths", "chosen_mask")
    assert_refused(trainer, {**bare, "chosen_mask": mask[:, :2]}, "chosen_mask", "(6, 2)", "(6, 3)")
    assert_refused(trainer, {**bare, "chosen_mask": mask / 2}, "chosen_mask", "0 and 1", "flags")
    references = {name: -np.ones(ROWS) for name in REFERENCES}
    assert_refused(trainer, {**batch, **references}, REFERENCES[0], "reference_model")


def test_a_refused_batch_is_the_same_error_in_fit(trainer):
    before = snapshot(trainer)
    with pytest.raises(ValueError, match="reference_model"):
        trainer.fit(without(choices(), *REFERENCES), steps=3)
    assert snapshot(trainer) == before
