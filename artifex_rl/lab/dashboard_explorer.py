"""Explorer of a dashboard: six recorded runs, their curves smoothed, and where a KL stop would have ended them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from matplotlib.figure import Figure

from artifex_rl.data.recorded_runs import load_recorded_runs
from artifex_rl.lab.canvas import INK
from artifex_rl.lab.control import Control
from artifex_rl.lab.explorer import Explorer

#: Thresholds of the KL stop, in nats, and over how many updates it averages.
TARGETS, WINDOW = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0), 10
#: What is drawn of each run: title, limits, and whether in powers of ten.
PANELS = {
    "episode_return": ("Return, ÷ its own best", (-0.05, 1.1), False),
    "episode_length": ("How long the pole stands", (0, 520), False),
    "entropy": ("Entropy, nats", (-0.03, 0.75), False),
    "approx_kl": ("KL of an update, nats", (-6, 1.7), True),
    "explained_variance": ("Explained variance", (-0.65, 1.1), False),
    "grad_norm": ("Gradient norm", (-1, 5), True),
}


class DashboardExplorer(Explorer):
    """The dashboard of one of six recorded runs of PPO on CartPole; five of them have a bug.

    Thin: as recorded after each update. Thick: the running average, values j places back weighed with `smoothing`ʲ
    and the weights divided by their sum, so that the beginning is not drawn towards 0. The upright line is the update
    at which `KLStop(target, window=10)` would have ended the run, were it watching "approx_kl".

    What the trainer maximises is the return; nobody is paid for how long the pole stands.

    Reference: Kingma & Ba (2015), arXiv:1412.6980, section 3, on the correction of the bias.
    """

    def __init__(self):
        recorded = load_recorded_runs()
        rows = {name: recorded.values[:, recorded.metrics.index(name)] for name in PANELS}
        rows["episode_return"] = rows["episode_return"] / rows["episode_return"].max(axis=1, keepdims=True)
        names = tuple(str(i + 1) for i in range(len(recorded.runs)))
        stops = tuple(f"{target:g}" for target in TARGETS)
        why = "Nats, averaged over ten updates, above which the run is stopped"
        super().__init__(
            [
                Control("run", 0, len(names) - 1, 1, 0, label="run", names=names, help="Which of the six"),
                Control("smoothing", 0, 0.95, 0.05, 0.8, label="smoothing", help="Weight of what was before"),
                Control("target", 0, len(TARGETS) - 1, 1, 5, label="KL stop", names=stops, help=why),
            ],
            jax.tree_util.Partial(_curves, {name: jnp.asarray(row) for name, row in rows.items()}),
            _figure,
            _describe,
            "One of these runs is healthy. Drag: which one, and what is the matter with the others?",
        )


def debiased_average(values: Float[Array, "K"], keep: float | Float[Array, ""]) -> Float[Array, "K"]:
    """Average of all values so far, those j places back weighed with keepʲ. keep is in [0, 1)."""
    places = jnp.arange(len(values), dtype=jnp.float32)
    back = places[:, None] - places[None, :]
    weights = jnp.where(back >= 0, jnp.asarray(keep, jnp.float32) ** jnp.maximum(back, 0.0), 0.0)
    return weights @ values / weights.sum(axis=1)


def kl_stop(kl: Float[Array, "K"], target: float | Float[Array, ""], window: int = WINDOW) -> Array:
    """The first update whose mean over the last `window` is more than `target`; K if there is none."""
    mean = jnp.convolve(kl, jnp.ones(window, kl.dtype) / window, mode="valid")
    over = jnp.append(mean > target, True)
    return jnp.argmax(over) + window - 1


def _curves(rows, run, smoothing, target):
    run, threshold = run.astype(int), jnp.asarray(TARGETS, jnp.float32)[target.astype(int)]
    stop = kl_stop(rows["approx_kl"][run], threshold)
    stop = jnp.where(stop < rows["approx_kl"].shape[1], stop.astype(jnp.float32), jnp.nan)
    curves = {"threshold": jnp.full(2, jnp.log10(threshold))}
    for name, (_, (low, high), powers) in PANELS.items():
        values = rows[name][run]
        for line, drawn in (("raw", values), ("mean", debiased_average(values, smoothing))):
            curves[f"{line}_{name}"] = jnp.clip(jnp.log10(jnp.maximum(drawn, 1e-9)) if powers else drawn, low, high)
        curves[f"stop_{name}"] = jnp.stack([jnp.stack([stop, stop]), jnp.array([low, high], jnp.float32)], axis=1)
    return curves


def _figure(curves, limits):
    fig = Figure(figsize=(8.8, 4.6))
    updates = len(curves["raw_entropy"])
    for axes, (name, (title, bounds, powers)) in zip(fig.subplots(2, 3).flat, PANELS.items(), strict=True):
        axes.plot(curves[f"raw_{name}"], gid=f"raw_{name}", color=INK["blue"]["color"], lw=0.7, alpha=0.55)
        axes.plot(curves[f"mean_{name}"], gid=f"mean_{name}", lw=2.2, **INK["blue"])
        axes.plot(*curves[f"stop_{name}"].T, gid=f"stop_{name}", lw=1.6, **INK["orange"])
        axes.set(xlim=(0, updates - 1), ylim=bounds)
        axes.set_title(title, fontsize=10.5)
        if powers:
            marks = range(int(np.ceil(bounds[0])), int(bounds[1]) + 1, 2)
            axes.set_yticks(marks, [f"$10^{{{mark}}}$" for mark in marks])
        if name == "approx_kl":
            axes.plot((0, updates - 1), curves["threshold"], gid="threshold", lw=1.2, **INK["green"])
        if axes.get_subplotspec().is_last_row():
            axes.set_xlabel("update")
    return fig


def _describe(knobs, curves):
    last = {name: curves[f"mean_{name}"][-1] for name in PANELS}
    stop, target = curves["stop_entropy"][0, 0], TARGETS[int(knobs["target"])]
    ends = "would not have stopped it" if np.isnan(stop) else f"would have stopped it after update {stop + 1:.0f}"
    return (
        f"Run {knobs['run'] + 1:.0f}, smoothed with {knobs['smoothing']:.2f}: in the end the return is at "
        f"{last['episode_return']:.2f} of its best, the pole stands for {last['episode_length']:.0f} steps, and the "
        f"entropy is {last['entropy']:.2f} nats. A KL stop at {target:g} {ends}."
    )
