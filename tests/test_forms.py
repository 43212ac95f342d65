"""Batches of a form that is known: renamed, not checked again, and yet no bad number gets through."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from artifex_rl import DPOConfig, DPOTrainer, GRPOConfig, GRPOTrainer, PPOTrainer, REINFORCETrainer, SequencePolicy
from artifex_rl.rl import onpolicy
from artifex_rl.rl.forms import KnownForms, form


def make_trainer(cls=REINFORCETrainer, config=None):
    model = nnx.Linear(3, 4, rngs=nnx.Rngs(0))
    return cls(model, nnx.Optimizer(model, optax.sgd(0.1), wrt=nnx.Param), config)


def make_batch(seed=0, **more):
    rng = np.random.default_rng(seed)
    batch = {"states": rng.normal(size=(8, 3)).astype(np.float32), "actions": rng.integers(0, 4, 8).astype(np.int32)}
    return batch | {"rewards": rng.normal(size=8).astype(np.float32), "dones": np.ones(8, bool)} | more


def test_a_form_is_keys_shapes_and_types():
    assert form(make_batch(0)) == form(make_batch(1))
    assert form(make_batch()) != form(make_batch(rewards=np.zeros(7, np.float32)))
    assert form(make_batch()) != form(make_batch(rewards=np.zeros(8, np.float64)))
    assert form([1]) is None and form({"rewards": [1.0]}) is None and form({"actions": np.zeros(3, np.int64)}) is None


def test_a_known_form_is_renamed_to_the_same_arrays():
    forms, first, second = KnownForms(), make_batch(0), make_batch(1)
    assert forms.read(first) is None
    forms.learn(first, {"observations": first["states"], "rewards": first["rewards"]})
    known = forms.read(second)
    assert known.keys() == {"observations", "rewards"}
    assert known["observations"] is second["states"] and known["rewards"] is second["rewards"]
    assert forms.read(second, "another setting") is None


def test_one_array_under_two_keys_is_never_known():
    """Else the next batch, with two arrays, would have the first where the second belongs."""
    forms, same = KnownForms(), np.zeros(8, np.float32)
    forms.learn({"a": same, "b": same}, {"a": same, "b": same})
    assert forms.read({"a": same, "b": same + 1}) is None


def test_what_the_checks_convert_is_never_known():
    forms, batch = KnownForms(), make_batch()
    forms.learn(batch, batch | {"rewards": batch["rewards"].copy()})
    assert forms.read(batch) is None


@pytest.mark.slow
def test_known_forms_train_like_new_ones():
    known, new = make_trainer(), make_trainer()
    for seed in range(4):
        new._forms = KnownForms()
        assert known.train_step(make_batch(seed)) == new.train_step(make_batch(seed))
    np.testing.assert_array_equal(known.model.kernel[...], new.model.kernel[...])


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"rewards": np.full(8, np.nan, np.float32)}, "rewards: got nan"),
        ({"states": np.full((8, 3), np.inf, np.float32)}, "observations: got inf"),
        ({"actions": np.full(8, 4, np.int32)}, "actions: got values from 4"),
        ({"actions": np.full(8, -1, np.int32)}, "actions: got values from -1"),
        ({"actions": np.full(8, 2**40)}, "beyond 32 bits"),
        ({"rewards": np.zeros(7, np.float32)}, "needs"),
    ],
)
def test_bad_batches_after_good_ones_are_refused(bad, message):
    trainer = make_trainer()
    trainer.train_step(make_batch())
    before = np.asarray(trainer.model.kernel[...])
    with pytest.raises(ValueError, match=message):
        trainer.train_step(make_batch(1, **bad))
    np.testing.assert_array_equal(trainer.model.kernel[...], before)
    assert trainer.step == 1


def test_an_empty_mask_after_good_ones_is_refused():
    trainer = make_trainer()
    trainer.train_step(make_batch(mask=np.ones(8, bool)))
    with pytest.raises(ValueError, match="mask"):
        trainer.train_step(make_batch(mask=np.zeros(8, bool)))


def test_another_group_size_reads_a_known_form_anew():
    trainer = make_trainer(GRPOTrainer, GRPOConfig(num_generations=4))
    batch = make_batch(log_probs=np.full(8, -1.4, np.float32))
    trainer.train_step(batch)
    trainer.config = dataclasses.replace(trainer.config, num_generations=3)
    with pytest.raises(ValueError, match="group_size: got 3"):
        trainer.train_step(batch)


class Writer(nnx.Module):
    def __init__(self):
        self.embed = nnx.Embed(5, 5, rngs=nnx.Rngs(0))

    def __call__(self, tokens):
        return self.embed(tokens)


def make_pairs(**more):
    rng = np.random.default_rng(0)
    pairs = {name: rng.integers(0, 5, (6, 3)).astype(np.int32) for name in ("chosen", "rejected")}
    references = {f"ref_{name}_log_probs": np.full(6, -4.8, np.float32) for name in ("chosen", "rejected")}
    return {"observations": np.zeros((6, 1), np.int32)} | pairs | references | more


@pytest.mark.slow
def test_dpo_checks_the_numbers_of_a_known_form_and_knows_it_for_dpo_alone():
    model = SequencePolicy(Writer(), max_length=3)
    trainer = DPOTrainer(model, nnx.Optimizer(model, optax.sgd(0.1), wrt=nnx.Param))
    trainer.train_step(make_pairs())
    with pytest.raises(ValueError, match="ref_rejected_log_probs: got nan"):
        trainer.train_step(make_pairs(ref_rejected_log_probs=np.full(6, np.nan, np.float32)))
    with pytest.raises(ValueError, match="rejected: got values"):
        trainer.train_step(make_pairs(rejected=np.full((6, 3), 5, np.int32)))
    trainer.config = DPOConfig(reference_free=True)
    assert np.isfinite(trainer.train_step(make_pairs())["loss"])
    no_token = np.array([[True] * 3] * 5 + [[False] * 3])
    for mask in (np.ones((6, 3), bool), no_token):
        if mask is no_token:
            with pytest.raises(ValueError, match="length 0 in row 5"):
                trainer.train_step(make_pairs(chosen_mask=mask))
        else:
            trainer.train_step(make_pairs(chosen_mask=mask))


class Speaker(nnx.Module):
    """Logits of the next of five tokens, and a value, from the last token alone."""

    def __init__(self, rngs):
        self.embed, self.critic = nnx.Embed(5, 5, rngs=rngs), nnx.Linear(5, 1, rngs=rngs)

    def __call__(self, tokens):
        logits = self.embed(tokens)
        return logits, self.critic(logits)[..., 0]


def make_responses(seed=0):
    rng = np.random.default_rng(seed)
    batch = {"observations": rng.integers(0, 5, (6, 2)).astype(np.int32)}
    batch |= {"actions": rng.integers(0, 5, (6, 4)).astype(np.int32), "dones": np.ones(6, bool)}
    floats = {"log_probs": -np.ones((6, 4)), "rewards": rng.normal(size=6), "values": rng.normal(size=(6, 4))}
    return batch | {name: value.astype(np.float32) for name, value in floats.items()}


def test_ppo_knows_responses_as_a_whole_and_refuses_bad_ones_all_the_same(monkeypatch):
    policy = SequencePolicy(Speaker(nnx.Rngs(0)), max_length=4)
    trainer = PPOTrainer(policy, nnx.Optimizer(policy, optax.sgd(0.1), wrt=nnx.Param))
    trainer.train_step(make_responses())
    with monkeypatch.context() as patch:
        patch.setattr(onpolicy, "check_values", lambda *_: pytest.fail("its shapes were known"))
        trainer.train_step(make_responses(1))
        for name in ("rewards", "values", "log_probs"):
            bad, weights = make_responses(2), np.asarray(policy.network.embed.embedding[...])
            bad[name].flat[1] = np.nan
            with pytest.raises(ValueError, match=f"{name}: got nan"):
                trainer.train_step(bad)
            np.testing.assert_array_equal(weights, policy.network.embed.embedding[...])
    assert trainer.step == 2
    with pytest.raises(ValueError, match=r"values: got shape \(6, 3\)"):
        trainer.train_step(make_responses() | {"values": np.zeros((6, 3), np.float32)})


def test_arrays_on_the_device_have_forms_too():
    trainer = make_trainer()
    batch = {name: jnp.asarray(value) for name, value in make_batch().items()}
    assert form(batch) is not None
    assert trainer.train_step(batch) == make_trainer().train_step(make_batch())


class Picky(REINFORCETrainer):
    """A subclass with a check of its own."""

    def validate(self, batch):
        super().validate(batch)
        if batch["rewards"].max() > 5:
            raise ValueError("rewards: got one above 5")


def test_a_check_that_a_subclass_adds_is_made():
    trainer = make_trainer(Picky)
    trainer.train_step(make_batch())
    with pytest.raises(ValueError, match="above 5"):
        trainer.train_step(make_batch(1, rewards=np.full(8, 6, np.float32)))


@pytest.mark.parametrize("row", range(3))
def test_the_device_asks_the_host_only_where_something_looks_wrong(monkeypatch, row):
    """And what looks wrong and is not, such as a NaN where the mask says that nothing is, trains."""
    looks, look = [], REINFORCETrainer.validate
    monkeypatch.setattr(REINFORCETrainer, "validate", lambda self, batch: looks.append(batch) or look(self, batch))
    trainer = make_trainer()
    trainer.train_step(make_batch())
    assert not looks
    mask, rewards = np.ones(8, bool), np.zeros(8, np.float32)
    mask[row], rewards[row] = False, np.nan
    metrics = trainer.train_step(make_batch(1, mask=mask, rewards=rewards))
    assert len(looks) == 1 and trainer.step == 2
    assert "plausible" not in metrics and all(map(np.isfinite, metrics.values()))
