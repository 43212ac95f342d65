"""Explorer of denoising as a policy: what the log-probability of a trajectory is made of, step by step."""

from __future__ import annotations

from numbers import Integral

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from matplotlib.figure import Figure

from artifex_rl.diffusion import cosine_schedule, denoising_levels, denoising_step, linear_schedule
from artifex_rl.lab.canvas import INK
from artifex_rl.lab.control import Control
from artifex_rl.lab.explorer import Explorer
from artifex_rl.rl.distributions import DiagonalGaussian

#: The schedules, each of as many steps as there can be; fewer go through the same noise levels.
MOST_STEPS = 20
SCHEDULES = {"cosine": cosine_schedule(MOST_STEPS), "linear": linear_schedule(MOST_STEPS)}
#: How far the guess of every pixel is moved, in pixels' units: their full range is 2.
ERROR = 0.1
#: Where the two densities of a pixel are drawn.
PLACES = np.linspace(-0.8, 0.8, 81).astype(np.float32)
#: Prices below it are not drawn.
LEAST_PRICE = 1e-4


class DenoisingExplorer(Explorer):
    """What schedule, number of steps, η and the floor of the noise make of the log-probability of a trajectory.

    A step of denoising is drawn from N(μ, σ²), see `denoising_step`. Upper left: ᾱ after each step, and σ. Upper
    right: the mean log-probability of a step under the policy that drew it, −D (log σ + ½ log 2πe), with a band of
    one standard deviation, √(D/2): it depends on σ and D, and not at all on the network. Lower left: what it costs
    to move the guess x̂₀ of every pixel by 0.1, the KL of the step in nats. Without a floor and with η = 1 that is
    ½ D · 0.1² times what the step adds to the signal-to-noise ratio ᾱ/(1 − ᾱ). Lower right: the densities of one
    pixel at the chosen step, by the guess and by the moved one. Everything is computed by `denoising_step` and
    `DiagonalGaussian`, as the policy and the exact KL of the trainer are.

    Args:
        dimensions: D ≥ 1, how many pixels a picture has.

    Raises:
        ValueError: `dimensions` is not a positive integer.

    Reference: Ho et al. (2020), arXiv:2006.11239, eqs. 6 and 7; Song et al. (2021), arXiv:2010.02502, eq. 16, for η;
    Kingma et al. (2021), *Variational Diffusion Models*, arXiv:2107.00630, eq. 14, for the price.
    """

    def __init__(self, dimensions: int = 64):
        if isinstance(dimensions, bool) or not isinstance(dimensions, Integral) or dimensions < 1:
            raise ValueError(f"dimensions: got {dimensions!r}, needs an integer of at least 1")
        # A leaf in which nothing but the shape counts: another number of pixels is another compilation.
        pixels = np.zeros(int(dimensions), np.float32)
        names = tuple(SCHEDULES)
        super().__init__(
            [
                Control("schedule", 0, len(names) - 1, 1, 0, names=names, help="How the noise is spread over time"),
                Control("steps", 2, MOST_STEPS, 1, 5, label="T  steps", help="Steps from noise to a picture"),
                Control("eta", 0.05, 1, 0.05, 1, label="η  noise", help="How noisy the steps are: 1 is DDPM"),
                Control("min_std", 0.02, 0.3, 0.01, 0.1, label="floor of σ", help="No step has less noise than this"),
                Control("step", 1, MOST_STEPS, 1, 5, help="Which step is drawn at the lower right; at most T"),
            ],
            jax.tree_util.Partial(_curves, _tables(), pixels),
            lambda curves, limits: _figure(curves, int(dimensions)),
            _describe,
            "Drag η and T: what is a trajectory's log-probability made of?",
        )


def _tables():
    """ᾱ before and after each step, for every schedule and number of steps, `(2, schedules, T, 20)`; rows are filled
    up with levels that nobody looks at."""
    rows = [
        [_padded(schedule.respace(steps)) for steps in range(1, MOST_STEPS + 1)] for schedule in SCHEDULES.values()
    ]
    return np.moveaxis(np.array(rows, np.float32), 2, 0)


def _padded(schedule):
    before, after, _ = denoising_levels(schedule)
    empty = MOST_STEPS - len(before)
    return np.pad(before, (0, empty), constant_values=0.5), np.pad(after, (0, empty), constant_values=0.6)


def step_prices(
    before: ArrayLike, after: ArrayLike, eta: ArrayLike, min_std: ArrayLike, pixels: ArrayLike
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """How far a step moves with its guess, its noise, its mean log-probability, and what `ERROR` costs in nats.

    Args:
        before: ᾱ before each step, `(T,)`.
        after: ᾱ after it, `(T,)`.
        eta: η.
        min_std: floor of the noise.
        pixels: `(D,)`; its length counts.

    Returns:
        Shift of the mean, σ, −H and KL of each step, all `(T,)`.
    """
    nothing = jnp.zeros_like(before)
    mean, std = denoising_step(nothing, nothing, before, after, eta, min_std)
    shift = denoising_step(nothing, nothing + ERROR, before, after, eta, min_std)[0] - mean
    log_std = jnp.log(std)[:, None] + pixels[None]
    moved, home = (DiagonalGaussian(offset[:, None] + pixels[None], log_std) for offset in (shift, nothing))
    return shift, std, -home.entropy(), moved.kl(home)


def _curves(tables, pixels, schedule, steps, eta, min_std, step):
    row = tables[:, schedule.astype(int), steps.astype(int) - 1]
    shift, std, log_prob, price = step_prices(*row, eta, min_std, pixels)
    place = jnp.arange(1.0, MOST_STEPS + 1)
    there = place <= steps

    def over_time(values):
        return jnp.stack([jnp.where(there, place / steps, jnp.nan), jnp.where(there, values, jnp.nan)], axis=1)

    spread = jnp.sqrt(pixels.size / 2)
    chosen = jnp.minimum(step, steps).astype(int) - 1
    pixel = DiagonalGaussian(jnp.zeros_like(PLACES), jnp.log(std[chosen]), event_ndim=0)
    top = pixel.log_prob(jnp.zeros_like(PLACES))
    curves = {
        "alpha_bar": over_time(row[1]),
        "std": over_time(std),
        "log_prob": over_time(log_prob),
        "log_prob_low": over_time(log_prob - spread),
        "log_prob_high": over_time(log_prob + spread),
        "price": over_time(jnp.maximum(price, LEAST_PRICE)),
        "guess": jnp.exp(pixel.log_prob(jnp.asarray(PLACES)) - top),
        "moved": jnp.exp(pixel.log_prob(PLACES - shift[chosen]) - top),
    }
    for name in ("std", "log_prob", "price"):
        curves[f"here_{name}"] = curves[name][chosen][None]
    for name in ("alpha_bar", "std", "log_prob", "price"):
        curves[f"dots_{name}"] = curves[name]  # in the page a line moves its path or its marks
    return curves


def _figure(curves, dimensions):
    fig = Figure(figsize=(8.6, 5.6))
    (noise, log_prob), (price, pixel) = fig.subplots(2, 2)
    noise.plot(*curves["alpha_bar"].T, gid="alpha_bar", label="ᾱ, share of the picture", **INK["green"])
    noise.plot(*curves["std"].T, gid="std", label="σ, noise of the step", **INK["blue"])
    log_prob.plot(*curves["log_prob"].T, gid="log_prob", label="mean", **INK["blue"])
    for edge in ("low", "high"):
        name = f"log_prob_{edge}"
        log_prob.plot(*curves[name].T, gid=name, label=f"± one deviation, {edge}", **{**INK["grey"], "lw": 1})
    price.plot(*curves["price"].T, gid="price", label="KL of the step", **INK["orange"])
    dots = (
        (noise, "alpha_bar", "green"),
        (noise, "std", "blue"),
        (log_prob, "log_prob", "blue"),
        (price, "price", "orange"),
    )
    for axes, name, ink in dots:
        axes.plot(*curves[name].T, gid=f"dots_{name}", ls="", marker="o", ms=4, color=INK[ink]["color"])
    for axes, name in ((noise, "std"), (log_prob, "log_prob"), (price, "price")):
        here = curves[f"here_{name}"].T
        axes.plot(*here, gid=f"here_{name}", ls="", marker="o", ms=10, mfc="none", mec="black", mew=1.4)
        axes.set(xlim=(0, 1.04), xlabel="share of the way from noise to picture")
    pixel.plot(PLACES, curves["guess"], gid="guess", label="by the guess", **INK["blue"])
    pixel.plot(PLACES, curves["moved"], gid="moved", label=f"guess moved by {ERROR:g}", **INK["orange"])
    noise.set(ylim=(0, 1.55), yticks=(0, 0.5, 1), title="Signal and noise")
    noise.legend(loc="upper left", fontsize=9.5)
    log_prob.set(ylim=(-1.8 * dimensions, 4 * dimensions), title=f"log π of a step, {dimensions} pixels, in nats")
    log_prob.legend(
        [log_prob.lines[0], log_prob.lines[1]], ["mean", "± one deviation"], loc="upper left", fontsize=9.5
    )
    price.set(ylim=(LEAST_PRICE * dimensions, 30 * dimensions), yscale="log")
    price.set_title(f"Price of moving x̂₀ by {ERROR:g}, in nats")
    pixel.set(xlim=(-0.8, 0.8), ylim=(0, 1.55), yticks=(0, 0.5, 1), xlabel="where the step puts a pixel")
    pixel.set_title("Density of one pixel at the ringed step")
    pixel.legend(loc="upper left", fontsize=9.5)
    return fig


def _describe(knobs, curves):
    steps = round(knobs["steps"])
    price, log_prob = curves["price"][:steps, 1], curves["log_prob"][:steps, 1]
    dearest = int(price.argmax()) + 1
    share = "all" if price[dearest - 1] > 0.995 * price.sum() else f"{price[dearest - 1] / price.sum():.0%}"
    return (
        f"With T = {steps} and η = {knobs['eta']:.2f} a trajectory's log-probability is {log_prob.sum():.0f} nats "
        f"on average; to move every guess by {ERROR:g} costs {price.sum():.3g} nats, {share} of it in step {dearest}."
    )
