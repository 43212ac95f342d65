"""CartPole-v1 in pure JAX: balance a pole on a cart by pushing the cart left or right."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int

GRAVITY = 9.8  # m/s²
POLE_MASS = 0.1  # kg
TOTAL_MASS = 1.0 + POLE_MASS  # kg, cart and pole
POLE_HALF_LENGTH = 0.5  # m, from the axle to the pole's centre of mass
FORCE = 10.0  # N, of one push
TIME_STEP = 0.02  # s between two decisions
MAX_X = 2.4  # m, half the track
MAX_THETA = math.radians(12)  # rad
MAX_START = 0.05  # each of the four numbers starts within ± this


class CartPoleState(NamedTuple):
    """Where the cart and the pole are. Every field is a scalar, or `(N,)` for N environments under `vmap`."""

    x: Float[Array, "*N"]  # cart's position on the track, m; 0 is the middle
    x_dot: Float[Array, "*N"]  # cart's velocity, m/s
    theta: Float[Array, "*N"]  # pole's angle from upright, rad; positive leans right
    theta_dot: Float[Array, "*N"]  # pole's angular velocity, rad/s
    time: Int[Array, "*N"]  # steps taken since the reset


@dataclass(frozen=True)
class CartPole:
    """The rules of CartPole-v1. It holds no state: every method is a pure function, for jit, vmap and scan.

    An episode *terminates* when the cart leaves ±2.4 m or the pole leans more than 12°. It is *truncated* after
    `max_steps` steps: the clock stopped it, though the pole still stood, so the state reached is worth something.

    Args:
        max_steps: length limit of an episode, at least 1.

    Raises:
        ValueError: `max_steps` is less than 1.

    Reference: Barto, Sutton & Anderson (1983), *Neuronlike Adaptive Elements That Can Solve Difficult Learning
    Control Problems*, IEEE SMC-13; equations and constants as in gymnasium's CartPole-v1 (Towers et al., 2024,
    arXiv:2407.17032), without friction and with its default Euler integrator.
    """

    max_steps: int = 500

    num_actions: ClassVar[int] = 2
    observation_size: ClassVar[int] = 4

    def __post_init__(self) -> None:
        if self.max_steps < 1:
            raise ValueError(f"max_steps: got {self.max_steps}, needs at least 1")

    def reset(self, key: Array) -> CartPoleState:
        """A new episode's first state: position, angle and both velocities uniform in ±0.05."""
        start = jax.random.uniform(key, (4,), minval=-MAX_START, maxval=MAX_START)
        return CartPoleState(*start, time=jnp.zeros((), jnp.int32))

    def observe(self, state: CartPoleState) -> Float[Array, "*N 4"]:
        """What a policy sees: `(x, x_dot, theta, theta_dot)` on the last axis. The clock is not seen."""
        return jnp.stack([state.x, state.x_dot, state.theta, state.theta_dot], axis=-1)

    def step(
        self, state: CartPoleState, action: ArrayLike
    ) -> tuple[CartPoleState, Float[Array, "*N"], Bool[Array, "*N"], Bool[Array, "*N"]]:
        """Push the cart once and let 0.02 s pass.

        Args:
            state: the state to act in. After an episode has ended, `reset` first: `step` would go on falling.
            action: integer, 1 pushes right and 0 left. Under jit a value cannot be checked, so nothing raises:
                whatever is not 1 pushes left.

        Returns:
            `(next_state, reward, terminated, truncated)`: the reward is 1 at every step, the last included; both
            flags are true when the pole falls at the very step of the limit.
        """
        force = jnp.where(jnp.equal(action, 1), FORCE, -FORCE)
        sin, cos = jnp.sin(state.theta), jnp.cos(state.theta)

        # The pole's inertia pulls at the cart and the cart's acceleration tips the pole: two equations, solved.
        push = (force + POLE_MASS * POLE_HALF_LENGTH * state.theta_dot**2 * sin) / TOTAL_MASS
        theta_acc = (GRAVITY * sin - cos * push) / (POLE_HALF_LENGTH * (4.0 / 3.0 - POLE_MASS * cos**2 / TOTAL_MASS))
        x_acc = push - POLE_MASS * POLE_HALF_LENGTH * theta_acc * cos / TOTAL_MASS

        # Explicit Euler: positions move with the velocities of before the push.
        next_state = CartPoleState(
            x=state.x + TIME_STEP * state.x_dot,
            x_dot=state.x_dot + TIME_STEP * x_acc,
            theta=state.theta + TIME_STEP * state.theta_dot,
            theta_dot=state.theta_dot + TIME_STEP * theta_acc,
            time=state.time + 1,
        )
        terminated = (jnp.abs(next_state.x) > MAX_X) | (jnp.abs(next_state.theta) > MAX_THETA)
        truncated = jnp.greater_equal(next_state.time, self.max_steps)
        return next_state, jnp.ones_like(next_state.x), terminated, truncated
