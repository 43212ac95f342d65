"""REINFORCE: its loss in numbers, its gradient by enumeration, its baselines, and a pole that stays up."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from refusals import assert_refused

from artifex_rl import REINFORCEConfig, REINFORCETrainer, SequencePolicy, as_policy, one_step_batch
from artifex_rl.envs import CartPole, rollout
from artifex_rl.models import MLP
from artifex_rl.rl.policies import ModulePolicy

METRICS = {"policy_loss", "loss", "mean_reward", "reward_std", "entropy", "grad_norm"}


class Table(nnx.Module):
    """Logits of 3 actions, whatever is seen; values too, if asked."""

    def __init__(self, logits=(0.0, 0.0, 0.0), values=False):
        self.logits, self.value, self.values = nnx.Param(jnp.array(logits)), nnx.Param(jnp.zeros(())), values

    def __call__(self, x):
        logits = jnp.broadcast_to(self.logits[...], (len(x), 3))
        return (logits, jnp.broadcast_to(self.value[...], (len(x), 1))) if self.values else logits


def plain(**changes):
    return REINFORCEConfig(**{"normalize_returns": False, "entropy_coeff": 0.0, **changes})


def make(model, config=None, optimizer=None):
    return REINFORCETrainer(model, nnx.Optimizer(model, optimizer or optax.sgd(1.0), wrt=nnx.Param), config)


def batch_of(actions, rewards, **more):
    shape = np.shape(rewards)
    return {
        "observations": np.zeros((*shape, 2), np.float32),
        "actions": np.array(actions),
        "rewards": rewards,
        **more,
    }


LOGITS = np.log([0.5, 0.3, 0.2]).astype(np.float32)
ACTIONS, REWARDS, DONES = [0, 2, 1, 0], np.array([1.0, 2.0, 3.0, 4.0]), [0, 1, 0, 0]
LOG_PROBS = LOGITS[ACTIONS]


def gradient(batch, config, logits=LOGITS):
    """What a step of plain descent with rate 1 subtracts from the logits, and the metrics."""
    model = Table(logits)
    metrics = make(model, config).train_step(batch)
    return logits - np.asarray(model.logits[...]), metrics


def test_the_loss_is_minus_the_mean_of_log_prob_times_reward_to_go():
    metrics = make(Table(LOGITS), plain(gamma=0.5)).train_step(batch_of(ACTIONS, REWARDS, dones=DONES))
    returns = np.array([1 + 0.5 * 2, 2, 3 + 0.5 * 4, 4])
    np.testing.assert_allclose(metrics["policy_loss"], -(LOG_PROBS * returns).mean(), rtol=1e-5)
    assert set(metrics) == METRICS and metrics["loss"] == metrics["policy_loss"]
    np.testing.assert_allclose([metrics["mean_reward"], metrics["reward_std"]], [2.5, np.sqrt(1.25)], rtol=1e-6)


def test_normalised_returns_and_the_entropy_bonus():
    metrics = make(Table(LOGITS), REINFORCEConfig(gamma=1.0, entropy_coeff=0.3)).train_step(
        batch_of(ACTIONS, REWARDS, dones=DONES)
    )
    returns = np.array([3.0, 2, 7, 4])
    weights = (returns - returns.mean()) / returns.std()
    entropy = -(np.exp(LOGITS) * LOGITS).sum()
    np.testing.assert_allclose(metrics["policy_loss"], -(LOG_PROBS * weights).mean(), rtol=1e-5)
    np.testing.assert_allclose(metrics["entropy"], entropy, rtol=1e-5)
    np.testing.assert_allclose(metrics["loss"], metrics["policy_loss"] - 0.3 * entropy, rtol=1e-5)


def test_the_gradient_is_that_of_the_expected_reward():
    # A uniform policy plays each of its three actions as often as it should in a batch of one of each.
    pay = np.array([1.0, 5.0, -2.0])
    step, _ = gradient(one_step_batch(np.zeros((3, 2)), np.arange(3), pay), plain(), np.zeros(3, np.float32))
    exact = jax.grad(lambda logits: -jnp.sum(jax.nn.softmax(logits) * jnp.asarray(pay, jnp.float32)))(jnp.zeros(3))
    np.testing.assert_allclose(step, exact, rtol=1e-5)


@pytest.mark.parametrize("baseline", ["mean", "leave_one_out"])
def test_a_baseline_leaves_the_expected_gradient_and_shrinks_its_variance(baseline):
    pay = np.array([10.0, 11.0, 12.0])
    rng = np.random.default_rng(0)
    batches = rng.choice(3, size=(300, 4), p=np.exp(LOGITS) / np.exp(LOGITS).sum())

    def draws(config):
        trainer, start = make(Table(LOGITS), config), jnp.asarray(LOGITS)
        steps = []
        for actions in batches:
            trainer.model.logits[...] = start
            trainer.train_step(one_step_batch(np.zeros((4, 2)), actions, pay[actions]))
            steps.append(LOGITS - np.asarray(trainer.model.logits[...]))
        return np.array(steps)

    without, with_one = draws(plain()), draws(plain(baseline=baseline))
    exact = jax.grad(lambda x: -jnp.sum(jax.nn.softmax(x) * jnp.asarray(pay, jnp.float32)))(jnp.asarray(LOGITS))
    shrink = 1 if baseline == "leave_one_out" else 3 / 4  # the batch's own mean takes 1/n of the signal with it
    np.testing.assert_allclose(with_one.mean(0), shrink * exact, atol=0.03)
    assert with_one.var(0).sum() < without.var(0).sum() / 20


def test_leave_one_out_in_numbers():
    config = plain(baseline="leave_one_out", num_generations=2)
    metrics = make(Table(LOGITS), config).train_step(one_step_batch(np.zeros((4, 2)), ACTIONS, REWARDS))
    np.testing.assert_allclose(metrics["policy_loss"], -(LOG_PROBS * [-1, 1, -1, 1]).mean(), rtol=1e-5)
    whole = plain(baseline="leave_one_out")  # of one generation each, the batch is the group
    metrics = make(Table(LOGITS), whole).train_step(one_step_batch(np.zeros((4, 2)), ACTIONS, REWARDS))
    others = (REWARDS.sum() - REWARDS) / 3
    np.testing.assert_allclose(metrics["policy_loss"], -(LOG_PROBS * (REWARDS - others)).mean(), rtol=1e-5)


def test_a_learned_value_is_subtracted_and_moves_towards_the_returns():
    model = Table(LOGITS, values=True)
    model.value[...] = jnp.float32(2.0)
    config = plain(gamma=1.0, baseline="value", vf_coeff=0.5)
    metrics = make(model, config).train_step(batch_of(ACTIONS, REWARDS, dones=DONES))
    returns = np.array([3.0, 2, 7, 4])
    np.testing.assert_allclose(metrics["policy_loss"], -(LOG_PROBS * (returns - 2)).mean(), rtol=1e-5)
    np.testing.assert_allclose(metrics["value_loss"], ((returns - 2) ** 2).mean() / 2, rtol=1e-5)
    np.testing.assert_allclose(metrics["loss"], metrics["policy_loss"] + 0.5 * metrics["value_loss"], rtol=1e-5)
    np.testing.assert_allclose(model.value[...], 2 - 0.5 * (2 - returns).mean(), rtol=1e-5)
    assert set(metrics) == METRICS | {"value_loss"}


def test_streams_side_by_side_are_streams_one_by_one():
    rng = np.random.default_rng(1)
    actions, rewards, dones = rng.integers(0, 3, (5, 2)), rng.normal(size=(5, 2)), rng.integers(0, 2, (5, 2))
    both, metrics = gradient(batch_of(actions, rewards, dones=dones), plain())
    each = [gradient(batch_of(actions[:, n], rewards[:, n], dones=dones[:, n]), plain()) for n in range(2)]
    np.testing.assert_allclose(both, np.mean([step for step, _ in each], axis=0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(metrics["loss"], np.mean([m["loss"] for _, m in each]), rtol=1e-4)


def test_the_value_of_the_last_state_counts_where_the_episode_goes_on():
    config = plain(gamma=0.5)
    open_end, _ = gradient(batch_of([0, 1], [1.0, 2.0], dones=[0, 0], last_value=8.0), config)
    paid, _ = gradient(batch_of([0, 1], [1.0, 6.0], dones=[0, 1]), config)
    np.testing.assert_allclose(open_end, paid, rtol=1e-5)


def test_masked_steps_count_for_nothing():
    mask = np.array([1, 1, 0, 1], bool)
    config = plain(gamma=0.0)
    masked, _ = gradient(batch_of(ACTIONS, [1.0, 2.0, np.nan, 4.0], dones=DONES, mask=mask), config)
    without, _ = gradient(batch_of(np.array(ACTIONS)[mask], REWARDS[mask], dones=np.array(DONES)[mask]), config)
    np.testing.assert_allclose(masked, without, rtol=1e-5)


def test_an_impossible_action_gives_a_finite_loss():
    metrics = make(Table([0.0, 0.0, -np.inf])).train_step(batch_of([0, 1, 2], np.ones(3), dones=np.ones(3)))
    assert np.isfinite(list(metrics.values())).all()


def test_a_reference_takes_beta_times_the_log_ratio_from_each_reward():
    reference = np.log([0.2, 0.2, 0.6]).astype(np.float32)
    log_ratio = (LOGITS - reference)[ACTIONS]
    batch = batch_of(ACTIONS, REWARDS, dones=DONES)
    expected, _ = gradient(batch | {"rewards": REWARDS - 0.5 * log_ratio}, plain(gamma=0.5))
    given, metrics = gradient(batch | {"ref_log_probs": reference[ACTIONS]}, plain(gamma=0.5, beta=0.5))
    np.testing.assert_allclose(given, expected, rtol=1e-5, atol=1e-6)
    assert metrics["kl_penalty"] == pytest.approx(log_ratio.mean(), rel=1e-5)
    assert metrics["mean_reward"] == pytest.approx(REWARDS.mean())

    model = Table(LOGITS)
    optimizer = nnx.Optimizer(model, optax.sgd(1.0), wrt=nnx.Param)
    live = REINFORCETrainer(model, optimizer, plain(gamma=0.5, beta=0.5), reference_model=Table(reference))
    assert live.train_step(batch)["kl_penalty"] == pytest.approx(metrics["kl_penalty"], rel=1e-5)
    np.testing.assert_allclose(LOGITS - np.asarray(model.logits[...]), expected, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="reference_model: got the model that is trained itself"):
        REINFORCETrainer(model, optimizer, reference_model=model)


# Which rewards belong together


def test_without_dones_it_is_one_episode_and_a_warning_says_so_once():
    trainer = make(Table(LOGITS), plain())
    with pytest.warns(UserWarning, match=r"dones: not given, so the 4 rewards are those of one episode") as caught:
        metrics = trainer.train_step(batch_of(ACTIONS, REWARDS))
    assert caught[0].filename == __file__
    returns = [sum(0.99**k * r for k, r in enumerate(REWARDS[t:])) for t in range(4)]
    np.testing.assert_allclose(metrics["policy_loss"], -(LOG_PROBS * returns).mean(), rtol=1e-5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trainer.train_step(batch_of(ACTIONS, REWARDS))
        make(Table()).train_step(one_step_batch(np.zeros((4, 2)), ACTIONS, REWARDS))
        make(Table()).train_step(batch_of([[0], [1]], np.ones((2, 1))))


class Bigram(nnx.Module):
    """Logits of the next of 4 tokens from the last one."""

    def __init__(self):
        self.table = nnx.Embed(4, 4, rngs=nnx.Rngs(0))

    def __call__(self, tokens):
        return self.table(tokens)


TOKENS = {
    "observations": np.array([[1], [2]]),
    "actions": np.array([[0, 3, 0], [1, 2, 2]]),
    "mask": np.array([[1, 1, 0], [1, 1, 1]], bool),
}


@pytest.mark.slow
def test_a_response_with_one_reward_is_one_action():
    policy = SequencePolicy(Bigram(), 3, eos_id=3)
    seen = policy.evaluate(*map(jnp.asarray, TOKENS.values()))
    rewards = np.array([2.0, -1.0])
    metrics = make(policy, plain()).train_step({**TOKENS, "rewards": rewards})
    expected = -(np.asarray(seen.log_probs).sum(axis=1) * rewards).mean()
    np.testing.assert_allclose(metrics["policy_loss"], expected, rtol=1e-5)
    np.testing.assert_allclose(metrics["entropy"], np.asarray(seen.entropy).sum() / 5, rtol=1e-5)


def test_rewards_of_tokens_are_discounted_along_the_response():
    policy = SequencePolicy(Bigram(), 3, eos_id=3)
    log_probs = np.asarray(policy.evaluate(*map(jnp.asarray, TOKENS.values())).log_probs)
    rewards = np.array([[1.0, 2.0, np.nan], [0.0, 0.0, 4.0]])
    metrics = make(policy, plain(gamma=0.5)).train_step({**TOKENS, "rewards": rewards})
    returns = np.array([[2.0, 2.0, 0.0], [1.0, 2.0, 4.0]])
    np.testing.assert_allclose(metrics["policy_loss"], -(log_probs * returns).sum() / 5, rtol=1e-5)
    np.testing.assert_allclose(metrics["mean_reward"], 7 / 5, rtol=1e-6)


# Samples that are drawn and scored


def test_samples_are_drawn_scored_and_learned_from():
    seen = []

    def reward(samples, conditions):
        seen.append((np.shape(samples), np.shape(conditions)))
        return np.asarray(samples) == 1

    trainer = make(Table(), REINFORCEConfig(num_generations=4, baseline="leave_one_out"), optax.adam(0.1))
    observations = {"states": np.eye(8, dtype=np.float32)}
    history = [trainer.train_step(observations, reward, jax.random.key(i))["mean_reward"] for i in range(40)]
    assert history[0] < 0.6 and np.mean(history[-5:]) > 0.95
    assert set(seen) == {((32,), (32, 8))}


def test_the_group_size_of_a_batch_says_how_many_samples_are_drawn():
    sizes = []

    def reward(samples, conditions):
        sizes.append(len(samples))
        return np.arange(len(samples)) % 3

    trainer = make(Table(), REINFORCEConfig(num_generations=4, baseline="leave_one_out"))
    observations = np.eye(2, dtype=np.float32)
    batch = trainer.collect({"observations": observations, "group_size": 3}, reward)
    assert batch["group_size"] == 3
    np.testing.assert_array_equal(batch["observations"], np.repeat(observations, 3, axis=0))
    trainer.train_step({"observations": observations, "group_size": 3}, reward)
    trainer.train_step({"observations": observations}, reward)
    assert sizes == [6, 6, 8]
    with pytest.raises(ValueError, match="group_size: got 0"):
        trainer.train_step({"observations": observations, "group_size": 0}, reward)


def test_a_reward_sees_the_outcome_of_an_action_where_the_policy_has_one():
    class Doubled(Table):
        def sample(self, observations, key):
            return ModulePolicy(self).sample(observations, key)

        def evaluate(self, observations, actions, mask=None):
            return ModulePolicy(self).evaluate(observations, actions, mask)

        def outcome(self, actions):
            return 10 * actions + 7

    seen = []
    trainer = make(Doubled())
    batch = trainer.collect(
        {"observations": np.zeros((5, 2))}, lambda samples, _: seen.append(samples) or np.zeros(len(samples))
    )
    np.testing.assert_array_equal(seen[0], 10 * batch["actions"] + 7)
    assert set(np.asarray(batch["actions"]).tolist()) <= {0, 1, 2}


def test_a_generator_without_a_density_is_refused_with_what_to_return():
    trainer = make(nnx.Linear(3, 4, rngs=nnx.Rngs(0)))
    noise = np.ones((5, 3), np.float32)
    batch = {
        "observations": noise,
        "actions": np.ones((5, 4), np.float32),
        "rewards": np.ones(5),
        "dones": np.ones(5),
    }
    assert_refused(trainer, batch, "actions", "float32", "has no density", "DiagonalGaussian")


def test_the_key_decides_what_is_drawn():
    drawn = []

    def reward(samples, conditions):
        drawn.append(np.asarray(samples).tolist())
        return np.ones(len(samples))

    for key in (jax.random.key(0), jax.random.key(0), jax.random.key(1), None, None):
        make(Table()).train_step({"observations": np.zeros((20, 2))}, reward, key)
    assert drawn[0] == drawn[1] != drawn[2] and drawn[3] == drawn[4]


def test_fit_draws_anew_at_every_step():
    drawn = []

    def reward(samples, conditions):
        drawn.append(np.asarray(samples).tolist())
        return np.ones(len(samples))

    make(Table()).fit({"observations": np.zeros((20, 2))}, steps=3, reward_fn=reward)
    assert len({str(d) for d in drawn}) == 3


@pytest.mark.parametrize(
    "takes", [lambda s, c, mask: mask.sum(axis=1), lambda s, c, **more: more["mask"].sum(axis=1)]
)
def test_a_reward_that_takes_a_mask_is_given_that_of_the_tokens(takes):
    policy = SequencePolicy(Bigram(), 4, eos_id=3)
    lengths = []
    make(policy).train_step(
        {"prompts": np.ones((30, 1), int)}, lambda s, c, **more: lengths.append(takes(s, c, **more)) or np.ones(30)
    )
    assert {*np.asarray(lengths[0]).tolist()} > {1}


def counts_up(samples, conditions):
    """The share of tokens that are one more than the token before, modulo 4."""
    line = np.concatenate([conditions, samples], axis=1)
    return (np.diff(line, axis=1) % 4 == 1).mean(axis=1)


def test_leave_one_out_learns_to_count_with_every_seed():
    prompts = {"prompts": np.arange(4)[:, None]}
    config = REINFORCEConfig(baseline="leave_one_out", num_generations=8)
    trainer = make(SequencePolicy(Bigram(), 3), config, optax.adam(0.1))
    start = jax.tree.map(jnp.copy, trainer.state)
    for seed in range(3):
        trainer.state, trainer.key = start, seed
        shares = [trainer.train_step(prompts, counts_up)["mean_reward"] for _ in range(40)]
        assert shares[0] < 0.45 and np.mean(shares[-5:]) > 0.95, seed


# The pole


class ActorCritic(nnx.Module):
    """Logits and values of CartPole's observations."""

    def __init__(self, rngs):
        self.policy, self.critic = MLP(4, [32], 2, rngs=rngs), MLP(4, [32], 1, rngs=rngs)

    def __call__(self, x):
        return self.policy(x), self.critic(x)


@pytest.mark.slow
def test_with_a_learned_baseline_it_balances_the_pole():
    env, steps, streams, key = CartPole(), 256, 8, jax.random.key(0)
    model = ActorCritic(nnx.Rngs(0))
    trainer = make(model, REINFORCEConfig(baseline="value"), optax.adam(1e-2))
    graphdef = nnx.graphdef(model)

    @jax.jit
    def collect(params, key, state):
        model = nnx.merge(graphdef, params)

        def act(observation, key):
            action, log_prob = as_policy(model).sample(observation[None], key)
            return action[0], log_prob[0]

        seen = rollout(env, act, key, steps, streams, state)
        return seen, model(seen.next_observations[-1])[1][:, 0]

    state, lengths = jax.vmap(env.reset)(jax.random.split(key, streams)), []
    for i in range(40):
        seen, last_value = collect(nnx.state(model), jax.random.fold_in(key, i), state)
        state = seen.final_state
        trainer.train_step({**seen._asdict(), "last_value": last_value})
        lengths.append(steps * streams / max(1, int(seen.dones.sum())))
    assert lengths[0] < 40 and np.mean(lengths[-5:]) > 195  # where CartPole-v0 counts as solved
