"""Explorer of a discriminator as a reward: what it pays for, and what samples say of its slope."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import ArrayLike
from jaxtyping import Array, Float
from matplotlib.figure import Figure

from artifex_rl.data.digits import to_pixels
from artifex_rl.data.digits_gan import load_digits_gan
from artifex_rl.lab.canvas import INK
from artifex_rl.lab.control import Control
from artifex_rl.lab.explorer import Explorer
from artifex_rl.lab.halftone import SIDE, draw_halftone, halftone
from artifex_rl.lab.scored_actions import check_finite
from artifex_rl.rl.arrays import read_floats
from artifex_rl.rl.discriminator_reward import DiscriminatorReward
from artifex_rl.rl.distributions import DiagonalGaussian

#: Steps uphill, how far each goes, in root mean square of a pixel, and the standard deviations of the policy.
STEPS, STEP_SIZE = 30, 0.06
STDS = np.round(np.arange(0.05, 0.61, 0.05), 2).astype(np.float32)
#: Draws for each mean, every one with its mirror image; samples of a batch; pictures shown; pictures to start from.
DRAWS, BATCH, SHOWN, MOST_IMAGES = 64, 256, 7, 6

ESTIMATORS = {
    "plain": ("score function", "grey"),
    "baseline": ("with a baseline", "orange"),
    "pathwise": ("through D", "blue"),
}
#: Errors are drawn between these, in shares of the true gradient's length.
LEAST_ERROR, MOST_ERROR = 0.01, 30.0


class DiscriminatorExplorer(Explorer):
    """A discriminator's score as a picture is pushed uphill, and how well samples around it know where uphill is.

    The policy draws from N(x, σ² I), and is paid D of what it drew. Left: D of x itself along the steepest way up,
    and along a random way as far; between them what the policy is paid, the mean of D over its draws, with a
    deviation to either side. Right, for the σ of every stop: the error of the gradient of that mean by x, from a
    batch of 256, in shares of its length. Three estimates: the score function, D ∇ log N, without a baseline and
    with E[D] as one; and "through D", the mean of ∇D at the draws, which a reward that is no network does not offer.
    Below: draws.

    For a D that is linear, of slope w and value D(x) in d pixels, one sample's total variance is ‖w‖² (d + 1) with
    the baseline, whatever σ is, D(x)² d / σ² more without, and 0 through D.

    Args:
        images: `(P, 8, 8)` in [−1, 1], 1 ≤ P ≤ 6, to start from. Default: three digits of `load_digits_gan`'s
            generator, and noise.
        discriminator: an `nnx.Module`, called with pictures `(B, 8, 8)`. Default: the one that this generator met.

    Raises:
        TypeError: `discriminator` is no module that can be called.
        ValueError: `images` have another shape or a number that is not finite, or the discriminator cannot read them.

    Reference: Mohamed, Rosca, Figurnov & Mnih (2019), *Monte Carlo Gradient Estimation in Machine Learning*,
    arXiv:1906.10652, sections 4 and 5.
    """

    def __init__(self, images: ArrayLike | None = None, discriminator: nnx.Module | None = None):
        names = ()
        if images is None or discriminator is None:
            generator, opponent = load_digits_gan()
            discriminator = opponent if discriminator is None else discriminator
            names, images = _pictures(generator) if images is None else ((), images)
        reward, (images,) = DiscriminatorReward(discriminator), read_floats(images=images)
        if images.ndim != 3 or images.shape[1:] != (SIDE, SIDE) or not 1 <= len(images) <= MOST_IMAGES:
            raise ValueError(f"images: got shape {images.shape}, needs (P, {SIDE}, {SIDE}) with 1 to {MOST_IMAGES}")
        check_finite("images", images)
        noise = mirrored_noise(DRAWS)
        paths = climb(reward, images.astype(jnp.float32))
        tables = {
            "paths": paths[0],
            "score": reward_along(reward, paths[0]),
            "random": reward_along(reward, paths[1]),
        }
        tables |= _tabulate(reward, paths[0], noise)
        controls = [
            Control("push", 0, STEPS, 1, 0, label="push", help="Steps along the steepest way up"),
            Control("std", 0.05, 0.6, 0.05, 0.2, label="σ  noise", help="Standard deviation of a pixel"),
        ]
        if len(images) > 1:
            help = "Which picture to start from"
            controls.append(Control("picture", 1, len(images), 1, 1, help=help, names=names))
        super().__init__(
            controls,
            jax.tree_util.Partial(_curves, tables, noise[:SHOWN]),
            _figure,
            _describe,
            "Push a picture to where the discriminator wants it",
        )


def mirrored_noise(draws: int) -> Float[Array, "M 8 8"]:
    """`draws` pictures of noise from N(0, 1), of which every second is the one before with the other sign."""
    half = np.random.default_rng(0).normal(size=(draws // 2, SIDE, SIDE)).astype(np.float32)
    return jnp.asarray(np.stack([half, -half], axis=1).reshape(-1, SIDE, SIDE))


@jax.jit(static_argnums=0)
def climb(reward: DiscriminatorReward, images: Float[Array, "P 8 8"]) -> Float[Array, "2 P S 8 8"]:
    """Where `STEPS` steps lead: along the reward's gradient, and in one random direction. Pixels stay in [−1, 1]."""
    at_random = jax.random.normal(jax.random.key(1), images.shape)

    def step(places, _):
        uphill = jax.grad(lambda x: jnp.sum(reward(x)))(places[0])
        ways = jnp.stack([uphill, at_random])
        length = jnp.sqrt(jnp.mean(ways**2, axis=(2, 3), keepdims=True))
        return jnp.clip(places + STEP_SIZE * ways / jnp.maximum(length, 1e-12), -1.0, 1.0), places

    last, before = jax.lax.scan(step, jnp.stack([images, images]), length=STEPS)
    return jnp.moveaxis(jnp.concatenate([before, last[None]]), 0, 2)


def reward_along(reward: DiscriminatorReward, paths: Float[Array, "P S 8 8"]) -> Float[Array, "P S"]:
    """The reward of every picture of some paths."""
    return reward(paths.reshape(-1, SIDE, SIDE)).reshape(paths.shape[:2])


def gradient_samples(reward: DiscriminatorReward, mean: Array, std: Array, noise: Array) -> tuple[Array, dict]:
    """Rewards `(M,)` of draws from N(mean, std² I), and what each says of ∇ E[reward] by the mean, `(M, 8, 8)`.

    "plain" is r ∇ log N, with the library's density; "baseline" is (r − mean r) ∇ log N; "pathwise" is ∇ r.
    """
    draws = mean[None] + std * noise

    def log_prob(mean, draw):
        return DiagonalGaussian(mean, jnp.full(mean.shape, jnp.log(std)), event_ndim=2).log_prob(draw)

    scores = jax.vmap(jax.grad(log_prob), (None, 0))(mean, draws)
    rewards, pull = jax.vjp(reward, draws)
    weighed = {"plain": rewards, "baseline": rewards - jnp.mean(rewards)}
    estimates = {name: weight[:, None, None] * scores for name, weight in weighed.items()}
    return rewards, estimates | {"pathwise": pull(jnp.ones_like(rewards))[0]}


def summarise_gradients(rewards: Array, estimates: dict[str, Array]) -> dict[str, Array]:
    """Mean and deviation of the rewards, and each estimate's error from `BATCH` samples ÷ the gradient's length."""
    true = jnp.mean(estimates["pathwise"], axis=0)
    length = jnp.maximum(jnp.sqrt(jnp.sum(true**2)), 1e-12)
    found = {"mean": jnp.mean(rewards), "deviation": jnp.std(rewards)}
    for name, samples in estimates.items():
        variance = jnp.mean(jnp.sum((samples - true[None]) ** 2, axis=(1, 2)))
        found[name] = jnp.sqrt(variance / BATCH) / length
    return found


def _tabulate(reward, paths, noise):
    """`summarise_gradients` for every picture, push and standard deviation, `(P, S, len(STDS))`."""

    def at(place):
        return jax.vmap(lambda std: summarise_gradients(*gradient_samples(reward, place, std, noise)))(STDS)

    every = jax.jit(lambda places: jax.lax.map(at, places))(paths.reshape(-1, SIDE, SIDE))
    return {name: values.reshape(*paths.shape[:2], -1) for name, values in every.items()}


def _curves(tables, noise, push, std, picture=1.0):
    row, step = jnp.round(picture).astype(int) - 1, jnp.round(push).astype(int)
    column = jnp.round((std - STDS[0]) / 0.05).astype(int)
    paid, deviation = (tables[name][row, :, column] for name in ("mean", "deviation"))
    curves = {name: tables[name][row] for name in ("score", "random")}
    curves |= {"paid": paid, "low": paid - deviation, "high": paid + deviation}
    curves["here"] = jnp.stack([jnp.float32(push), curves["score"][step]])[None]
    curves["here_paid"] = jnp.stack([jnp.float32(push), paid[step]])[None]
    for name in ESTIMATORS:
        error = jnp.clip(tables[name][row, step], LEAST_ERROR, MOST_ERROR)
        curves[name] = error
        curves[f"here_{name}"] = jnp.stack([jnp.float32(std), error[column]])[None]
    mean = tables["paths"][row, step]
    curves["drawn"] = halftone(jnp.concatenate([to_pixels(mean)[None], to_pixels(mean[None] + std * noise)]))
    return curves


def _figure(curves, limits):
    fig = Figure(figsize=(8.6, 4.7))
    grid = fig.add_gridspec(2, 2, height_ratios=(3.4, 1))
    score, error = fig.add_subplot(grid[0, 0]), fig.add_subplot(grid[0, 1])
    steps = np.arange(STEPS + 1)
    score.plot(steps, curves["score"], gid="score", label="D, pushed uphill", **INK["blue"])
    score.plot(steps, curves["paid"], gid="paid", label="paid: mean of draws", **INK["orange"])
    for edge in ("low", "high"):
        score.plot(steps, curves[edge], gid=edge, **{**INK["orange"], "lw": 0.9})
    score.plot(steps, curves["random"], gid="random", label="D, pushed at random", **INK["green"])
    for name, ink in (("here", "blue"), ("here_paid", "orange")):
        score.plot(*curves[name].T, gid=name, marker="o", ms=7, ls="", color=INK[ink]["color"])
    low = min(limits[name][0] for name in ("score", "random", "low"))
    high = max(limits[name][1] for name in ("score", "random", "high"))
    room = 0.06 * (high - low)
    score.set(xlim=(0, STEPS), ylim=(low - room, high + 8 * room), xlabel="push, in steps", title="The verdict of D")
    score.legend(loc="upper left", fontsize=9.5)

    for name, (label, ink) in ESTIMATORS.items():
        error.plot(STDS, curves[name], gid=name, label=label, **INK[ink])
        error.plot(*curves[f"here_{name}"].T, gid=f"here_{name}", marker="o", ms=7, ls="", color=INK[ink]["color"])
    error.axhline(1, color="#888888", lw=0.8)
    error.set(xlim=(0, 0.62), yscale="log", ylim=(LEAST_ERROR / 1.4, MOST_ERROR * 6), xlabel="σ, noise of the policy")
    error.set_title(f"Error of {BATCH} draws ÷ true slope")
    error.legend(loc="upper right", fontsize=9.5, ncols=2, columnspacing=1.2)

    below = fig.add_subplot(grid[1, :])
    draw_halftone(below, curves["drawn"], gid="drawn", width=4.6)
    below.set_title("The picture, and what the policy draws around it")
    return fig


def _describe(knobs, curves):
    errors = {name: curves[f"here_{name}"][0, 1] for name in ESTIMATORS}
    spread = (curves["high"] - curves["low"])[round(knobs["push"])] / 2
    return (
        f"After {knobs['push']:.0f} steps uphill D says {curves['here'][0, 1]:+.2f} of the picture, and pays the "
        f"policy {curves['here_paid'][0, 1]:+.2f} ± {spread:.2f} with σ = {knobs['std']:.2f}; from {BATCH} draws its "
        f"slope is off by {errors['plain']:.0%} by the score function, {errors['baseline']:.0%} with a baseline, and "
        f"{errors['pathwise']:.0%} through D."
    )


def _pictures(generator):
    """What the default explorer starts from, and what it is called: three of the generator's digits, and no digit."""
    digits = generator(jax.random.normal(jax.random.key(0), (40, generator.latent_size)))[jnp.array([7, 5, 18])]
    noise = np.random.default_rng(0).uniform(-1, 1, (1, SIDE, SIDE)).astype(np.float32)
    return ("a nine", "a seven", "a zero", "noise"), jnp.concatenate([digits, jnp.asarray(noise)])
