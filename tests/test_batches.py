"""Batches: names, shapes and repetition; and a table of bad ones, each a clear error in which nothing changed."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from refusals import assert_refused, snapshot

from artifex_rl import DiagonalGaussian, REINFORCEConfig, REINFORCETrainer, SequencePolicy, as_policy, one_step_batch
from artifex_rl.envs import CartPole, rollout
from artifex_rl.rl.batches import ALIASES, StaticInt, read_batch, read_mask
from artifex_rl.rl.trainer import masked_mean


class Choosing(nnx.Module):
    """Logits of 3 actions for observations `(B, 4)`."""

    def __init__(self):
        self.linear = nnx.Linear(4, 3, rngs=nnx.Rngs(0))

    def __call__(self, x):
        return self.linear(x)


class Moving(Choosing):
    """A Gaussian over actions `(B, 3)`."""

    def __call__(self, x):
        return DiagonalGaussian(self.linear(x), jnp.zeros(3))


class Writing(nnx.Module):
    """Logits of 5 tokens after each of the tokens `(B, L)`."""

    def __init__(self):
        rngs = nnx.Rngs(0)
        self.embed, self.head = nnx.Embed(5, 4, rngs=rngs), nnx.Linear(4, 5, rngs=rngs)

    def __call__(self, tokens):
        return self.head(self.embed(tokens))


def trainer_of(model, config=None, cls=REINFORCETrainer):
    return cls(model, nnx.Optimizer(model, optax.adam(1e-2), wrt=nnx.Param), config)


class WithLogProbs(REINFORCETrainer):
    """REINFORCE that also reads what PPO and GRPO read."""

    required = ("observations", "actions", "rewards", "log_probs")
    optional = (*REINFORCETrainer.optional, "ref_log_probs", "truncations")


@pytest.fixture(scope="module")
def trainers():
    """One of each kind; each has made a step, so that its optimizer's state is not all zeros."""
    made = {
        "discrete": trainer_of(Choosing(), cls=WithLogProbs),
        "continuous": trainer_of(Moving(), cls=WithLogProbs),
        "sequence": trainer_of(SequencePolicy(Writing(), 5, eos_id=3), cls=WithLogProbs),
        "plain": trainer_of(Choosing()),
        "value": trainer_of(Choosing(), REINFORCEConfig(baseline="value")),
        "rloo": trainer_of(Choosing(), REINFORCEConfig(baseline="leave_one_out", num_generations=2)),
        "rloo of tokens": trainer_of(SequencePolicy(Writing(), 5), REINFORCEConfig(baseline="leave_one_out")),
    }
    for name, trainer in made.items():
        if name not in ("value", "rloo of tokens"):
            trainer.train_step(GOOD[name])
    return made


def base(actions, **more):
    return {
        "observations": np.linspace(-1, 1, 24, dtype=np.float32).reshape(6, 4),
        "actions": actions,
        "rewards": np.arange(6.0),
        "dones": np.ones(6),
        **more,
    }


CHOICES = np.array([0, 1, 2, 0, 1, 2])
LOGS = np.full(6, -1.1)
GOOD = {
    "discrete": base(CHOICES, log_probs=LOGS),
    "continuous": base(np.zeros((6, 3)), log_probs=LOGS),
    "sequence": {
        "observations": np.ones((6, 2), int),
        "actions": np.ones((6, 5), int),
        "rewards": np.arange(6.0),
        "log_probs": np.full((6, 5), -1.6),
        "mask": np.arange(5) < np.array([1, 2, 3, 4, 5, 5])[:, None],
    },
    "plain": base(CHOICES),
    "value": base(CHOICES),
    "rloo": base(CHOICES),
}
GOOD["rloo of tokens"] = GOOD["sequence"]


def at(array, index, value):
    array = np.array(array, float)
    array[index] = value
    return array


NAN, INF = float("nan"), float("inf")
ABSENT = object()

# (trainer, what is changed in its good batch, words that the error must have)
BAD = [
    # not a batch, keys that are missing or strange
    ("discrete", None, ["batch", "NoneType", "mapping"]),
    ("discrete", [1, 2], ["batch", "list", "mapping"]),
    ("discrete", "batch", ["batch", "str"]),
    ("discrete", {}, ["'observations'", "'actions'", "'rewards'", "'log_probs'", "nothing", "'states'"]),
    ("discrete", {"rewards": ABSENT}, ["'rewards'", "'reward'", "it has 'observations'"]),
    ("discrete", {"log_probs": ABSENT}, ["'log_probs'", "'old_log_probs'"]),
    ("discrete", {"observations": ABSENT, "actions": ABSENT}, ["'observations'", "'states'", "'actions'"]),
    ("discrete", {"rewards": None}, ["'rewards'"]),
    ("discrete", {"states": np.ones((6, 4))}, ["'observations'", "'states'", "both", "one of them"]),
    ("discrete", {"dones": ABSENT, "donez": np.ones(6)}, ["'donez'", "'dones'", "unknown"]),
    ("discrete", {"truncation": np.ones(6)}, ["'truncation'", "'truncations'"]),
    # not numbers
    ("discrete", {"rewards": ["a"] * 6}, ["rewards", "numbers"]),
    ("discrete", {"rewards": [[1], [1, 2]]}, ["rewards", "list", "numbers"]),
    ("discrete", {"rewards": [None] * 6}, ["rewards", "object"]),
    ("discrete", {"rewards": np.ones(6, complex)}, ["rewards", "complex128", "real"]),
    ("discrete", {"rewards": {"a": 1}}, ["rewards", "dict"]),
    ("discrete", {"rewards": "high"}, ["rewards", "numbers"]),
    ("discrete", {"observations": np.array([["x"] * 4] * 6)}, ["observations", "numbers"]),
    ("discrete", {"rewards": lambda: 1}, ["rewards", "numbers"]),
    # rewards
    ("discrete", {"rewards": 1.0}, ["rewards", "()", "(T,)", "(T, N)"]),
    ("discrete", {"rewards": np.ones((6, 1))}, ["rewards", "(6, 1)", "(6,)"]),
    ("discrete", {"rewards": np.ones((6, 2, 2))}, ["rewards", "(6, 2, 2)", "(T, N)"]),
    ("discrete", {"rewards": np.ones(5)}, ["observations", "(6, 4)", "(5, ...)", "rewards"]),
    ("discrete", {"rewards": np.ones(0)}, ["rewards", "(0,)", "at least one"]),
    ("discrete", {"rewards": at(np.ones(6), 2, NAN)}, ["rewards", "nan", "(2,)", "1 entries", "finite"]),
    ("discrete", {"rewards": at(np.ones(6), 5, INF)}, ["rewards", "inf", "(5,)", "finite"]),
    ("discrete", {"rewards": jnp.full(6, -jnp.inf)}, ["rewards", "-inf", "6 entries"]),
    # observations
    ("discrete", {"observations": np.ones((6, 5))}, ["observations", "(6, 5)", "policy"]),
    ("discrete", {"observations": np.ones(6)}, ["observations", "(6,)", "policy"]),
    ("discrete", {"observations": np.ones((4, 4))}, ["observations", "(4, 4)", "(6, ...)"]),
    ("discrete", {"observations": np.ones((7, 4))}, ["observations", "(7, 4)", "(6, ...)"]),
    ("discrete", {"observations": 1.0}, ["observations", "()", "(6, ...)"]),
    ("discrete", {"observations": np.full((6, 4), NAN)}, ["observations", "nan", "24 entries"]),
    ("discrete", {"observations": np.zeros((0, 4))}, ["observations", "(0, 4)"]),
    ("discrete", {"observations": np.full((6, 4), 2**40)}, ["observations", "32 bits"]),
    # actions
    ("discrete", {"actions": CHOICES + 1}, ["actions", "1 to 3", "0 to 2", "3 actions"]),
    ("discrete", {"actions": CHOICES - 1}, ["actions", "-1 to 1", "0 to 2"]),
    ("discrete", {"actions": CHOICES.astype(float)}, ["actions", "float32", "integers"]),
    ("discrete", {"actions": CHOICES.astype(bool)}, ["actions", "bool", "integers"]),
    ("discrete", {"actions": np.eye(3)[CHOICES].astype(int)}, ["actions", "(6, 3)"]),
    ("discrete", {"actions": CHOICES[:, None]}, ["actions", "(6, 1)"]),
    ("discrete", {"actions": CHOICES[:3]}, ["actions", "(3,)", "(6, ...)"]),
    ("discrete", {"actions": 1}, ["actions", "()", "(6, ...)"]),
    ("continuous", {"actions": np.zeros((6, 2))}, ["actions", "(6, 2)"]),
    ("continuous", {"actions": np.zeros(6)}, ["actions", "(6,)"]),
    ("continuous", {"actions": at(np.zeros((6, 3)), (1, 2), NAN)}, ["actions", "nan", "(1, 2)"]),
    ("continuous", {"actions": at(np.zeros((6, 3)), (4, 0), -INF)}, ["actions", "-inf"]),
    ("continuous", {"actions": np.zeros((6, 3), bool)}, ["actions", "bool"]),
    # log-probs
    ("discrete", {"log_probs": LOGS[:5]}, ["log_probs", "(5,)", "(6,)"]),
    ("discrete", {"log_probs": LOGS[:, None]}, ["log_probs", "(6, 1)", "(6,)"]),
    ("discrete", {"log_probs": at(LOGS, 0, NAN)}, ["log_probs", "nan"]),
    ("discrete", {"log_probs": at(LOGS, 0, -INF)}, ["log_probs", "-inf"]),
    ("discrete", {"log_probs": np.exp(LOGS)}, ["log_probs", "0.3329", "logarithms"]),
    ("discrete", {"ref_log_probs": LOGS[:4]}, ["ref_log_probs", "(4,)", "(6,)"]),
    ("discrete", {"ref_log_probs": at(LOGS, 3, INF)}, ["ref_log_probs", "inf"]),
    ("continuous", {"log_probs": np.zeros((6, 3))}, ["log_probs", "(6, 3)", "(6,)"]),
    # flags
    ("discrete", {"dones": np.ones(5)}, ["dones", "(5,)", "(6,)"]),
    ("discrete", {"dones": np.ones((6, 1))}, ["dones", "(6, 1)", "(6,)"]),
    ("discrete", {"dones": np.full(6, 0.5)}, ["dones", "flags"]),
    ("discrete", {"dones": np.full(6, NAN)}, ["dones", "flags"]),
    ("discrete", {"dones": np.arange(6)}, ["dones", "flags"]),
    ("discrete", {"truncations": np.ones(7)}, ["truncations", "(7,)", "(6,)"]),
    ("discrete", {"last_value": np.ones(6)}, ["last_value", "(6,)", "()"]),
    ("discrete", {"last_value": NAN}, ["last_value", "nan"]),
    # groups
    ("discrete", {"group_size": 4}, ["group_size", "4", "6 rewards"]),
    ("discrete", {"group_size": 0}, ["group_size", "0", "at least 1"]),
    ("discrete", {"group_size": 1.5}, ["group_size", "1.5", "integer"]),
    ("discrete", {"group_size": True}, ["group_size", "True"]),
    ("discrete", {"group_size": "2"}, ["group_size", "'2'"]),
    ("discrete", {"group_size": np.array([2, 2])}, ["group_size", "integer"]),
    ("discrete", {"group_size": 3, "observations": np.ones((3, 4))}, ["observations", "(3, 4)"]),
    # masks and lengths
    ("discrete", {"mask": np.ones((6, 4))}, ["mask", "(6, 4)", "(6,)"]),
    ("discrete", {"mask": np.zeros(6)}, ["mask", "no true entry"]),
    ("discrete", {"lengths": np.ones(6, int)}, ["lengths", "(B, T)"]),
    ("sequence", {"mask": np.ones(6)}, ["mask", "(6,)", "(6, 5)"]),
    ("sequence", {"mask": np.ones((6, 7))}, ["mask", "(6, 7)", "(6, 5)"]),
    ("sequence", {"mask": np.zeros((6, 5))}, ["mask", "no true entry"]),
    ("sequence", {"mask": np.full((6, 5), 0.3)}, ["mask", "flags"]),
    ("sequence", {"lengths": np.full(6, 3)}, ["lengths", "mask", "one of them"]),
    ("sequence", {"mask": ABSENT, "lengths": np.full(6, 6)}, ["lengths", "6", "0 to 5"]),
    ("sequence", {"mask": ABSENT, "lengths": np.full(6, -1)}, ["lengths", "-1", "0 to 5"]),
    ("sequence", {"mask": ABSENT, "lengths": np.full(6, 2.5)}, ["lengths", "float32", "integers"]),
    ("sequence", {"mask": ABSENT, "lengths": np.full(4, 2)}, ["lengths", "(4,)", "(6,)"]),
    ("sequence", {"rewards": np.ones((6, 4))}, ["rewards", "(6, 4)", "(6, 5)"]),
    ("sequence", {"rewards": np.full((6, 5), NAN)}, ["rewards", "nan"]),
    ("sequence", {"log_probs": np.full(6, -1.0)}, ["log_probs", "(6,)", "(6, 5)"]),
    ("sequence", {"log_probs": at(np.full((6, 5), -1.0), (5, 4), NAN)}, ["log_probs", "nan", "(5, 4)"]),
    ("sequence", {"actions": np.full((6, 5), 5)}, ["actions", "5 to 5", "0 to 4"]),
    ("sequence", {"actions": np.ones((6, 5))}, ["actions", "float32", "integers"]),
    ("sequence", {"actions": np.ones(6, int)}, ["actions", "(6,)", "policy"]),
    ("sequence", {"observations": np.ones(6, int)}, ["observations", "(6,)", "policy"]),
    # what a baseline needs
    ("value", {}, ["baseline", "'value'", "logits and values"]),
    ("rloo", {"dones": at(np.ones(6), 0, 0)}, ["baseline", "'leave_one_out'", "dones"]),
    ("rloo", {"dones": ABSENT}, ["baseline", "one_step_batch"]),
    ("rloo", {"group_size": 1}, ["group_size", "1", "at least 2"]),
    ("rloo", {"mask": np.ones(6)}, ["baseline", "'leave_one_out'", "independent"]),
    ("rloo", {name: value[:5] for name, value in base(CHOICES).items()}, ["group_size", "2", "5 samples"]),
    ("rloo of tokens", {"rewards": np.ones((6, 5))}, ["baseline", "'leave_one_out'", "(B,)"]),
]


@pytest.mark.parametrize(("name", "changes", "words"), BAD, ids=lambda x: x if isinstance(x, str) else "")
def test_a_bad_batch_is_an_error_that_says_so_and_changes_nothing(trainers, name, changes, words):
    batch = changes
    if isinstance(changes, dict) and (changes or name == "value"):
        batch = {key: value for key, value in {**GOOD[name], **changes}.items() if value is not ABSENT}
    assert_refused(trainers[name], batch, *words)


def test_there_are_enough_of_them():
    assert len(BAD) >= 60


@pytest.mark.parametrize("name", ["discrete", "continuous", "sequence", "plain", "rloo"])
def test_the_good_batches_of_the_table_are_good(trainers, name):
    assert np.isfinite(trainers[name].train_step(GOOD[name])["loss"])


# Rewards that are computed


def raises(samples, conditions):
    raise KeyError("no such sample")


def short(samples, conditions):
    return np.ones(3)


@pytest.mark.parametrize(
    ("reward_fn", "error", "words"),
    [
        (short, ValueError, ["reward_fn", "short", "(3,)", "(6,)"]),
        (lambda s, c: np.ones((6, 1)), ValueError, ["reward_fn", "(6, 1)", "(6,)"]),
        (lambda s, c: 1.0, ValueError, ["reward_fn", "()", "(6,)"]),
        (lambda s, c: None, ValueError, ["reward_fn", "None"]),
        (lambda s, c: ["good"] * 6, ValueError, ["reward_fn", "numbers"]),
        (lambda s, c: np.full(6, NAN), ValueError, ["reward_fn", "nan", "6 entries"]),
        (lambda s, c: at(np.ones(6), 3, INF), ValueError, ["reward_fn", "inf", "(3,)"]),
        (raises, KeyError, ["no such sample"]),
        (lambda s: np.ones(6), TypeError, ["takes 1 positional argument"]),
        (3, ValueError, ["reward_fn", "int", "callable"]),
    ],
)
@pytest.mark.parametrize("name", ["plain", "sequence"])
def test_a_bad_reward_is_an_error_that_says_which_and_changes_nothing(trainers, name, reward_fn, error, words):
    batch = {"observations": GOOD[name]["observations"]}
    assert_refused(trainers[name], batch, *words, error=error, reward_fn=reward_fn, key=jax.random.key(0))


def test_what_a_reward_raises_has_a_note_of_its_name(trainers):
    with pytest.raises(KeyError) as caught:
        trainers["plain"].train_step({"observations": np.ones((6, 4))}, raises)
    assert "raises" in caught.value.__notes__[0]


@pytest.mark.parametrize(
    ("batch", "words"),
    [
        ({}, ["'observations'"]),
        ({"observations": np.ones((6, 5))}, ["observations", "(6, 5)", "draw"]),
        ({"observations": np.full((6, 4), NAN)}, ["observations", "nan"]),
        ({"observations": 1.0}, ["observations", "batch axis"]),
    ],
)
def test_bad_observations_beside_a_reward(trainers, batch, words):
    assert_refused(trainers["plain"], batch, *words, reward_fn=lambda s, c: np.ones(6))


def test_observations_beside_a_reward_share_one_batch_axis(trainers):
    uneven = {"observations": {"image": np.ones((6, 4)), "text": np.ones((5, 4))}}
    assert_refused(trainers["plain"], uneven, "observations", "(5,)", "(6,)", reward_fn=lambda s, c: np.ones(6))


def test_a_reward_whose_signature_is_not_to_be_known_is_called_with_samples_and_conditions(trainers):
    class Opaque:
        __signature__ = "none"

        def __call__(self, samples, conditions):
            return np.arange(6.0)

    batch = {"observations": GOOD["sequence"]["observations"]}
    assert trainers["sequence"].train_step(batch, Opaque())["mean_reward"] == 2.5


def test_samples_are_drawn_with_another_key_than_the_step_s_own(trainers):
    observations = np.ones((200, 4), np.float32)
    drawn, _ = as_policy(Choosing()).sample(observations, jax.random.fold_in(jax.random.key(0), 0))
    mine = trainer_of(Choosing()).collect({"observations": observations}, lambda s, c: np.ones(200))["actions"]
    assert (np.asarray(mine) != np.asarray(drawn)).any()


def test_a_mean_under_a_mask():
    x = jnp.array([1.0, jnp.nan, 4.0])
    assert masked_mean(x, jnp.array([True, False, True])) == 2.5
    assert masked_mean(x, jnp.zeros(3, bool)) == 0
    assert masked_mean(jnp.array([1.0, 2.0])) == 1.5


def test_a_key_without_a_reward_is_a_slip(trainers):
    assert_refused(trainers["plain"], GOOD["plain"], "reward_fn", key=jax.random.key(0))


# Names and forms


@pytest.mark.parametrize(("name", "alias"), [(name, alias) for name, others in ALIASES.items() for alias in others])
def test_every_alias_is_understood(name, alias):
    value = 2 if name == "group_size" else np.ones(2)
    np.testing.assert_array_equal(read_batch({alias: value}, (name,))[name], value)


def test_no_name_means_two_things():
    names = [name for key, others in ALIASES.items() for name in (key, *others)]
    assert len(names) == len(set(names))


def test_what_is_not_asked_for_is_left_out_and_none_is_absent():
    assert read_batch({"rewards": [1.0], "values": [2.0], "mask": None, "id": "x"}, ("rewards",), ("mask",)) == {
        "rewards": np.float32(1)
    }


def test_lists_and_both_kinds_of_arrays_give_the_same_step():
    steps = []
    for form in (lambda x: np.asarray(x).tolist(), np.asarray, jnp.asarray):
        trainer = trainer_of(Choosing())
        steps.append(trainer.train_step({name: form(value) for name, value in GOOD["plain"].items()}))
    assert steps[0] == steps[1] == steps[2]


@pytest.mark.slow
def test_a_rollout_is_a_batch():
    class Policy(nnx.Module):
        def __init__(self):
            self.linear = nnx.Linear(4, 2, rngs=nnx.Rngs(0))

        def __call__(self, x):
            return self.linear(x)

    def act(observation, key):
        return jax.random.randint(key, (), 0, 2), jnp.log(0.5)

    experience = rollout(CartPole(), act, jax.random.key(0), 20, 3)
    metrics = trainer_of(Policy()).train_step(experience)
    assert metrics["mean_reward"] == 1.0


def test_conditions_are_repeated_for_the_samples_of_a_group():
    prompts = np.linspace(-1, 1, 8, dtype=np.float32).reshape(2, 4)
    batch = {**GOOD["plain"], "group_size": 3}
    few, many = trainer_of(Choosing()), trainer_of(Choosing())
    a = few.train_step({**batch, "observations": prompts})
    b = many.train_step({**batch, "observations": np.repeat(prompts, 3, axis=0)})
    assert a == b and snapshot(few) == snapshot(many)


def test_generations_are_no_groups_where_nothing_is_grouped():
    trainer = trainer_of(Choosing(), REINFORCEConfig(num_generations=4))
    assert trainer.train_step(GOOD["plain"]) == trainer_of(Choosing()).train_step(GOOD["plain"])  # six rewards


@pytest.mark.slow
def test_one_environment_may_have_an_axis_of_its_own():
    """(T, 1), also with actions of several numbers, is (T,)."""
    flat = GOOD["continuous"]
    beside = {name: value[:, None] for name, value in flat.items()}
    assert trainer_of(Moving()).train_step(beside) == pytest.approx(trainer_of(Moving()).train_step(flat), rel=1e-6)


def test_experience_is_not_cut_into_batches(trainers):
    with pytest.raises(ValueError, match="batch_size: got 3, needs None with REINFORCETrainer"):
        trainers["plain"].fit(GOOD["plain"], steps=2, batch_size=3)


def test_a_group_size_is_known_to_compiled_code():
    size = read_batch({"group_size": jnp.int32(3)}, ("group_size",))["group_size"]
    assert isinstance(size, StaticInt) and size == 3
    assert jax.jit(lambda batch: jnp.zeros(batch["group_size"]))({"group_size": size}).shape == (3,)


def test_lengths_are_masks():
    mask = read_mask({"lengths": np.array([0, 2, 3])}, (3, 3))
    np.testing.assert_array_equal(mask, [[0, 0, 0], [1, 1, 0], [1, 1, 1]])


def test_a_one_step_batch_is_done_at_every_sample():
    batch = one_step_batch(np.ones((2, 4)), np.zeros(2, int), np.ones(2), values=np.ones(2))
    assert set(batch) == {"observations", "actions", "rewards", "dones", "values"} and batch["dones"].all()


def test_what_is_masked_may_be_anything(trainers):
    good = GOOD["sequence"]
    hidden = {**good, "log_probs": np.where(good["mask"], good["log_probs"], NAN)}
    a, b = (trainer_of(SequencePolicy(Writing(), 5, eos_id=3), cls=WithLogProbs) for _ in range(2))
    assert a.train_step(good) == b.train_step(hidden)
