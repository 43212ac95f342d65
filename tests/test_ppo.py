"""PPO: one step against an independent one, minibatches that lose nothing, and every metric against its formula."""

from __future__ import annotations

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from refusals import assert_refused

from artifex_rl import DiagonalGaussian, PPOConfig, PPOTrainer, SequencePolicy, compute_gae_advantages
from artifex_rl.envs import CartPole
from artifex_rl.models import ActorCritic
from artifex_rl.rl.onpolicy import (
    collect_trajectory,
    cut_evenly,
    episode_returns,
    explained_variance,
    response_as_episode,
)


def slow(*arguments):
    return pytest.param(*arguments, marks=pytest.mark.slow)


ACTIONS, FEATURES, STEPS = 3, 4, 12
ONE_STEP = PPOConfig(num_epochs=1, num_minibatches=1)
SGD, ADAM = optax.sgd(1.0), optax.adam(0.02)
#: Adds up gradients and leaves the parameters where they are.
RECORDER = optax.chain(optax.trace(decay=1.0), optax.scale(0.0))
RECORD = dataclasses.replace(ONE_STEP, max_grad_norm=None, normalize_advantages=False)


def make_actor_critic(rngs):
    model = ActorCritic(FEATURES, (8,), ACTIONS, rngs=rngs)
    model.actor.layers.layers[-1].kernel[...] *= 100.0  # a policy with preferences
    return model


def make_trainer(config=ONE_STEP, transform=SGD, cls=PPOTrainer, model_class=make_actor_critic):
    """A trainer in its first state. Those that differ in numbers alone are one, so that it is compiled once."""
    kind = jax.tree.structure(config), transform, cls, model_class
    if kind not in TRAINERS:
        model = model_class(nnx.Rngs(0))
        trainer = cls(model, nnx.Optimizer(model, transform, wrt=nnx.Param), config)
        TRAINERS[kind] = trainer, jax.tree.map(jnp.copy, trainer.state)
    trainer, state = TRAINERS[kind]
    trainer.state, trainer.config = state, config
    return trainer


TRAINERS = {}


def make_batch(*shape, seed=0, **changes):
    """Experience with two episodes in each stream; log-probs and values of some other policy."""
    shape = shape or (STEPS,)
    rng = np.random.default_rng(seed)
    dones = np.zeros(shape, bool)
    dones[[len(dones) // 3, -1]] = True
    batch = {
        "observations": rng.normal(size=(*shape, FEATURES)),
        "actions": rng.integers(0, ACTIONS, shape),
        "rewards": rng.normal(size=shape),
        "values": rng.normal(size=shape),
        "log_probs": rng.uniform(-1.8, -0.5, shape),
        "dones": dones,
    }
    return batch | changes


def params_of(trainer):
    return nnx.to_pure_dict(nnx.state(trainer.model, nnx.Param))


def apply_net(net, x):
    layers = net["layers"]["layers"]
    first, last = layers[0], layers[2]
    return jnp.tanh(x @ first["kernel"] + first["bias"][None]) @ last["kernel"] + last["bias"][None]


def reference_gae(batch, gamma=0.99, lam=0.95):
    """GAE as the double sum of the definition, in float64: no recursion, no scan."""
    rewards, values, dones = (np.asarray(batch[k], np.float64) for k in ("rewards", "values", "dones"))
    following = np.append(values[1:], 0.0) * (1 - dones)
    deltas = rewards + gamma * following - values
    advantages = np.zeros_like(deltas)
    for t in range(len(deltas)):
        for k in range(t, len(deltas)):
            advantages[t] += (gamma * lam) ** (k - t) * deltas[k]
            if dones[k]:
                break
    return advantages


def reference_loss(params, batch, clip=0.2, vf=0.5, ent=0.01):
    """Equations 7 and 9 of the paper, from scratch."""
    observations, actions = jnp.asarray(batch["observations"], jnp.float32), jnp.asarray(batch["actions"])
    advantages = reference_gae(batch)
    returns = jnp.asarray(advantages + batch["values"], jnp.float32)
    advantages = jnp.asarray((advantages - advantages.mean()) / advantages.std(), jnp.float32)
    logits = apply_net(params["actor"], observations)
    log_p = logits - jax.nn.logsumexp(logits, axis=1, keepdims=True)
    ratio = jnp.exp(log_p[jnp.arange(len(actions)), actions] - jnp.asarray(batch["log_probs"], jnp.float32))
    surrogate = jnp.minimum(ratio * advantages, jnp.clip(ratio, 1 - clip, 1 + clip) * advantages)
    value_loss = 0.5 * jnp.mean((apply_net(params["critic"], observations)[:, 0] - returns) ** 2)
    entropy = -jnp.mean(jnp.sum(jnp.exp(log_p) * log_p, axis=1))
    return -jnp.mean(surrogate) + vf * value_loss - ent * entropy


def on_policy(trainer, batch):
    """The batch with the log-probabilities of the trainer's own policy."""
    logits, _ = trainer.model(jnp.asarray(batch["observations"], jnp.float32))
    return batch | {"log_probs": np.asarray(jax.nn.log_softmax(logits))[np.arange(STEPS), batch["actions"]]}


@pytest.mark.parametrize("epochs", [1, slow(3)])
def test_a_step_is_that_of_an_independent_ppo(epochs):
    # No minibatches: an epoch is one step along the whole batch's gradient, whatever the permutation.
    trainer, batch = make_trainer(dataclasses.replace(ONE_STEP, num_epochs=epochs), ADAM), make_batch()
    params = params_of(trainer)
    transform = optax.chain(optax.clip_by_global_norm(0.5), optax.adam(0.02))
    loss_and_grads = jax.jit(lambda params: jax.value_and_grad(reference_loss)(params, batch))
    state, losses = transform.init(params), []
    with jax.numpy_dtype_promotion("standard"):
        for _ in range(epochs):
            loss, grads = loss_and_grads(params)
            updates, state = transform.update(grads, state)
            params = optax.apply_updates(params, updates)
            losses.append(loss)
    metrics = trainer.train_step(batch)
    assert metrics["loss"] == pytest.approx(np.mean(losses), rel=1e-5)
    assert_trees_close(params_of(trainer), params, atol=5e-6)


def test_every_metric_is_its_formula():
    trainer, batch = make_trainer(dataclasses.replace(ONE_STEP, clip_param=0.3, clip_param_high=0.4)), make_batch()
    params = params_of(trainer)
    logits = np.asarray(apply_net(params["actor"], jnp.asarray(batch["observations"], jnp.float32)), np.float64)
    values = np.asarray(apply_net(params["critic"], jnp.asarray(batch["observations"], jnp.float32)))[:, 0]
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    log_ratio = log_p[np.arange(STEPS), batch["actions"]] - batch["log_probs"]
    ratio, advantages = np.exp(log_ratio), reference_gae(batch)
    returns, normal = advantages + batch["values"], (advantages - advantages.mean()) / advantages.std()
    expected = {
        "policy_loss": -np.minimum(ratio * normal, np.clip(ratio, 0.7, 1.4) * normal).mean(),
        "value_loss": 0.5 * ((values - returns) ** 2).mean(),
        "entropy": -(np.exp(log_p) * log_p).sum(1).mean(),
        "mean_reward": batch["rewards"].mean(),
        "advantage_mean": advantages.mean(),
        "explained_variance": 1 - (returns - batch["values"]).var() / returns.var(),
        "kl_divergence": -log_ratio.mean(),
        "approx_kl": (ratio - 1 - log_ratio).mean(),
        "clip_fraction": ((ratio < 0.7) | (ratio > 1.4)).mean(),
    }
    expected["loss"] = expected["policy_loss"] + 0.5 * expected["value_loss"] - 0.01 * expected["entropy"]
    assert 0 < expected["clip_fraction"] < 1
    assert trainer.evaluate(batch) == pytest.approx(expected, rel=1e-4, abs=1e-6)
    metrics = trainer.train_step(batch)
    assert metrics.pop("grad_norm") > 0
    assert metrics == pytest.approx(expected, rel=1e-4, abs=1e-6)


def gradient(trainer, batch):
    """The gradient of `compute_loss` on a batch, as a pure dict."""

    def compute(state, batch, config):
        model, bound = trainer.merge(state)[0], trainer._with_config(config)
        return nnx.to_pure_dict(nnx.grad(bound.compute_loss, has_aux=True)(model, batch, jax.random.key(0))[0])

    compiled = COMPILED.setdefault(("gradient", id(trainer)), jax.jit(compute))
    return compiled(trainer.state, trainer.prepare(batch), trainer.config)


COMPILED = {}


def norm(tree):
    return float(np.sqrt(sum(np.sum(np.square(leaf)) for leaf in jax.tree.leaves(tree))))


def recorded(trainer):
    """The sum of all gradients that a `RECORDER` has seen."""
    return nnx.to_pure_dict(nnx.as_pure(trainer.optimizer.opt_state)[0].trace)


def assert_trees_close(a, b, **tolerance):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, **tolerance)


def test_at_ratio_one_it_is_the_policy_gradient():
    config = PPOConfig(vf_coeff=0.0, entropy_coeff=0.0, normalize_advantages=False)
    trainer = make_trainer(config)
    batch = on_policy(trainer, make_batch())
    observations, actions = jnp.asarray(batch["observations"], jnp.float32), jnp.asarray(batch["actions"])
    advantages = jnp.asarray(reference_gae(batch), jnp.float32)

    def objective(params):
        log_probs = jax.nn.log_softmax(apply_net(params["actor"], observations))
        return -jnp.mean(log_probs[jnp.arange(STEPS), actions] * advantages)

    expected = jax.jit(jax.grad(objective))(params_of(trainer))
    assert_trees_close(gradient(trainer, batch), expected, atol=1e-6)


@pytest.mark.parametrize(("rows", "parts", "epochs"), [(12, 3, 2), slow(3, 7, 1)])
def test_every_step_counts_once_an_epoch(rows, parts, epochs):
    # With equal parts the gradients of an epoch add up to as many times that of the whole batch. Seven parts of
    # three steps are three parts: an empty one would be a step along nothing.
    config = dataclasses.replace(RECORD, num_epochs=epochs, num_minibatches=parts)
    trainer, batch = make_trainer(config, RECORDER), make_batch(rows)
    trainer.train_step(batch)
    times = epochs * min(parts, rows)
    whole = jax.tree.map(lambda grad: times * grad, gradient(trainer, batch))
    assert_trees_close(recorded(trainer), whole, rtol=1e-4, atol=1e-5)


def test_every_epoch_has_an_order_of_its_own_and_every_step_a_key():
    seen = []

    class Watched(PPOTrainer):
        def gradient_step(self, state, batch, key, max_grad_norm=None):
            look = batch["observations"][:, 0], jax.random.key_data(key)
            jax.debug.callback(lambda rows, key: seen.append((rows.tolist(), key.tolist())), *look)
            return super().gradient_step(state, batch, key, max_grad_norm)

    config = dataclasses.replace(RECORD, num_epochs=3, num_minibatches=2)
    model, batch = make_actor_critic(nnx.Rngs(0)), make_batch(12)
    trainer = Watched(model, nnx.Optimizer(model, RECORDER, wrt=nnx.Param), config)
    trainer.train_step(batch)
    jax.effects_barrier()
    assert len(seen) == 6 and len({tuple(key) for _, key in seen}) == 6
    epochs = [seen[i][0] + seen[i + 1][0] for i in (0, 2, 4)]
    rows = sorted(np.asarray(batch["observations"], np.float32).reshape(12, -1)[:, 0].tolist())
    assert all(sorted(order) == rows for order in epochs) and len(set(rows)) == 12
    assert len({tuple(order) for order in epochs}) == 3


def test_uneven_minibatches_are_exact_means():
    # Five steps in two parts: the sum of two gradients is that of a mean over some three steps and a mean over the
    # other two. Advantages are put in by hand (one-step episodes, γ = 0), so that parts are batches by themselves.
    trainer = make_trainer(dataclasses.replace(RECORD, num_minibatches=2), RECORDER)
    batch = make_batch(5, dones=np.ones(5))
    trainer.train_step(batch)
    single = [gradient(trainer, {name: value[i : i + 1] for name, value in batch.items()}) for i in range(5)]

    def total(three):
        weights = [1 / 3 if i in three else 1 / 2 for i in range(5)]
        return jax.tree.map(lambda *grads: np.tensordot(weights, np.stack(grads), 1), *single)

    def distance(three):
        return norm(jax.tree.map(np.subtract, total(three), recorded(trainer)))

    distances = sorted(distance(three) for three in itertools.combinations(range(5), 3))
    assert distances[0] < 1e-5 < 1e-2 < distances[1]
    # Which three differs from step to step: the same data, another permutation, another sum.
    sums = [recorded(trainer)]
    for _ in range(3):
        trainer.train_step(batch)
        sums.append(recorded(trainer))
    drawn = [norm(jax.tree.map(np.subtract, *pair)) for pair in itertools.pairwise(sums)]
    assert np.ptp(drawn) > 1e-3


@pytest.mark.parametrize(("rows", "parts"), [(12, 4), (10, 4), (5, 4), (1, 4), (7, 7), (512, 3)])
def test_parts_hold_every_row_once(rows, parts):
    slots, is_real = cut_evenly(rows, parts)
    assert sorted(slots[is_real]) == list(range(rows))
    assert len(slots) == min(rows, parts)
    assert np.ptp(is_real.sum(1)) <= 1 and is_real.any(1).all()


def test_minibatches_of_one_step_have_no_advantage():
    # Normalised among themselves they are 0, not NaN, and so the actor moves by nothing.
    config = PPOConfig(num_epochs=1, num_minibatches=6, entropy_coeff=0.0)
    trainer, batch = make_trainer(config), make_batch(6)
    before = params_of(trainer)
    metrics = trainer.train_step(batch)
    assert metrics["policy_loss"] == 0 and np.isfinite(list(metrics.values())).all()
    assert_trees_close(params_of(trainer)["actor"], before["actor"], atol=0)


def test_one_step_alone_can_be_trained_on():
    metrics = make_trainer(PPOConfig()).train_step(make_batch(1))
    assert metrics["policy_loss"] == 0 and metrics["explained_variance"] == 0


class Counting(PPOTrainer):
    traces = 0

    def compute_loss(self, *arguments):
        Counting.traces += 1
        return super().compute_loss(*arguments)


def test_numbers_of_the_config_never_recompile():
    config = PPOConfig(clip_param_high=0.3, clip_value=0.2, target_kl=0.1)
    trainer, batch = make_trainer(config, cls=Counting), make_batch()
    results = [trainer.train_step(batch)["loss"]]
    traces = Counting.traces
    for name in ("gamma", "gae_lambda", "clip_param", "vf_coeff", "entropy_coeff", "max_grad_norm"):
        trainer.config = dataclasses.replace(trainer.config, **{name: 0.123})
        results.append(trainer.train_step(batch)["loss"])
    for name in ("clip_param_high", "clip_value", "target_kl"):
        trainer.config = dataclasses.replace(trainer.config, **{name: 0.05})
        results.append(trainer.train_step(batch)["loss"])
    assert Counting.traces == traces
    assert len(set(results)) == len(results)


@pytest.mark.slow
def test_gradients_are_cut_to_their_norm():
    batch, moved = make_batch(), {}
    for limit in (1e-3, None):
        trainer = make_trainer(dataclasses.replace(ONE_STEP, max_grad_norm=limit))
        before = params_of(trainer)
        metrics = trainer.train_step(batch)
        moved[limit] = norm(jax.tree.map(np.subtract, params_of(trainer), before))
        assert metrics["grad_norm"] > 0.1
    assert moved[1e-3] == pytest.approx(1e-3, rel=1e-3)
    assert moved[None] == pytest.approx(metrics["grad_norm"], rel=1e-4)


def test_another_number_of_epochs_compiles_nothing():
    """Four epochs of a trainer that has made one are those of a trainer that makes four from the start."""
    four = dataclasses.replace(ONE_STEP, num_epochs=4, num_minibatches=3)
    model = make_actor_critic(nnx.Rngs(0))
    trainer = PPOTrainer(model, nnx.Optimizer(model, ADAM, wrt=nnx.Param), dataclasses.replace(four, num_epochs=1))
    begun = jax.tree.map(jnp.copy, trainer.state)
    batch = on_policy(trainer, make_batch())
    trainer.train_step(batch)
    assert int(nnx.state(trainer.optimizer)["step"][...]) == 3
    trainer.state, trainer.config = begun, four
    metrics = trainer.train_step(batch)
    assert int(nnx.state(trainer.optimizer)["step"][...]) == 12
    assert trainer._compiled_step._cache_size() == 1
    fresh = make_trainer(four, ADAM)
    assert fresh.train_step(batch) == metrics
    assert_trees_close(params_of(fresh), params_of(trainer), atol=0)


@pytest.mark.slow
def test_updates_beyond_the_target_kl_are_left_out():
    # The first update starts at KL 0 and is made; the second sees how far that went; it and the third are left out.
    after, kl = {}, {}
    for epochs, target in ((1, None), (3, 1e-6), (3, None), (3, 1e3)):
        trainer = make_trainer(dataclasses.replace(ONE_STEP, num_epochs=epochs, target_kl=target), ADAM)
        kl[epochs, target] = trainer.train_step(on_policy(trainer, make_batch()))["approx_kl"]
        after[epochs, target] = params_of(trainer)
    assert_trees_close(after[3, 1e-6], after[1, None], atol=1e-6)
    assert_trees_close(after[3, 1e3], after[3, None], atol=1e-6)
    assert norm(jax.tree.map(np.subtract, after[3, None], after[1, None])) > 0.1
    assert kl[1, None] == pytest.approx(0, abs=1e-6)
    assert 1e-6 < kl[3, 1e-6] < kl[3, None]  # the mean over the two, or three, updates that were looked at


def test_value_clipping_takes_the_larger_error():
    batch, clip = make_batch(), 0.1
    trainer = make_trainer(dataclasses.replace(ONE_STEP, clip_value=clip))
    values = np.asarray(trainer.model(jnp.asarray(batch["observations"], jnp.float32))[1], np.float64)
    returns = reference_gae(batch) + batch["values"]
    clipped = batch["values"] + np.clip(values - batch["values"], -clip, clip)
    expected = 0.5 * np.maximum((values - returns) ** 2, (clipped - returns) ** 2).mean()
    assert trainer.evaluate(batch)["value_loss"] == pytest.approx(expected, rel=1e-4)


def test_explained_variance():
    returns = jnp.arange(4.0)
    assert explained_variance(returns, returns) == 1
    assert explained_variance(jnp.full(4, 7.0), returns) == pytest.approx(0, abs=1e-6)
    assert explained_variance(-returns, returns) == pytest.approx(-3)
    assert explained_variance(returns, jnp.ones(4)) == 0
    mask = jnp.array([True, True, False, True])
    assert explained_variance(returns, returns.at[2].set(9.0), mask) == 1


def advantages_of(trainer, batch):
    compiled = COMPILED.setdefault(("advantages", id(trainer)), jax.jit(trainer.estimate_advantages))
    return compiled(trainer.prepare(batch))[0]["advantages"]


@pytest.mark.slow
def test_streams_side_by_side_are_streams_by_themselves():
    trainer, batch = make_trainer(), make_batch(6, 3)
    together = advantages_of(trainer, batch).reshape(6, 3)
    for n in range(3):
        stream = {name: value[:, n] for name, value in batch.items()}
        np.testing.assert_allclose(together[:, n], reference_gae(stream), atol=1e-5)
    assert trainer.train_step(batch)["mean_reward"] == pytest.approx(batch["rewards"].mean(), rel=1e-5)


@pytest.mark.slow
def test_ways_to_say_what_the_last_state_is_worth():
    trainer = make_trainer()
    batch = make_batch(dones=np.zeros(STEPS))
    longer = batch | {"values": np.append(batch["values"], 2.5)}
    last = batch | {"last_value": 2.5}
    reached = batch | {"next_values": longer["values"][1:]}
    results = [advantages_of(trainer, each) for each in (longer, last, reached)]
    assert_trees_close(results[1:], [results[0]] * 2, atol=1e-6)
    with pytest.warns(UserWarning, match="counts as terminal"):
        terminal = advantages_of(trainer, batch)
    streams = make_batch(STEPS, 2, dones=np.zeros((STEPS, 2)), last_value=np.array([2.5, -1.0]))
    alone = {name: value[..., 1] if np.ndim(value) < 3 else value[:, 1] for name, value in streams.items()}
    np.testing.assert_allclose(advantages_of(trainer, streams)[1::2], advantages_of(trainer, alone), atol=1e-6)
    assert results[0][-1] - terminal[-1] == pytest.approx(0.99 * 2.5, rel=1e-5)
    trainer.train_step(longer)


def test_a_time_limit_is_no_death():
    rewards, values, next_values = np.array([1.0, 1.0]), np.array([3.0, 4.0]), np.array([5.0, 6.0])
    batch = make_batch(2) | {"rewards": rewards, "values": values, "next_values": next_values, "dones": [1, 1]}
    trainer = make_trainer()
    died = advantages_of(trainer, batch)
    stopped = advantages_of(trainer, batch | {"truncations": [1, 0]})
    np.testing.assert_allclose(died, rewards - values, rtol=1e-6)
    np.testing.assert_allclose(stopped, [1 + 0.99 * 5 - 3, 1 - 4], rtol=1e-6)


@pytest.mark.slow
def test_a_collected_trajectory_is_what_the_policy_did():
    trainer, env = make_trainer(), CartPole(max_steps=5)
    model = ActorCritic(4, (8,), 2, rngs=nnx.Rngs(0))
    collect = jax.jit(lambda key, state: collect_trajectory(env, model, key, 12, 3, state))
    first, state = collect(jax.random.key(0), jax.vmap(env.reset)(jax.random.split(jax.random.key(9), 3)))
    second, _ = collect(jax.random.key(1), state)
    np.testing.assert_array_equal(second["observations"][0], env.observe(state))
    logits, values = model(first["observations"])
    np.testing.assert_allclose(first["values"], values, rtol=1e-5)
    chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), first["actions"][..., None], axis=-1)[..., 0]
    np.testing.assert_allclose(first["log_probs"], chosen, rtol=1e-5)
    # Five steps a time, and no pole falls in five steps.
    assert first["truncations"].tolist() == first["dones"].tolist() == [[t % 5 == 4] * 3 for t in range(12)]
    within = ~np.asarray(first["dones"])[:-1]
    np.testing.assert_allclose(first["next_values"][:-1][within], first["values"][1:][within], rtol=1e-5)
    assert (np.abs(first["next_values"][4] - first["values"][5]) > 1e-6).all()  # before the reset, not after
    expected = compute_gae_advantages(
        *(first[name] for name in ("rewards", "values", "dones")),
        0.99,
        0.95,
        truncations=first["truncations"],
        next_values=first["next_values"],
    )
    np.testing.assert_allclose(advantages_of(trainer, first), expected.reshape(-1), rtol=1e-5, atol=1e-6)
    assert episode_returns(first["rewards"], first["dones"]).tolist() == [5.0] * 6


def test_episode_returns_come_in_order_of_their_ends():
    rewards = np.arange(8.0).reshape(4, 2)
    dones = np.array([[0, 1], [0, 0], [1, 0], [0, 1]])
    assert episode_returns(rewards, dones).tolist() == [1.0, 0 + 2 + 4, 3 + 5 + 7]


class Actor(nnx.Module):
    def __init__(self, rngs):
        self.linear = nnx.Linear(FEATURES, ACTIONS, rngs=rngs)

    def __call__(self, observations):
        return self.linear(observations)


def test_a_model_without_critic_says_so():
    model = Actor(nnx.Rngs(0))
    trainer = PPOTrainer(model, nnx.Optimizer(model, optax.sgd(0.1), wrt=nnx.Param), ONE_STEP)
    batch = make_batch()
    with pytest.warns(UserWarning, match="no critic"):
        metrics = trainer.train_step(batch)
    assert metrics["value_loss"] == pytest.approx(0.5 * (reference_gae(batch) ** 2).mean(), rel=1e-4)


class Gaussian(nnx.Module):
    """One number, drawn near another; and what that is worth."""

    def __init__(self, rngs):
        self.mean, self.value = nnx.Linear(FEATURES, 2, rngs=rngs), nnx.Linear(FEATURES, 1, rngs=rngs)
        self.log_std = nnx.Param(jnp.zeros(2))

    def __call__(self, observations):
        return DiagonalGaussian(self.mean(observations), self.log_std[...]), self.value(observations)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_continuous_actions(seed):
    model = Gaussian(nnx.Rngs(0))
    trainer = PPOTrainer(model, nnx.Optimizer(model, optax.adam(0.02), wrt=nnx.Param))
    key, observations = jax.random.key(seed), np.ones((64, FEATURES), np.float32)

    def reward_fn(samples, conditions):
        return -np.sum((np.asarray(samples) - 1.0) ** 2, axis=1)

    # No longer: nothing pays for a spread, it falls below 0.03, and a step of 0.02 is then a leap.
    for i in range(30):
        metrics = trainer.train_step({"observations": observations}, reward_fn, jax.random.fold_in(key, i))
    assert metrics["mean_reward"] > -0.1  # from about −4
    np.testing.assert_allclose(model(observations)[0].mean[0], 1.0, atol=0.2)


class Letters(nnx.Module):
    def __init__(self, rngs):
        self.embed = nnx.Embed(5, 8, rngs=rngs)
        self.head, self.value = nnx.Linear(8, 5, rngs=rngs), nnx.Linear(8, 1, rngs=rngs)

    def __call__(self, tokens):
        seen = self.embed(tokens)
        return self.head(seen), self.value(seen)


def make_writer(rngs):
    return SequencePolicy(Letters(rngs), 4, eos_id=0)


def make_sequence_trainer(config=ONE_STEP):
    return make_trainer(config, ADAM, model_class=make_writer)


def make_responses(**changes):
    rng = np.random.default_rng(0)
    return {
        "observations": np.ones((3, 2), int),
        "actions": rng.integers(1, 5, (3, 4)),
        "rewards": np.array([1.0, 2.0, 3.0]),
        "values": rng.normal(size=(3, 4)),
        "log_probs": rng.uniform(-2, -1, (3, 4)),
        "dones": np.ones(3),
        "lengths": np.array([2, 4, 1]),
    } | changes


@pytest.mark.slow
def test_a_response_is_an_episode_of_tokens():
    trainer, batch = make_sequence_trainer(), make_responses()
    advantages = advantages_of(trainer, batch)
    for row, length in enumerate(batch["lengths"]):
        stream = {"values": batch["values"][row, :length], "dones": np.arange(length) == length - 1}
        stream["rewards"] = stream["dones"] * batch["rewards"][row]
        np.testing.assert_allclose(advantages[row, :length], reference_gae(stream), atol=1e-5)
    before = trainer.train_step(batch)
    assert before["mean_reward"] == 2.0
    # What is behind the end counts for nothing, be it NaN.
    behind = np.arange(4) >= batch["lengths"][:, None]
    garbage = {name: np.where(behind, np.nan, batch[name]) for name in ("values", "log_probs")}
    assert make_sequence_trainer().train_step(batch | garbage) == pytest.approx(before)


def test_rewards_of_tokens_stay_where_they_are():
    mask = jnp.array([[True, True, False], [True, True, True]])
    rewards, dones = response_as_episode(jnp.array([1.0, 2.0]), mask)
    assert rewards.tolist() == [[0, 1, 0], [0, 0, 2]]
    assert dones.tolist() == [[False, True, True], [False, False, True]]
    tokens = jnp.arange(6.0).reshape(2, 3)
    assert response_as_episode(tokens, mask)[0].tolist() == tokens.tolist()


@pytest.mark.slow
def test_responses_are_learned():
    trainer = make_sequence_trainer(PPOConfig(normalize_advantages=True))
    prompts = {"observations": np.ones((32, 2), int)}
    rewards = [trainer.train_step(prompts, count_threes)["mean_reward"] for _ in range(30)]
    assert rewards[0] < 1.0 and rewards[-1] > 3.0


def count_threes(samples, conditions, mask):
    return ((np.asarray(samples) == 3) & np.asarray(mask)).sum(1).astype(float)


@pytest.mark.slow
def test_impossible_and_vanishing_probabilities_stay_finite():
    for log_prob in (-1e4, -80.0, 0.0):
        trainer = make_trainer(PPOConfig(num_epochs=2, num_minibatches=2))
        metrics = trainer.train_step(make_batch(log_probs=np.full(STEPS, log_prob)))
        assert np.isfinite(list(metrics.values())).all()
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params_of(trainer)))


@pytest.mark.slow
def test_a_pure_step_is_a_train_step():
    trainer, batch = make_trainer(PPOConfig()), make_batch()
    state = trainer.state
    prepared, key = trainer.prepare(batch), jax.random.fold_in(trainer.key, 0)
    pure, metrics = jax.jit(trainer.pure_step)(state, prepared, key, trainer.config)
    assert trainer.train_step(batch) == pytest.approx({k: float(v) for k, v in metrics.items()}, rel=1e-6)
    assert_trees_close(trainer.state.variables, pure.variables, rtol=1e-6)
    assert trainer.step == pure.step == 1


@pytest.mark.slow
def test_the_guides_images_of_a_vae_run_with_a_warning():
    class Encoder(nnx.Module):
        def __init__(self, rngs):
            self.linear = nnx.Linear(16, 4, rngs=rngs)

        def __call__(self, images, return_log_prob=False):
            out = self.linear(images.reshape(len(images), -1))
            latents = DiagonalGaussian(out[:, :2], jnp.zeros(2))
            if not return_log_prob:
                return latents, out[:, 2]
            drawn = latents.sample(jax.random.key(0))
            return drawn, latents.log_prob(drawn)

    encoder, images = Encoder(nnx.Rngs(0)), jnp.ones((6, 4, 4))
    trainer = PPOTrainer(encoder, nnx.Optimizer(encoder, optax.adam(1e-3), wrt=nnx.Param), PPOConfig())
    latents, log_probs = encoder(images, return_log_prob=True)
    trajectory = {
        "observations": images,
        "actions": latents,
        "rewards": jnp.arange(6.0),
        "values": jnp.zeros(6),
        "log_probs": log_probs,
        "dones": jnp.zeros(6),
    }
    with pytest.warns(UserWarning, match="dones"):
        metrics = trainer.train_step(trajectory)
    assert np.isfinite(list(metrics.values())).all()


def without(*names):
    return {name: None for name in names}


BAD = {
    "no dones": (without("dones"), ("dones", "needs")),
    "no values": (without("values"), ("values", "value_estimates", "needs")),
    "no log-probs": (without("log_probs"), ("log_probs", "old_log_probs", "needs")),
    "all missing are listed": (without("values", "dones", "rewards"), ("values", "dones", "rewards")),
    "two names": ({"old_log_probs": np.zeros(STEPS)}, ("log_probs", "old_log_probs")),
    "values too short": ({"values": np.zeros(STEPS - 1)}, ("values", "(11,)", "(12,)", "(13,)")),
    "values too long": ({"values": np.zeros(STEPS + 2)}, ("values", "(14,)", "(12,)", "(13,)")),
    "values (T, 1)": ({"values": np.zeros((STEPS, 1))}, ("values", "(12, 1)", "(12,)")),
    "a scalar as values": ({"values": 0.0}, ("values", "()", "(12,)")),
    "NaN in values": ({"values": np.full(STEPS, np.nan)}, ("values", "nan", "finite")),
    "infinite last of T+1 values": ({"values": np.append(np.zeros(STEPS), np.inf)}, ("values", "inf", "finite")),
    "words as values": ({"values": np.full(STEPS, "high")}, ("values", "numbers")),
    "next values too short": ({"next_values": np.zeros(STEPS - 1)}, ("next_values", "(11,)", "(12,)")),
    "next values too long": ({"next_values": np.zeros(STEPS + 1)}, ("next_values", "(13,)", "(12,)")),
    "NaN in next values": ({"next_values": np.full(STEPS, np.nan)}, ("next_values", "nan", "finite")),
    "truncations alone": ({"truncations": np.ones(STEPS)}, ("next_values", "truncations")),
    "truncations of another shape": (
        {"truncations": np.ones((STEPS, 1)), "next_values": np.zeros(STEPS)},
        ("truncations", "(12, 1)", "(12,)"),
    ),
    "halves as truncations": (
        {"truncations": np.full(STEPS, 0.5), "next_values": np.zeros(STEPS)},
        ("truncations", "flags"),
    ),
    "two last values": ({"values": np.zeros(STEPS + 1), "last_value": 1.0}, ("last_value", "values", "(13,)")),
    "a last value for each step": ({"last_value": np.zeros(STEPS)}, ("last_value", "(12,)", "()")),
    "NaN as last value": ({"last_value": np.nan}, ("last_value", "nan", "finite")),
    "dones too short": ({"dones": np.zeros(STEPS - 1)}, ("dones", "(11,)", "(12,)")),
    "dones beyond flags": ({"dones": np.full(STEPS, 2)}, ("dones", "flags")),
    "log-probs of all actions": (
        {"log_probs": np.full((STEPS, ACTIONS), -1.0)},
        ("log_probs", "(12, 3)", "(12,)"),
    ),
    "probabilities": ({"log_probs": np.full(STEPS, 0.3)}, ("log_probs", "logarithms")),
    "-inf log-prob": ({"log_probs": np.full(STEPS, -np.inf)}, ("log_probs", "inf", "finite")),
    "action out of range": ({"actions": np.full(STEPS, ACTIONS)}, ("actions", "3", "0 to 2")),
    "action as a float": ({"actions": np.full(STEPS, 0.5)}, ("actions", "integers")),
    "NaN reward": ({"rewards": np.full(STEPS, np.nan)}, ("rewards", "nan", "finite")),
    "rewards (T, 1)": ({"rewards": np.zeros((STEPS, 1))}, ("rewards", "(12, 1)", "(12,)")),
    "observations too short": ({"observations": np.zeros((STEPS - 1, FEATURES))}, ("observations", "(11, 4)")),
    "observations of another size": ({"observations": np.zeros((STEPS, 5))}, ("observations", "(12, 5)")),
    "mask of nothing": ({"mask": np.zeros(STEPS)}, ("mask", "true")),
    "misspelt": ({"truncation": np.zeros(STEPS)}, ("truncation", "truncations")),
}

BAD_RESPONSES = {
    "values of responses": ({"values": np.zeros(3)}, ("values", "(3,)", "(3, 4)")),
    "values with one more token": ({"values": np.zeros((3, 5))}, ("values", "(3, 5)", "(3, 4)")),
    "last value": ({"last_value": 0.0}, ("last_value", "response")),
    "truncations": ({"truncations": np.zeros(3)}, ("truncations", "response")),
    "next values": ({"next_values": np.zeros((3, 4))}, ("next_values", "response")),
    "NaN in values that count": ({"values": np.full((3, 4), np.nan)}, ("values", "nan", "finite")),
}


@pytest.fixture(scope="module")
def trainer():
    return make_trainer()


@pytest.fixture(scope="module")
def sequence_trainer():
    return make_sequence_trainer()


@pytest.mark.parametrize("case", BAD)
def test_bad_trajectories_are_refused(trainer, case):
    changes, words = BAD[case]
    assert_refused(trainer, make_batch() | changes, *words)


@pytest.mark.parametrize("case", BAD_RESPONSES)
def test_bad_responses_are_refused(sequence_trainer, case):
    changes, words = BAD_RESPONSES[case]
    assert_refused(sequence_trainer, make_responses() | changes, *words)


def test_a_reward_function_needs_a_critic_to_learn_from():
    model = Actor(nnx.Rngs(0))
    trainer = PPOTrainer(model, nnx.Optimizer(model, optax.sgd(0.1), wrt=nnx.Param))
    batch = {"observations": np.zeros((4, FEATURES))}
    assert_refused(trainer, batch, "values", "needs", reward_fn=lambda samples, conditions: np.zeros(4))
