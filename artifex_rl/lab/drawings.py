"""Drawings of digits in a notebook: what everybody says of them, and a row of them in a figure."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Float

from artifex_rl.data.digits import digit_judge, digit_scorer, image_diversity, ink, to_pixels


def measure_drawings(images: ArrayLike, labels: ArrayLike) -> dict[str, Float[np.ndarray, "*S"]]:
    """What everybody says of sets of drawings; see `artifex_rl.data.digits` for each.

    Args:
        images: `(*S, B, 8, 8)` in [−1, 1], sets of B ≥ 2 drawings.
        labels: `(B,)`, the digit that each drawing of a set was meant to be.

    Returns:
        For each set, `(*S)` floats in [0, 1]: "ink", the mean of the pixels; "scorer", the mean of its P(label);
        "judge", the share of drawings that it reads as their label; "diversity".

    Raises:
        ValueError: the shapes do not fit.
    """
    images, labels = np.asarray(images, np.float32), np.asarray(labels)
    if images.ndim < 3 or images.shape[-3:] != (*labels.shape, 8, 8) or len(labels) < 2:
        raise ValueError(
            f"images: got shape {images.shape}, needs (..., B, 8, 8) with B = {labels.shape} labels, ≥ 2"
        )
    scorer, judge = digit_scorer(), digit_judge()
    rows = []
    for drawings in images.reshape(-1, *images.shape[-3:]):  # one set at a time: one compilation, and little memory
        inked, spread = _measure(drawings)
        rows.append([inked, scorer(drawings, labels).mean(), np.mean(judge.classify(drawings) == labels), spread])
    found = np.array(rows, float).reshape(*images.shape[:-3], 4)
    return {name: found[..., i] for i, name in enumerate(("ink", "scorer", "judge", "diversity"))}


@jax.jit
def _measure(images):
    return jnp.mean(ink(images)), image_diversity(images)


def draw_row(axes, images: ArrayLike, title: str = "") -> None:
    """Drawings `(B, 8, 8)` in [−1, 1] side by side, ink in black on white paper, each in a frame."""
    framed = [np.pad(1 - np.asarray(image), 1, constant_values=0.55) for image in to_pixels(images)]
    axes.imshow(np.concatenate(framed, axis=1), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    axes.grid(False)
    axes.spines[:].set_visible(False)
    axes.set_title(title, fontsize=10.5)
