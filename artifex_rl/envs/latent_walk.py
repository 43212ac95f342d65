"""A walk through the latents of a decoder, step by step towards something that a scorer knows."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int

from artifex_rl.envs.rollout import Rollout


class LatentWalkState(NamedTuple):
    """Where the walker stands. Every field is of one walk, or with an axis `(N,)` of N of them under `vmap`."""

    latents: Float[Array, "*N Z"]  # z
    target: Int[Array, "*N"]  # the class that is to be reached, 0 … K − 1
    probability: Float[Array, "*N"]  # P(target | decode(z)), as the scorer says
    time: Int[Array, "*N"]  # steps taken since the reset


@dataclass(frozen=True, eq=False)  # compared and hashed by identity, so that it may be a static argument of jit
class LatentWalk:
    """Change a latent z little by little, until what it decodes to is taken for another class.

    An action is a move Δz; one longer than `max_move` is cut to that length. It is rewarded with what it wins,

        P(target | decode(z + Δz)) − P(target | decode(z)) − move_cost · ‖Δz‖²
            + prior_weight · (log N(z + Δz; 0, I) − log N(z; 0, I))

    so that the rewards of an episode, but for the costs, add up to what was won on the whole way: in probability, and
    in log-density under the decoder's prior, the leash to where it was trained. A walk never *terminates*: it is
    *truncated* after `max_steps` steps, and the place reached is worth something. Each move is paid at once for what
    it wins: a discount of 0.8 teaches faster than one of 0.99, which blames it for later ones.

    It holds no state: every method is a pure function, for jit, vmap and scan. `decode` and `score` are traced with
    the weights that they have then. In compiled code the last three arguments may be tracers, which nobody checks:
    `replace(env, move_cost=cost)`.

    Args:
        decode: latents `(B, Z)` to samples `(B, ...)`, such as `VAETrainer.decode`.
        score: samples to probabilities of K classes `(B, K)`, such as `digit_scorer().probabilities`.
        latent_size: Z ≥ 1.
        num_classes: K ≥ 2.
        starts: `(N, Z)`, latents that walks begin at, such as encoded data. None: the prior N(0, I).
        max_steps: length of an episode, at least 1.
        max_move: longest move, > 0, in the unit of the latents.
        move_cost: what a move of length 1 costs, ≥ 0, in probability.
        prior_weight: what a nat of log-density under N(0, I) is worth, ≥ 0, in probability. 0: no leash.

    Raises:
        ValueError: an argument is out of its range, or `starts` is of another shape or not finite.
    """

    decode: Callable[[Array], Array]
    score: Callable[[Array], Array]
    latent_size: int
    num_classes: int = 10
    starts: ArrayLike | None = None
    max_steps: int = 8
    max_move: float = 1.0
    move_cost: float = 0.01
    prior_weight: float = 0.0

    def __post_init__(self) -> None:
        for name, low in (("latent_size", 1), ("num_classes", 2), ("max_steps", 1)):
            if getattr(self, name) < low:
                raise ValueError(f"{name}: got {getattr(self, name)}, needs at least {low}")
        numbers = {name: getattr(self, name) for name in ("max_move", "move_cost", "prior_weight")}
        known = {name: value for name, value in numbers.items() if not isinstance(value, jax.core.Tracer)}
        if not (known.get("max_move", 1) > 0 and all(0 <= value < math.inf for value in known.values())):
            listed = ", ".join(f"{name}={value}" for name, value in known.items())
            raise ValueError(f"got {listed}; needs a finite max_move of more than 0, and the others at least 0")
        if self.starts is not None:
            shape = jnp.shape(self.starts)
            if len(shape) != 2 or shape[0] < 1 or shape[1] != self.latent_size:
                raise ValueError(f"starts: got shape {shape}, needs (N, {self.latent_size})")
            if not np.isfinite(np.asarray(self.starts)).all():
                raise ValueError("starts: got NaN or infinity, needs finite numbers")

    @property
    def action_size(self) -> int:
        """How many numbers an action has: Z."""
        return self.latent_size

    @property
    def observation_size(self) -> int:
        """How many numbers a policy sees: Z + K."""
        return self.latent_size + self.num_classes

    def reset(self, key: Array) -> LatentWalkState:
        """A new episode's first state: a random start, and a random class to reach."""
        start_key, target_key = jax.random.split(key)
        target = jax.random.randint(target_key, (), 0, self.num_classes)
        if self.starts is None:
            return self.begin(jax.random.normal(start_key, (self.latent_size,)), target)
        return self.begin(jax.random.choice(start_key, jnp.asarray(self.starts, jnp.float32)), target)

    def begin(self, latents: Float[Array, "Z"], target: ArrayLike) -> LatentWalkState:
        """The first state of a walk from a chosen place to a chosen class; `vmap` it for several."""
        target = jnp.asarray(target, jnp.int32)
        return LatentWalkState(latents, target, self._probability(latents, target), jnp.zeros((), jnp.int32))

    def observe(self, state: LatentWalkState) -> Float[Array, "*N D"]:
        """What a policy sees: z, and the target as 1 among K − 1 zeros. The clock is not seen."""
        return jnp.concatenate([state.latents, jax.nn.one_hot(state.target, self.num_classes)], axis=-1)

    def step(
        self, state: LatentWalkState, action: Float[Array, "Z"]
    ) -> tuple[LatentWalkState, Float[Array, ""], Bool[Array, ""], Bool[Array, ""]]:
        """One move.

        Args:
            state: of one walk.
            action: Δz.

        Returns:
            `(next_state, reward, terminated, truncated)`.
        """
        squared = jnp.sum(action**2)
        shrink = self.max_move * jax.lax.rsqrt(jnp.maximum(squared, self.max_move**2))  # 1 if it is short enough
        latents = state.latents + shrink * action
        probability = self._probability(latents, state.target)
        homewards = 0.5 * (jnp.sum(state.latents**2) - jnp.sum(latents**2))  # what log N(z; 0, I) has risen by
        reward = probability - state.probability - self.move_cost * shrink**2 * squared
        reward += self.prior_weight * homewards
        next_state = LatentWalkState(latents, state.target, probability, state.time + 1)
        return next_state, reward, jnp.zeros((), bool), next_state.time >= self.max_steps

    def _probability(self, latents: Float[Array, "Z"], target: Int[Array, ""]) -> Float[Array, ""]:
        return self.score(self.decode(latents[None]))[0, target]


def filmstrip(env: LatentWalk, walks: Rollout) -> Float[Array, "N T1 *D"]:
    """Pictures of walks: what each place on the way decodes to, from the start to the end.

    Args:
        env: the environment that they were walked in.
        walks: `rollout(env, policy, key, env.max_steps, N, state)`, of whole episodes.

    Returns:
        `(N, max_steps + 1, ...)`, such as `(N, 9, 8, 8)`.

    Raises:
        ValueError: the rollout has another length, or no axis of walks.
    """
    if walks.rewards.ndim != 2 or len(walks.rewards) != env.max_steps:
        raise ValueError(f"walks: got rewards of shape {walks.rewards.shape}, needs ({env.max_steps}, N)")
    seen = jnp.concatenate([walks.observations, walks.next_observations[-1:]])[..., : env.latent_size]
    places = jnp.swapaxes(seen, 0, 1)
    pictures = env.decode(places.reshape(-1, env.latent_size))
    return pictures.reshape(*places.shape[:2], *pictures.shape[1:])
