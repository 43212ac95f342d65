"""Explorer of the exact answer: a law, its tilt by a reward, and how near to the tilt a policy gradient has come."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float
from matplotlib.figure import Figure

from artifex_rl.generative.energy import tilt_energy
from artifex_rl.lab.canvas import INK
from artifex_rl.lab.control import Control
from artifex_rl.lab.explorer import Explorer
from artifex_rl.rl.distributions import Categorical

#: Where the laws are computed; sums over it stand for integrals.
GRID = np.linspace(-3, 3, 121).astype(np.float32)
WIDTH = float(GRID[1] - GRID[0])
#: What the policy learns: how high to heap up each of these hills upon its energy.
HILLS = np.exp(-0.5 * ((GRID[:, None] - np.linspace(-3.3, 3.3, 34)) / 0.3) ** 2).astype(np.float32)
MOST_UPDATES, EVERY, LEARNING_RATE = 120, 4, 0.1
#: The frontier is drawn through the tilts of these 1/β.
SHARPNESS = np.concatenate([[0.0], np.geomspace(0.05, 60, 59)]).astype(np.float32)
REWARDS = ("slope", "hill", "step")
#: Densities above are cut off, and so are distances.
MOST_DENSITY, MOST_KL = 2.0, 4.0


def two_valleys(x: Float[Array, "K"]) -> Float[Array, "K"]:
    """An energy with a deep valley at the left and a shallow one at the right."""
    return 0.8 * (x**2 - 1.7) ** 2 + 0.35 * x


class EnergyTiltExplorer(Explorer):
    """p ∝ exp(−E/τ) on a line, the law p* ∝ p exp(r/β) that is the best a reward can make of it, and a policy that is
    trained for E[r] − β KL(π ‖ p) by its gradient.

    Left: the densities. Right: what is paid beside how far it is from p. Every law that is to be had lies below the
    frontier, on which the tilts of all β are. The policy's energy is E plus 34 hills whose heights are learnt by
    Adam, from 0 on; its gradient is exact, a sum over the grid, and nothing is sampled.

    The rewards run from 0 to 1: a slope; a hill around 1.2, where the shallow valley is; and a step that pays 1
    beyond it, from 1.6 on, where hardly anything is.

    Args:
        energy: maps x `(K,)` to energies `(K,)`, in JAX; on −3 … 3. Default: two valleys.

    Raises:
        ValueError: an energy is not finite on the grid, or has another shape.

    Reference: Korbak et al. (2022), arXiv:2205.11275, eq. 4.
    """

    def __init__(self, energy: Callable[[Array], Array] = two_valleys):
        energies = np.asarray(energy(jnp.asarray(GRID)), np.float32)
        if energies.shape != GRID.shape or not np.isfinite(energies).all():
            raise ValueError(f"energy: got shape {energies.shape}, needs finite numbers of shape {GRID.shape}")
        super().__init__(
            [
                Control("beta", 0.05, 1, 0.05, 0.3, label="β  KL weight", help="What a nat of distance costs"),
                Control("temperature", 0.5, 2, 0.1, 1, label="τ  temperature", help="Of the reference, exp(−E/τ)"),
                Control("reward", 0, 2, 1, 0, label="reward", names=REWARDS, help="What is paid for"),
                Control("updates", 0, MOST_UPDATES, EVERY, 12, help="How often the policy has followed its gradient"),
            ],
            jax.tree_util.Partial(_curves, jnp.asarray(energies - energies.min())),
            _figure,
            _describe,
            "Drag β: where is the best law? Drag the updates: does the policy get there?",
        )


def reward_of(kind: Float[Array, ""]) -> Float[Array, "K"]:
    """Reward over the grid, from 0 to 1: 0 a slope, 1 a hill, 2 a step."""
    x = jnp.asarray(GRID)
    shapes = jnp.stack([(x + 3) / 6, jnp.exp(-0.5 * ((x - 1.2) / 0.4) ** 2), jax.nn.sigmoid((x - 1.6) / 0.05)])
    return shapes[jnp.asarray(kind).astype(int)]


def tilted(energies: Array, rewards: Array, beta: Array, temperature: Array) -> Categorical:
    """The law of exp(−(E − τ r/β)/τ) on the grid."""
    return Categorical(-tilt_energy(energies, rewards, beta / temperature) / temperature)


def worth(law: Categorical, reference: Categorical, rewards: Float[Array, "K"]) -> tuple[Array, Array]:
    """E[r] and KL(law ‖ reference), exactly."""
    return jnp.exp(law.log_probs) @ rewards, law.kl(reference)


def train(
    energies: Float[Array, "K"], rewards: Float[Array, "K"], beta: Array, temperature: Array
) -> Float[Array, "U K"]:
    """The policy's energies before each update and after the last: ascent of E[r] − β KL from E on."""
    reference, adam = Categorical(-energies / temperature), optax.adam(LEARNING_RATE)

    def objective(heights):
        law = Categorical(-(energies + jnp.asarray(HILLS) @ heights) / temperature)
        reward, kl = worth(law, reference, rewards)
        return beta * kl - reward

    def update(carry, _):
        heights, state = carry
        # Divided by β: in units of the penalty, in which the end is as far away for every β.
        slope = jax.grad(objective)(heights) / beta
        with jax.numpy_dtype_promotion("standard"):  # optax multiplies floats by its integer count
            moves, state = adam.update(slope, state)
        return (optax.apply_updates(heights, moves), state), heights

    heights = jnp.zeros(HILLS.shape[1], energies.dtype)
    (last, _), seen = jax.lax.scan(update, (heights, adam.init(heights)), None, MOST_UPDATES)
    return energies[None] + jnp.concatenate([seen, last[None]]) @ jnp.asarray(HILLS).T


def _curves(energies, beta, temperature, reward, updates):
    rewards = reward_of(reward)
    reference = Categorical(-energies / temperature)

    def place(logits):
        reward, kl = worth(Categorical(logits), reference, rewards)
        return jnp.stack([kl, reward])

    best = tilted(energies, rewards, beta, temperature)
    trained = train(energies, rewards, beta, temperature)
    now = Categorical(-trained[updates.astype(int)] / temperature)
    frontier = jax.vmap(lambda sharpness: place(reference.logits + sharpness * rewards))(jnp.asarray(SHARPNESS))
    laws = {"reference": reference, "tilt": best, "policy": now}
    curves = {name: jnp.minimum(jnp.exp(law.log_probs) / WIDTH, MOST_DENSITY) for name, law in laws.items()}
    curves["paid"] = rewards
    curves["frontier"] = jnp.where(frontier[:, :1] <= MOST_KL, frontier, jnp.nan)
    way = jax.vmap(place)(-trained[::EVERY] / temperature)
    shown = (jnp.arange(len(way), dtype=way.dtype) * EVERY <= updates)[:, None] & (way[:, :1] <= MOST_KL)
    curves["way"] = jnp.where(shown, way, jnp.nan)
    for name, law in laws.items():
        reward, kl = worth(law, reference, rewards)
        curves[f"at_{name}"] = jnp.stack([jnp.minimum(kl, MOST_KL), reward])[None]
    return curves


def _figure(curves, limits):
    fig = Figure(figsize=(8.6, 3.9))
    line, plane = fig.subplots(1, 2, width_ratios=(1.25, 1))
    line.plot(GRID, curves["paid"], gid="paid", label="reward", **INK["grey"])
    names = {"reference": ("blue", "reference"), "tilt": ("orange", "tilt, exact"), "policy": ("green", "policy")}
    for name, (ink, label) in names.items():
        style = INK[ink] | ({"lw": 4.5, "alpha": 0.55, "linestyle": "-"} if name == "tilt" else {})
        line.plot(GRID, curves[name], gid=name, label=label, **style)
    line.set(xlim=(-3, 3), ylim=(0, 1.22 * MOST_DENSITY), xlabel="x", title="Densities, and the reward")
    line.legend(loc="upper left", ncols=2)
    style = INK["orange"] | {"lw": 4.5, "alpha": 0.55, "linestyle": "-"}
    plane.plot(*curves["frontier"].T, gid="frontier", label="all tilts", **style)
    plane.plot(*curves["way"].T, gid="way", label="the policy's way", **INK["green"])
    for name, (ink, label) in names.items():
        marker = {"reference": "s", "tilt": "o", "policy": "^"}[name]
        dot = {"marker": marker, "ms": 9 if name == "tilt" else 6, "ls": "", "color": INK[ink]["color"]}
        plane.plot(*curves[f"at_{name}"].T, gid=f"at_{name}", label=label, **dot)
    plane.set(xlim=(-0.1, MOST_KL), ylim=(0, 1.05), xlabel="KL to the reference, nats", title="Mean reward")
    plane.legend(loc="lower right", fontsize=9.5)
    return fig


def _describe(knobs, curves):
    (kl, reward), (far, paid) = curves["at_tilt"][0], curves["at_policy"][0]
    gap = 0.5 * WIDTH * np.abs(curves["policy"] - curves["tilt"]).sum()
    return (
        f"With β = {knobs['beta']:.2f} the tilt is paid {reward:.2f} at {_nats(kl)}. After {knobs['updates']:.0f} "
        f"updates the policy is paid {paid:.2f} at {_nats(far)}; {100 * gap:.0f} % of its mass lies elsewhere."
    )


def _nats(kl):
    return f"{kl:.2f} nats" if kl < MOST_KL else f"{MOST_KL:.0f} nats or more"
