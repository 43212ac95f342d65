"""Frames: an explorer's curves at many stops at once, and their compact form for the page.

A frame is what the page needs for one setting of the knobs: the points of every curve, in the figure's own SVG
coordinates, and a one-sentence summary. A strip is the frames at all stops of one slider, the others held. A grid is
the frames over coarser stops of all sliders; it serves where no kernel answers.
"""

from __future__ import annotations

import itertools
import math
import zlib
from collections.abc import Callable, Sequence

import jax
import numpy as np

from artifex_rl.lab.control import Control

#: Points are sent as 16-bit integers, in twentieths of a typographic point: finer than the eye.
UNIT = 20
#: The integer that stands for "no point here" (the curve is NaN or infinite).
GAP = -32768

Knobs = dict[str, float]
Curves = dict[str, np.ndarray]


@jax.jit
def _evaluate(curves: jax.tree_util.Partial, knobs: dict[str, jax.Array]) -> dict[str, jax.Array]:
    return jax.vmap(lambda values: curves(**values))(knobs)


def evaluate(curves: Callable[..., Curves], settings: Sequence[Knobs], chunk: int) -> list[Curves]:
    """The curves at each of the settings, in chunks of one size, so that everything compiles once.

    `curves` may be a `jax.tree_util.Partial` whose arguments are arrays: they are traced, and another explorer over
    data of the same shape compiles nothing.
    """
    names = list(settings[0])
    table = np.asarray([[setting[name] for name in names] for setting in settings], np.float32)
    partial = curves if isinstance(curves, jax.tree_util.Partial) else jax.tree_util.Partial(curves)
    frames: list[Curves] = []
    for start in range(0, len(table), chunk):
        rows = table[start : start + chunk]
        padded = np.concatenate([rows, np.repeat(rows[-1:], chunk - len(rows), axis=0)])
        batch = jax.device_get(_evaluate(partial, {name: padded[:, i] for i, name in enumerate(names)}))
        frames += [{key: np.asarray(value[i]) for key, value in batch.items()} for i in range(len(rows))]
    return frames


def strip_settings(controls: Sequence[Control], moving: Control, held: Knobs) -> list[Knobs]:
    """Every stop of one slider, the others held."""
    return [{**{c.name: held[c.name] for c in controls}, moving.name: stop} for stop in moving.stops]


def coarse_stops(controls: Sequence[Control], most: int) -> list[list[int]]:
    """For each slider, indices of evenly spread stops, its ends and its initial value among them, with at most
    `most` combinations in all (but never fewer than the two ends and the initial value of each)."""
    stride = 0
    while True:
        stride += 1
        chosen = []
        for control in controls:
            last = len(control.stops) - 1
            chosen.append(sorted({*range(0, last, stride), last, control.index(control.value)}))
        if math.prod(map(len, chosen)) <= most or all(len(stops) <= 3 for stops in chosen):
            return chosen


def grid_settings(controls: Sequence[Control], stops: Sequence[Sequence[int]]) -> list[Knobs]:
    """All combinations of the chosen stops, the last slider running fastest."""
    return [
        {c.name: c.stops[i] for c, i in zip(controls, indices, strict=True)} for indices in itertools.product(*stops)
    ]


def pack(points: np.ndarray, texts: Sequence[str]) -> bytes:
    """Frames as deflated bytes: int16 differences from frame to frame, low bytes before high bytes, then the texts.

    Neighbouring frames differ little, so a strip of 101 × 600 points shrinks to some tens of kilobytes.
    """
    if any("\n" in text for text in texts):
        raise ValueError("summary: got a line break, needs one line")
    steps = points.astype(np.int16)
    steps[1:] -= steps[:-1].copy()
    planes = steps.view(np.uint16)
    low, high = (planes & 0xFF).astype(np.uint8), (planes >> 8).astype(np.uint8)
    return zlib.compress(low.tobytes() + high.tobytes() + "\n".join(texts).encode(), 9)


def unpack(data: bytes, frames: int, width: int) -> tuple[np.ndarray, list[str]]:
    """The inverse of `pack`: points `(frames, width)` as 16-bit integers, and the texts."""
    raw = zlib.decompress(data)
    cells = frames * width
    low, high = (np.frombuffer(raw, np.uint8, cells, start).astype(np.uint16) for start in (0, cells))
    steps = (low | high << 8).reshape(frames, width)
    points = np.cumsum(steps, axis=0, dtype=np.uint16).view(np.int16)  # wraps around, as the differences did
    return points, raw[2 * cells :].decode().split("\n")


def quantise(coordinates: np.ndarray) -> np.ndarray:
    """SVG coordinates, in points, as integers; what is not finite becomes a gap."""
    limit = 32767
    finite = np.isfinite(coordinates)
    scaled = np.clip(np.round(np.where(finite, coordinates, 0.0) * UNIT), -limit, limit)
    return np.where(finite, scaled, GAP).astype(np.int16)
