"""Metrics over steps as small figures in a grid."""

from __future__ import annotations

import functools
import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from artifex_rl.data.extras import require

#: How much of a drawn average comes from the values before, and from how many values on it is drawn.
KEEP, MANY = 0.9, 50
#: Okabe and Ito's blue and orange, told apart by colour-blind readers.
INK = {"": "#0072B2", "val_": "#D55E00"}


def plot_series(series: dict[str, tuple[np.ndarray, np.ndarray]], names: Sequence[str] | None = None) -> Any:
    """A matplotlib Figure with axes for each metric; a metric and its "val_" share them.

    Args:
        series: the steps `(K,)` and the values `(K,)` of each metric, by name.
        names: which, without "val_". None: all.

    Raises:
        ValueError: there is no such metric.
        ImportError: matplotlib is not installed.
    """
    new_figure = _figure_class()
    there = list(dict.fromkeys(name.removeprefix("val_") for name in series))
    names = there if names is None else list(names)
    missing = [name for name in names if name not in there]
    if missing or not names:
        raise ValueError(f"names: got {missing or names}, needs some of {there}")
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    figure = new_figure(figsize=(3.4 * columns, 0.3 + 2.1 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True).flat
    for name, axes in zip(names, grid, strict=False):
        for prefix, color in INK.items():
            steps, values = series.get(prefix + name, (np.empty(0), np.empty(0)))
            many = len(values) >= MANY
            if len(values):
                axes.plot(steps, values, color=color, lw=0.8 if many else 1.6, alpha=0.35 if many else 1.0)
            if many:
                axes.plot(steps, running_average(values), color=color, lw=1.8)
            if prefix and len(values):
                axes.plot(steps, values, "o", color=color, ms=3, label="validation")
                axes.legend(frameon=False, fontsize=8)
        axes.set_title(name, loc="left", fontsize=10)
        axes.grid(color="#8888884d", lw=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
    for axes in grid:
        axes.remove()
    figure.supxlabel("step", fontsize=9)
    return figure


@functools.cache
def _figure_class() -> type:
    """matplotlib's Figure, which a notebook shows where it is the last line of a cell, without pyplot."""

    class Figure(require("matplotlib.figure", extra="lab").Figure):
        def _repr_png_(self) -> bytes:
            buffer = io.BytesIO()
            self.savefig(buffer, format="png", dpi=90, facecolor="white", metadata={"Software": None})
            return buffer.getvalue()

    return Figure


def running_average(values: np.ndarray, keep: float = KEEP) -> np.ndarray:
    """Average of all values so far, those j places back weighed with keepʲ; what is not finite is left out."""
    known = np.isfinite(values)
    total = weight = 0.0
    out = np.full(len(values), np.nan)
    for i, value in enumerate(np.where(known, values, 0.0)):
        total, weight = keep * total + value, keep * weight + known[i]
        out[i] = total / weight if weight else np.nan
    return out
