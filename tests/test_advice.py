"""Which algorithm to choose: the guide's table, and facts that the trainers themselves confirm."""

import jax
import jax.numpy as jnp
import optax
import pytest
from flax import nnx

from artifex_rl.rl.advice import TRAINERS, advise, count_points, facts


@pytest.mark.parametrize(
    ("scenario", "task", "best"),
    [
        ("Memory-constrained", {"memory": 5}, ("GRPO",)),
        ("Memory-constrained, but not so much", {"memory": 7.5}, ("GRPO",)),
        ("Stable training needed", {"memory": 8}, ("PPO",)),
        ("Preference data available", {"scores": False, "pairs": True}, ("DPO",)),
        ("Simple baseline", {"stable": False}, ("REINFORCE",)),
        ("Large language models", {"scores": True, "pairs": True, "memory": 5}, ("GRPO", "DPO")),
        ("Image generation", {"memory": 6}, ("GRPO",)),  # one score for a picture, and a large model
    ],
)
def test_the_advice_is_that_of_the_guides_table(scenario, task, best):
    assert advise(**task).best == best, scenario


def test_rewards_at_single_steps_want_someone_who_credits_them():
    assert advise(step_rewards=True, memory=5).best == ("REINFORCE", "GRPO")
    assert advise(step_rewards=True).best == ("PPO",)


def test_nothing_is_advised_where_nothing_is_possible():
    for task in ({"memory": 3}, {"scores": False}, {"scores": False, "pairs": True, "memory": 4}):
        advice = advise(**task)
        assert advice.best == () and len(advice.reasons) == 4
        assert all(reason.startswith("needs") for reason in advice.reasons.values())


@pytest.mark.parametrize("memory", [0, -1, float("nan")])
def test_memory_that_is_none_is_refused(memory):
    with pytest.raises(ValueError, match="memory: got"):
        advise(memory=memory)


def test_more_memory_never_takes_an_algorithm_away():
    for fact in facts().values():
        task = {"scores": True, "pairs": True, "step_rewards": False, "stable": True}
        points = [count_points(fact, memory=memory, **task) for memory in range(1, 12)]
        assert points == sorted(points) and points[-1] > 0


def test_grpo_needs_half_of_ppos_memory_without_its_reference():
    """The guide: "approximately 50% memory savings compared to PPO by eliminating the value network"."""
    known = facts()
    assert (known["GRPO"].copies - known["GRPO"].anchored) / known["PPO"].copies == 0.5
    assert known["REINFORCE"].copies == 4  # weights, gradients, two averages of Adam


@pytest.mark.parametrize("name", TRAINERS)
def test_a_trainer_asks_for_what_the_facts_say(name):
    """An empty batch is refused, and the message lists what is needed."""
    model = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.adam(1e-3), wrt=nnx.Param)
    options = {"reference_model": nnx.Linear(2, 3, rngs=nnx.Rngs(1))} if facts()[name].anchored else {}
    trainer = TRAINERS[name](model, optimizer, **options)
    with pytest.raises(ValueError) as refused:
        trainer.train_step({})
    assert ("rewards" in str(refused.value)) == facts()[name].scores
    assert ("values" in str(refused.value)) == facts()[name].critic
    assert len(jax.tree.leaves(trainer.state.variables)) > 0 and jnp.isfinite(model.kernel[...]).all()
