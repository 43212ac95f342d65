"""Autoregressive models: what is scored, what is read, what is written, and that it is learnt."""

from __future__ import annotations

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from hypothesis import given
from hypothesis import strategies as st
from refusals import assert_refused, snapshot
from scipy.special import log_softmax

from artifex_rl import GRPOConfig, GRPOTrainer, PPOTrainer, REINFORCETrainer, SequencePolicy
from artifex_rl.data import load_words, word_vocabulary
from artifex_rl.data.words import MAX_TOKENS
from artifex_rl.generative.sequences import (
    compute_teacher_forcing,
    compute_token_cross_entropy,
    mix_tokens,
    restrict_logits,
    write_responses,
)
from artifex_rl.models import GRU
from artifex_rl.trainers import AutoregressiveConfig, AutoregressiveTrainer

OUTPUTS, TOKENS = 5, 7  # five tokens may be written; 5 and 6 are prompts


class Chain(nnx.Module):
    """The next token depends on the last one alone: a table of logits. No steps."""

    def __init__(self, table):
        self.table = nnx.Param(jnp.asarray(table, jnp.float32))

    def __call__(self, tokens):
        return self.table[...][tokens]


class Rereads(nnx.Module):
    """A GRU without its steps, with a value beside its logits."""

    def __init__(self, network):
        self.network = network

    def __call__(self, tokens):
        return self.network(tokens), jnp.zeros(tokens.shape)


class Restless(nnx.Module):
    """A chain with what misbehaves in a scan: dropout and batch statistics."""

    def __init__(self, seed=0):
        rngs = nnx.Rngs(seed)
        self.embed, self.norm = nnx.Embed(TOKENS, 8, rngs=rngs), nnx.BatchNorm(8, rngs=rngs)
        self.dropout, self.out = nnx.Dropout(0.3, rngs=rngs), nnx.Linear(8, OUTPUTS, rngs=rngs)

    def __call__(self, tokens):
        return self.out(self.dropout(self.norm(self.embed(tokens))))


def make(network=None, learning_rate=1e-2, key=0, **settings):
    network = GRU(TOKENS, 12, OUTPUTS, embed_features=4, rngs=nnx.Rngs(0)) if network is None else network
    optimizer = nnx.Optimizer(network, optax.adam(learning_rate), wrt=nnx.Param)
    return AutoregressiveTrainer(network, optimizer, AutoregressiveConfig(**settings), key=key)


def batch(rows=6, length=4, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "prompts": rng.integers(OUTPUTS, TOKENS, (rows, 1)).astype(np.int32),
        "tokens": rng.integers(0, OUTPUTS, (rows, length)).astype(np.int32),
        "lengths": rng.integers(1, length + 1, rows).astype(np.int32),
    }


def random_table(seed=0, size=TOKENS):
    return np.random.default_rng(seed).normal(size=(size, OUTPUTS)).astype(np.float32) * 2


ADDS_ONE = 50.0 * np.eye(OUTPUTS)[(np.arange(TOKENS) + 1) % OUTPUTS]  # 0 → 1 → 2 → 3 → 4 → 0, for certain


# Scoring


@pytest.mark.slow
@given(st.integers(0, 2**31), st.floats(0, 0.99))
def test_cross_entropy_is_optax_s_with_smoothed_labels(seed, smoothing):
    rng = np.random.default_rng(seed)
    logits, targets = rng.normal(size=(3, 4, 6)).astype(np.float32) * 3, rng.integers(0, 6, (3, 4)).astype(np.int32)
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        labels = optax.smooth_labels(jax.nn.one_hot(targets, 6), smoothing)
        wanted = optax.softmax_cross_entropy(logits, labels)
    np.testing.assert_allclose(compute_token_cross_entropy(logits, targets, smoothing), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_smoothing_by_hand_and_its_floor():
    """With p = (½, ¼, ¼): (1 − ε) ln 2 + ε/3 · ln 32. The least possible is the entropy of the smoothed target."""
    logits, targets = jnp.log(jnp.array([[0.5, 0.25, 0.25]])), jnp.array([0])
    wanted = 0.7 * np.log(2) + 0.1 * np.log(32)
    np.testing.assert_allclose(compute_token_cross_entropy(logits, targets, 0.3), [wanted], rtol=1e-6)
    np.testing.assert_allclose(compute_token_cross_entropy(logits, targets), [np.log(2)], rtol=1e-6)
    smoothed = np.array([[0.8, 0.1, 0.1]], np.float32)
    gradient = jax.grad(lambda x: compute_token_cross_entropy(x, targets, 0.3)[0])(jnp.log(smoothed))
    np.testing.assert_allclose(gradient, 0, atol=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_a_token_that_is_impossible_costs_nothing_and_has_no_gradient(smoothing):
    logits, targets = jnp.array([[0.0, -jnp.inf, 1.0]]), jnp.array([2])
    loss, gradient = jax.value_and_grad(lambda x: compute_token_cross_entropy(x, targets, smoothing)[0])(logits)
    without = compute_token_cross_entropy(jnp.array([[0.0, 1.0]]), jnp.array([1]), smoothing)[0]
    np.testing.assert_allclose(loss, without, rtol=1e-6)
    assert np.isfinite(gradient).all() and gradient[0, 1] == 0


# Teacher forcing


def test_schedules_at_named_points():
    def at(schedule, *steps, k=100.0, minimum=0.0):
        return [float(compute_teacher_forcing(step, schedule, k, minimum)) for step in steps]

    assert at("none", 0, 10**6) == [1, 1]
    np.testing.assert_allclose(at("linear", 0, 25, 50, 100, 200), [1, 0.75, 0.5, 0, 0], atol=1e-6)
    np.testing.assert_allclose(at("exponential", 0, 100, 300), np.exp([0, -1, -3]), rtol=1e-5)
    half = 100 * np.log(100)  # k ln k
    np.testing.assert_allclose(at("inverse_sigmoid", 0, half, 10**6), [100 / 101, 0.5, 0], atol=1e-5)
    for step in (17, 300, 700):  # Bengio et al., as they write it
        np.testing.assert_allclose(at("inverse_sigmoid", step)[0], 100 / (100 + np.exp(step / 100)), rtol=1e-4)
        np.testing.assert_allclose(at("exponential", step, k=50.0)[0], np.exp(-1 / 50) ** step, rtol=1e-4)
    for schedule in ("linear", "exponential", "inverse_sigmoid"):
        assert at(schedule, 10**7, minimum=0.3) == [pytest.approx(0.3)]
    with pytest.raises(ValueError, match="schedule: got 'cosine', needs 'none', 'linear', 'exponential' or"):
        compute_teacher_forcing(0, "cosine")


@pytest.mark.slow
@pytest.mark.parametrize("kind", [lambda network: network, Rereads])
def test_with_a_perfect_teacher_tokens_are_true_and_without_one_they_are_the_networks_own(kind):
    """With steps and without: the draw with a key is what `write_responses` draws with it."""
    given, prompts = batch(8, 6)["tokens"], np.tile([[6, 5]], (8, 1)).astype(np.int32)
    network, key = kind(make().model), jax.random.key(0)
    mix = jax.jit(lambda forcing: mix_tokens(network, prompts, given, forcing, key))
    np.testing.assert_array_equal(mix(1.0), given)
    written = jax.jit(SequencePolicy(network, 6).sample)(prompts, jax.random.split(key)[1])[0]
    np.testing.assert_array_equal(mix(0.0), written)


def test_a_draw_follows_from_the_mixed_tokens_before_it():
    """The chain adds one. True tokens are all 0: what is no 0 by a coin must be one more than its left neighbour."""
    true, prompts = np.zeros((4000, 5), np.int32), np.full((4000, 1), 3, np.int32)
    mixed = np.asarray(jax.jit(mix_tokens, static_argnums=0)(Chain(ADDS_ONE), prompts, true, 0.6, jax.random.key(0)))
    before = np.concatenate([prompts, mixed[:, :-1]], axis=1)
    follows = mixed == (before + 1) % OUTPUTS
    assert (follows | (mixed == 0)).all()
    drawn = (follows & (before != 4)).sum() / (before != 4).sum()  # where both would be 0, nobody can tell
    assert abs(drawn - 0.4) < 0.02
    assert abs((mixed[:, 0] == 4).mean() - 0.4) < 0.03  # one more than the prompt, which is read first


# Writing


restrict = jax.jit(restrict_logits)


@pytest.mark.slow
def test_a_top_p_of_1_changes_no_bit():
    """Though the probabilities, summed in float32, come to 1 before their end, and to more than 1 behind it."""
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(500, 300)).astype(np.float32) * 4)
    np.testing.assert_array_equal(restrict(logits, 1.0, 300, 1.0), logits)
    np.testing.assert_array_equal(restrict_logits(logits, 1.0), logits)


@given(st.integers(0, 2**31), st.floats(0.05, 0.999), st.integers(1, 12), st.floats(0.2, 3))
def test_what_stays_is_what_a_loop_finds(seed, top_p, top_k, temperature):
    logits = np.random.default_rng(seed).normal(size=12) * 2
    scaled = logits / temperature
    order = np.argsort(-scaled)[:top_k]
    probs = np.exp(scaled[order] - scaled[order].max())
    probs, stays, total = probs / probs.sum(), [], 0.0
    for token, p in zip(order, probs, strict=True):
        stays.append(token)
        total += p
        if total >= top_p:
            break
    if abs(total - top_p) < 1e-5 or abs(total - p - top_p) < 1e-5:
        return  # rounding decides
    got = np.asarray(restrict(jnp.asarray(logits, jnp.float32), temperature, top_k, top_p))
    assert {*np.flatnonzero(np.isfinite(got))} == {*map(int, stays)}
    np.testing.assert_allclose(got[stays], scaled[stays], rtol=1e-4, atol=1e-5)


def test_equals_are_kept_in_order_and_one_always_stays():
    logits = jnp.array([[1.0, 2.0, 2.0, 2.0], [0.0, 0.0, 0.0, 0.0]])

    def stay(temperature, top_k=4, top_p=1.0):
        return np.isfinite(restrict(logits, temperature, top_k, top_p)).astype(int).tolist()

    assert stay(1.0, 2) == [[0, 1, 1, 0], [1, 1, 0, 0]]
    assert stay(0.0) == stay(1.0, 1) == stay(1.0, 4, 1e-6) == [[0, 1, 0, 0], [1, 0, 0, 0]]
    assert stay(1.0, 4, 0.5) == [[0, 1, 1, 0], [1, 1, 0, 0]]
    assert stay(0.0, 3, 0.9) == stay(0.0)


@pytest.mark.slow
def test_frequencies_are_those_of_the_restricted_distribution():
    table = np.tile(np.log([0.4, 0.3, 0.15, 0.1, 0.05]), (TOKENS, 1))
    trainer = make(Chain(table), max_length=50)
    written = trainer.generate(np.full((400, 1), 6), jax.random.key(0), top_p=0.6)
    frequencies = np.bincount(np.ravel(written.tokens), minlength=OUTPUTS) / written.tokens.size
    np.testing.assert_allclose(frequencies, [4 / 7, 3 / 7, 0, 0, 0], atol=0.01)
    np.testing.assert_allclose(written.log_probs, np.log([4 / 7, 3 / 7])[np.asarray(written.tokens)], rtol=1e-5)
    hot = trainer.generate(np.full((400, 1), 6), jax.random.key(0), temperature=2.0)
    wanted = np.sqrt([0.4, 0.3, 0.15, 0.1, 0.05])
    np.testing.assert_allclose(np.bincount(np.ravel(hot.tokens)) / hot.tokens.size, wanted / wanted.sum(), atol=0.01)


@pytest.fixture(scope="module")
def writer():
    """A GRU with some opinion, which ends what it writes with 0 and pads with 4."""
    trainer = make(max_length=9, eos_id=0, pad_id=4)
    trainer.model.outputs.kernel[...] = 4 * trainer.model.outputs.kernel[...]
    return trainer


PROMPTS = np.tile([[6, 2], [5, 1]], (40, 1))


@pytest.mark.slow
@pytest.mark.parametrize("prompts", [PROMPTS, PROMPTS[:7, :1]])
def test_generate_is_the_policy_s_sample_and_its_log_probs_are_those_of_scoring(writer, prompts):
    tokens, log_probs, mask = writer.generate(prompts, jax.random.key(3))
    drawn = jax.jit(writer.policy().sample_masked)(prompts, jax.random.key(3))
    for got, wanted in zip((tokens, log_probs, mask), drawn, strict=True):
        np.testing.assert_allclose(got, wanted, atol=1e-5)
    scored = jax.jit(SequencePolicy(writer.model, 9).evaluate)(prompts, tokens, mask)
    np.testing.assert_allclose(log_probs, scored.log_probs, atol=1e-5)


def test_what_is_written_ends_with_the_end(writer):
    tokens, log_probs, mask = map(np.asarray, writer.generate(PROMPTS, jax.random.key(3)))
    lengths = mask.sum(axis=1)
    assert {*lengths} > {1, 9} and (mask == (np.arange(9) < lengths[:, None])).all()
    ended = tokens[np.arange(80), lengths - 1] == 0
    assert (ended | (lengths == 9)).all() and ((tokens == 0) & mask).sum() == ended.sum()
    assert (tokens[~mask] == 4).all() and (log_probs[~mask] == 0).all() and (log_probs[mask] < 0).all()


def test_shorter_ones_are_the_beginnings_and_nothing_is_compiled_again(writer):
    longest = writer.generate(PROMPTS, jax.random.key(3))
    compiled = writer._compiled_call._cache_size()
    for length in (1, 4, 9):
        for got, wanted in zip(writer.generate(PROMPTS, jax.random.key(3), length), longest, strict=True):
            np.testing.assert_array_equal(got, wanted[:, :length])
    for options in ({"temperature": 0}, {"temperature": 0.7}, {"top_k": 10**12}, {"top_k": 3}, {"top_p": 0.5}):
        writer.generate(PROMPTS, jax.random.key(4), 5, **options)
    assert writer._compiled_call._cache_size() == compiled


def test_greedy_takes_the_likeliest_of_all_each_time(writer):
    tokens, log_probs, mask = writer.generate(PROMPTS, jax.random.key(0), temperature=0.0)
    likeliest = jnp.argmax(jax.jit(writer.model)(jnp.concatenate([PROMPTS, tokens], axis=1)), axis=-1)[:, 1:-1]
    np.testing.assert_array_equal(tokens[mask], likeliest[mask])
    np.testing.assert_array_equal(log_probs, 0)  # nothing is left to chance
    for same in ({"top_k": 1}, {"top_p": 1e-6}):
        np.testing.assert_array_equal(writer.generate(PROMPTS, jax.random.key(9), **same).tokens, tokens)


@pytest.mark.slow
def test_a_sample_is_what_is_written_behind_a_label(writer):
    labels = np.array([5, 6, 6])
    same = writer.generate(labels[:, None], jax.random.key(1), temperature=0.5, top_k=3).tokens
    np.testing.assert_array_equal(writer.sample(3, jax.random.key(1), labels, temperature=0.5, top_k=3), same)
    assert writer.sample(2, jax.random.key(1), 5).shape == (2, 9)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda t: t.generate(PROMPTS, jax.random.key(0), 10), "length: got 10, needs an integer from 1 to max_len"),
        (lambda t: t.generate(PROMPTS, jax.random.key(0), 0), "length: got 0"),
        (lambda t: t.generate(PROMPTS, jax.random.key(0), temperature=-1), "temperature: got -1, needs a number of"),
        (lambda t: t.generate(PROMPTS, jax.random.key(0), top_k=0), "top_k: got 0, needs an integer of at least 1"),
        (lambda t: t.generate(PROMPTS, jax.random.key(0), top_p=0.0), "top_p: got 0.0, needs a number of more than"),
        (lambda t: t.generate(PROMPTS[0], jax.random.key(0)), r"prompts: got int64 of shape \(2,\), needs integers"),
        (lambda t: t.generate(PROMPTS * 1.0, jax.random.key(0)), "prompts: got float64"),
        (lambda t: t.generate(PROMPTS - 6, jax.random.key(0)), "prompts: got -5, needs tokens"),
        (
            lambda t: t.generate(PROMPTS + 90, jax.random.key(0)),
            "prompts: got tokens up to 96, needs such that",
        ),
        (lambda t: t.generate(PROMPTS[:, :0], jax.random.key(0)), r"prompts: .* shape \(80, 0\)"),
        (lambda t: t.sample(3, jax.random.key(0)), "labels: got None, needs the token"),
        (lambda t: t.sample(3, jax.random.key(0), -1), "labels: got -1"),
        (lambda t: t.sample(3, jax.random.key(0), 5, top_p=2.0), "top_p: got 2.0"),
    ],
)
def test_arguments_of_writing_are_refused_by_name(writer, call, message):
    with pytest.raises(ValueError, match=message):
        call(writer)


# Training


def nats(table, prompts, tokens):
    """−log p of each token of a chain, in float64."""
    before = np.concatenate([prompts[:, -1:], tokens[:, :-1]], axis=1)
    return -np.take_along_axis(log_softmax(np.float64(table)[before], axis=-1), tokens[..., None], axis=-1)[..., 0]


def test_metrics_by_hand():
    table, given = random_table(), batch(9)
    trainer = make(Chain(table), label_smoothing=0.1)
    mask = np.arange(4) < given["lengths"][:, None]
    of_each = nats(table, given["prompts"], given["tokens"])[mask]
    before = np.concatenate([given["prompts"], given["tokens"][:, :-1]], axis=1)
    everywhere = -log_softmax(np.float64(table)[before], axis=-1).mean(axis=-1)[mask]
    right = (table[before].argmax(axis=-1) == given["tokens"])[mask]
    metrics = trainer.evaluate(given)
    np.testing.assert_allclose(metrics["nats_per_token"], of_each.mean(), rtol=1e-5)
    np.testing.assert_allclose(metrics["bits_per_token"], of_each.mean() / np.log(2), rtol=1e-5)
    np.testing.assert_allclose(metrics["perplexity"], np.exp(of_each.mean()), rtol=1e-5)
    np.testing.assert_allclose(metrics["accuracy"], right.mean(), rtol=1e-5)
    np.testing.assert_allclose(metrics["loss"], (0.9 * of_each + 0.1 * everywhere).mean(), rtol=1e-5)
    assert metrics["teacher_forcing"] == 1


def test_the_loss_is_the_policy_s_own_log_probs():
    trainer, given = make(), batch(9)
    mask = np.arange(4) < given["lengths"][:, None]
    log_probs = jax.jit(trainer.policy().evaluate)(given["prompts"], given["tokens"], mask).log_probs
    np.testing.assert_allclose(trainer.evaluate(given)["loss"], -float(log_probs.sum()) / mask.sum(), rtol=1e-5)


def test_a_mask_is_lengths_and_without_prompts_the_first_token_is_one():
    given = batch(9)
    mask = np.arange(4) < given["lengths"][:, None]
    whole = np.concatenate([given["prompts"], given["tokens"]], axis=1)
    ways = [
        given,
        {"observations": given["prompts"], "tokens": given["tokens"], "mask": mask.astype(np.float32)},
        {"input_ids": whole, "lengths": given["lengths"] + 1},
        {"input_ids": whole.astype(np.int64), "mask": np.insert(mask, 0, False, axis=1)},
    ]
    trainer = make(Chain(random_table()))
    first, *others = map(trainer.evaluate, ways)
    assert others == [first] * 3  # as the first token 5 and 6 may stand, for which there are no logits


@pytest.mark.slow
def test_behind_the_end_may_stand_anything():
    """Not even a NaN, which a token that does not exist gives, gets through to the gradient."""
    given = batch(9)
    behind = np.arange(4) >= given["lengths"][:, None]
    untrained, runs = make(), []
    for junk in (3, 10**6, -100):
        trainer = untrained.clone()
        metrics = trainer.train_step({**given, "tokens": np.where(behind, np.int32(junk), given["tokens"])})
        runs.append((metrics, snapshot(trainer)))
    assert runs[0] == runs[1] == runs[2]


def test_a_mask_with_holes_takes_tokens_from_the_loss_and_not_from_what_is_read():
    table, given = random_table(), batch(9)
    mask = np.tile([False, True, False, True], (9, 1))
    metrics = make(Chain(table)).evaluate({"prompts": given["prompts"], "tokens": given["tokens"], "mask": mask})
    wanted = nats(table, given["prompts"], given["tokens"])[mask].mean()
    np.testing.assert_allclose(metrics["loss"], wanted, rtol=1e-5)


def test_with_scheduled_sampling_it_reads_its_own_draws_and_foretells_the_truth():
    """A chain that adds one reads 1 2 3 behind the prompt 5 or 6, whatever is true, once the teacher is gone."""
    table = np.float32(ADDS_ONE) + random_table()
    trainer = make(Chain(table), learning_rate=0.0, scheduled_sampling="linear", decay_steps=2.0)
    given = {"prompts": np.array([[4], [4]], np.int32), "tokens": np.array([[3, 2, 2, 4], [0, 0, 1, 1]], np.int32)}
    seen = [trainer.train_step(given) for _ in range(3)]
    assert [metrics["teacher_forcing"] for metrics in seen] == [1, 0.5, 0]
    np.testing.assert_allclose(seen[0]["loss"], nats(table, given["prompts"], given["tokens"]).mean(), rtol=1e-5)
    read = np.array([[4, 0, 1, 2]] * 2)
    wanted = -np.take_along_axis(log_softmax(np.float64(table)[read], axis=-1), given["tokens"][..., None], axis=-1)
    np.testing.assert_allclose(seen[2]["loss"], wanted.mean(), rtol=1e-5)
    assert trainer.evaluate(given)["loss"] == pytest.approx(seen[0]["loss"])


@pytest.mark.slow
def test_settings_are_changed_without_compiling():
    trainer = make(scheduled_sampling="exponential")
    trainer.train_step(batch())
    for changes in ({"label_smoothing": 0.2}, {"decay_steps": 3.0}, {"min_teacher_forcing": 0.5}):
        trainer.config = dataclasses.replace(trainer.config, **changes)
        before = trainer.train_step(batch())
    assert before["teacher_forcing"] == pytest.approx(0.5) and before["loss"] > before["nats_per_token"]
    assert trainer._compiled_step._cache_size() == 1


@pytest.mark.slow
@pytest.mark.parametrize("schedule", ["none", "linear"])
def test_dropout_batch_statistics_and_odd_batches(schedule):
    trainer = make(Restless(), scheduled_sampling=schedule, decay_steps=1.0)
    for rows in (1, 7):
        mean = np.asarray(trainer.model.norm.mean[...])
        trainer.train_step(batch(rows))
        assert (trainer.model.norm.mean[...] != mean).any()
    before = snapshot(trainer)
    assert trainer.evaluate(batch(7)) == trainer.evaluate(batch(7))
    trainer.generate(PROMPTS, jax.random.key(0), 5)
    assert snapshot(trainer) == before


@pytest.mark.slow
def test_a_resumed_run_is_the_run_to_the_bit(tmp_path):
    trainer = make(Restless(), key=5, scheduled_sampling="linear", decay_steps=5.0, label_smoothing=0.1)
    twin = trainer.clone()
    trainer.fit(batch(12), steps=3, batch_size=4, steps_per_call=1)
    trainer.save(tmp_path / "run")
    saved = snapshot(trainer)
    trainer.fit(batch(12), steps=3, batch_size=4, steps_per_call=1)
    assert snapshot(twin) != saved != snapshot(trainer)
    twin.restore(tmp_path / "run")
    assert snapshot(twin) == saved
    twin.fit(batch(12), steps=3, batch_size=4, steps_per_call=1)
    assert snapshot(twin) == snapshot(trainer)


def without(*names, **more):
    return {key: value for key, value in batch().items() if key not in names} | more


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (without("tokens"), ("tokens", "input_ids")),
        (without(tokens=np.zeros((6, 4), np.float32)), ("tokens", "float32", "integers")),
        (without(tokens=np.zeros(6, np.int32)), ("tokens", "(6,)")),
        (without("lengths", tokens=np.zeros((6, 0), np.int32)), ("tokens", "(6, 0)")),
        (without(tokens=np.full((6, 4), 5), lengths=np.full(6, 4)), ("tokens", "5 to 5", "0 to 4")),
        (without(tokens=np.full((6, 4), -1), lengths=np.full(6, 4)), ("tokens", "-1 to -1", "0 to 4")),
        (without(lengths=np.full(6, 5)), ("lengths", "5", "0 to 4")),
        (without(lengths=np.zeros(6, int)), ("mask", "at least one")),
        (without("lengths", mask=np.ones((6, 3))), ("mask", "(6, 3)", "(6, 4)")),
        (without("lengths", mask=np.full((6, 4), 0.5)), ("mask", "flags")),
        (without(mask=np.ones((6, 4))), ("lengths", "mask")),
        (without(prompts=np.zeros((5, 1), int)), ("observations", "(5, 1)", "6")),
        (without(prompts=np.zeros((6, 1))), ("observations", "float32", "integers")),
        (without(prompts=np.full((6, 1), -2)), ("observations", "-2")),
        (without("prompts", tokens=np.zeros((6, 1), int), lengths=np.ones(6, int)), ("tokens", "(6, 1)", "first")),
        (without("prompts", lengths=np.ones(6, int)), ("tokens", "first")),
    ],
)
def test_bad_batches_are_refused_and_nothing_changes(writer, bad, words):
    assert_refused(writer, bad, *words)


@pytest.mark.slow
def test_numbers_are_looked_at_in_every_batch_of_a_form():
    trainer, given = make(), without("lengths")
    trainer.train_step(given)
    assert_refused(trainer, {**given, "tokens": given["tokens"] + OUTPUTS}, "tokens", "0 to 4")
    assert_refused(trainer, {**given, "prompts": given["prompts"] - 9}, "observations", "at least 0")


def test_a_network_that_foretells_no_token_is_refused():
    class Last(Chain):
        def __call__(self, tokens):
            return super().__call__(tokens)[:, -1]

    class Mute(Chain):
        def __call__(self, tokens):
            return tokens

    for network in (Last, Mute):
        assert_refused(make(network(random_table())), batch(), "observations", "tokens", "cannot read")


def test_a_token_that_the_network_cannot_read_is_found_by_its_loss():
    trainer = make()
    assert_refused(trainer, without(prompts=np.full((6, 1), 99)), "loss", "nan", error=FloatingPointError)


class WithValues(Chain):
    """A chain and a critic that knows the last token."""

    def __init__(self, table):
        super().__init__(table)
        self.value = nnx.Embed(TOKENS, 1, rngs=nnx.Rngs(0))

    def __call__(self, tokens):
        return super().__call__(tokens), self.value(tokens)[..., 0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "config"),
    [
        (GRPOTrainer, GRPOConfig(num_generations=16)),
        pytest.param(REINFORCETrainer, None, marks=pytest.mark.slow),
        pytest.param(PPOTrainer, None, marks=pytest.mark.slow),
    ],
)
def test_every_rl_trainer_raises_the_reward_of_what_it_has_trained(kind, config):
    network = (WithValues if kind is PPOTrainer else Chain)(random_table() / 4)
    trainer = make(network, max_length=4)
    policy = trainer.policy()
    tuner = kind(policy, nnx.Optimizer(policy, optax.adam(0.1), wrt=nnx.Param), config)
    prompts = np.repeat(np.array([[5], [6]], np.int32), 4 if kind is GRPOTrainer else 64, axis=0)

    def threes(samples, conditions):
        return (np.asarray(samples) == 3).mean(axis=1)

    rewards = [tuner.train_step({"prompts": prompts}, threes, jax.random.key(i))["mean_reward"] for i in range(25)]
    assert rewards[0] < 0.35 and np.mean(rewards[-3:]) > 0.75
    assert (trainer.generate(prompts, jax.random.key(0)).tokens == 3).mean() > 0.75  # it is the same network


# Learning


@pytest.mark.slow
def test_it_learns_a_chain_down_to_its_entropy():
    """No model can do with fewer bits than the entropy rate of what wrote the data."""
    table = random_table(1)
    source = jax.jit(lambda key: write_responses(Chain(table), jnp.full((3000, 1), 6), key, 16))(jax.random.key(0))
    transitions = np.exp(log_softmax(np.float64(table), axis=-1))
    entropies = -(transitions * np.log2(transitions)).sum(axis=-1)  # of what follows each token
    where, rates = np.eye(TOKENS)[6], []
    for _ in range(16):
        rates.append(where @ entropies)
        where = np.append(where @ transitions, [0.0, 0.0])  # the two prompts are never written
    rate = np.mean(rates)
    trainer = make(learning_rate=1e-2)
    data = {"prompts": np.full((3000, 1), 6, np.int32), "tokens": np.asarray(source.tokens)}
    untrained = trainer.evaluate(data)["bits_per_token"]
    trainer.fit(data, 200, batch_size=64)
    learnt = trainer.evaluate(data)["bits_per_token"]
    assert rate - 0.03 < learnt < rate + 0.06 < untrained - 0.3


@pytest.mark.slow
def test_a_gru_learns_to_write_english_words():
    vocabulary, words = word_vocabulary(), load_words("en")
    tokens, lengths = vocabulary.encode(words.train, MAX_TOKENS)
    prompts = vocabulary.prompt(itertools.repeat("en", len(tokens)))
    network = GRU(vocabulary.num_tokens, 128, vocabulary.num_outputs, rngs=nnx.Rngs(0))
    trainer = make(network, optax.cosine_decay_schedule(5e-3, 2000), max_length=MAX_TOKENS, eos_id=vocabulary.eos_id)

    def real(**options):
        written = trainer.generate(prompts[:2000], jax.random.key(1), **options)
        return np.mean([word in known for word in vocabulary.decode(written.tokens, written.mask)])

    known = {*words.train, *words.heldout}
    assert real() < 0.01
    trainer.fit({"prompts": prompts, "tokens": tokens, "lengths": lengths}, 2000, batch_size=128)
    assert real() >= 0.2
    assert real(temperature=0.5) > real(top_p=0.9) > real()  # likelier words are real ones more often
    tokens, lengths = vocabulary.encode(words.heldout, MAX_TOKENS)
    heldout = trainer.evaluate({"prompts": prompts[: len(tokens)], "tokens": tokens, "lengths": lengths})
    assert heldout["bits_per_token"] < 3.1  # a uniform guess takes 5.2
