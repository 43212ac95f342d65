"""Which algorithm suits a task: what each needs, read off the trainers themselves, and a rule made of it."""

from __future__ import annotations

import dataclasses
import inspect
from functools import cache
from typing import NamedTuple

import jax
import optax
from flax import nnx

from artifex_rl.rl.dpo import DPOTrainer
from artifex_rl.rl.grpo import GRPOTrainer
from artifex_rl.rl.ppo import PPOTrainer
from artifex_rl.rl.preferences import SIDES
from artifex_rl.rl.reinforce import REINFORCETrainer
from artifex_rl.trainer import Trainer

TRAINERS: dict[str, type[Trainer]] = {
    "REINFORCE": REINFORCETrainer,
    "PPO": PPOTrainer,
    "GRPO": GRPOTrainer,
    "DPO": DPOTrainer,
}


@dataclasses.dataclass(frozen=True)
class Facts:
    """What is known of an algorithm without trying it.

    Args:
        scores: it learns from scores of new samples; otherwise from pairs of which one was preferred.
        critic: it needs V(s), a second network that is trained along.
        clipped: an update cannot move the policy far.
        anchored: it can be held near a reference policy.
        credit: rewards of single steps are credited to the steps before them.
        inputs: how many arrays a batch must have.
        copies: memory in training, in copies of the policy's weights: weights, gradients and Adam's two averages, of
            a critic as large as the policy as well, and the weights of a reference.
    """

    scores: bool
    critic: bool
    clipped: bool
    anchored: bool
    credit: bool
    inputs: int
    copies: int


class Advice(NamedTuple):
    """`best`, names in the order of `TRAINERS`, more than one where they suit alike; and `reasons`, a sentence for
    each algorithm."""

    best: tuple[str, ...]
    reasons: dict[str, str]


@cache
def facts() -> dict[str, Facts]:
    """The facts of all four algorithms, found on trainers that are made for it and dropped."""
    return {name: _look_at(kind) for name, kind in TRAINERS.items()}


def count_points(fact: Facts, *, scores: bool, pairs: bool, step_rewards: bool, memory: float, stable: bool) -> float:
    """How well an algorithm suits; 0 if it cannot be used at all, because of the data or the memory.

    One point for being possible. Where rewards come at single steps, one for crediting them. Where training must be
    stable, one for updates that are bounded, by a clip or a reference, and one for a critic, which takes out the
    noise that a sample's luck brings. Otherwise up to one for how few things it needs.

    Args:
        fact: of the algorithm.
        scores: whether new samples can be scored.
        pairs: whether there are pairs of samples of which one was preferred.
        step_rewards: whether rewards come at single steps; otherwise one comes for a whole sample.
        memory: what there is, in copies of the policy's weights.
        stable: whether training must be stable; otherwise whatever is simplest is wanted.
    """
    if not (scores if fact.scores else pairs) or fact.copies > memory:
        return 0.0
    points = 1.0 + (step_rewards and fact.credit)
    if stable:
        return points + (fact.clipped or fact.anchored) + fact.critic
    return points + 1 / fact.inputs


def advise(
    *,
    scores: bool = True,
    pairs: bool = False,
    step_rewards: bool = False,
    memory: float = 8,
    stable: bool = True,
) -> Advice:
    """Which algorithm to begin with; the arguments are those of `count_points`.

    Raises:
        ValueError: `memory` is not a number of more than 0.
    """
    if not memory > 0:
        raise ValueError(f"memory: got {memory!r}, needs a number of more than 0, in copies of the policy's weights")
    task = {"scores": scores, "pairs": pairs, "step_rewards": step_rewards, "memory": memory, "stable": stable}
    points = {name: count_points(fact, **task) for name, fact in facts().items()}
    most = max(points.values())
    best = tuple(name for name, value in points.items() if value == most > 0)
    return Advice(best, {name: _reason(fact, **task) for name, fact in facts().items()})


def _reason(fact: Facts, *, scores: bool, pairs: bool, step_rewards: bool, memory: float, stable: bool) -> str:
    if fact.scores and not scores:
        return "needs scores of new samples"
    if not fact.scores and not pairs:
        return "needs pairs of which one was preferred"
    if fact.copies > memory:
        return f"needs memory for {fact.copies} copies of the weights, and there is room for {memory:g}"
    merits = [f"{fact.copies} copies of the weights", f"{fact.inputs} arrays a batch"]
    merits += ["credits single steps"] if step_rewards and fact.credit else []
    bounds = " and ".join(word for word, has in (("a clip", fact.clipped), ("a reference", fact.anchored)) if has)
    merits += [f"bounded by {bounds}"] if stable and bounds else []
    merits += ["a critic against noise"] if stable and fact.critic else []
    return ", ".join(merits)


def _look_at(kind: type[Trainer]) -> Facts:
    """Make a trainer, and look what it asks for and how much it holds."""
    required = getattr(kind, "required", ("observations", *SIDES))
    critic, config = "values" in required, kind.config_class()
    # By its own settings: a leash that is off by default is no need.
    anchored = "reference_model" in inspect.signature(kind.__init__).parameters and config.beta > 0
    policy = nnx.Linear(8, 8, rngs=nnx.Rngs(0))
    model = nnx.List([policy, nnx.Linear(8, 8, rngs=nnx.Rngs(1))]) if critic else policy
    optimizer = nnx.Optimizer(model, optax.adam(1e-3), wrt=nnx.Param)

    def size(tree):
        return sum(leaf.size for leaf in jax.tree.leaves(tree))

    weights = size(nnx.state(policy))
    held = 2 * size(nnx.state(model)) + size(optimizer.opt_state) + anchored * weights
    return Facts(
        scores="rewards" in required,
        critic=critic,
        clipped=hasattr(kind.config_class, "clip_param"),
        anchored=anchored,
        credit="last_value" in getattr(kind, "optional", ()),  # it reads an axis of time
        inputs=len(required),
        copies=round(held / weights),
    )
