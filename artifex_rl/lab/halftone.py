"""Small pictures as one line of a plot, so that an explorer can move them like a curve: a stroke for each pixel."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

#: Pixels of a picture's side, and the gap beside it, in pixels.
SIDE, GAP = 8, 2


def halftone(images: Float[Array, "B 8 8"]) -> Float[Array, "B*192"]:
    """Heights of a line with gaps that draws pictures in a row: each pixel is a stroke, as long as it is dark.

    Args:
        images: `(B, 8, 8)`, from 0, paper, to 1, ink.
    """
    centre = jnp.broadcast_to(jnp.arange(SIDE, dtype=jnp.float32)[::-1][None, :, None], images.shape)
    ends = [centre - images / 2, centre + images / 2, jnp.full_like(images, jnp.nan)]
    return jnp.stack(ends, axis=-1).reshape(-1)


def halftone_columns(count: int) -> Float[np.ndarray, "count*192"]:
    """Where the strokes of `halftone` stand, for `count` pictures."""
    picture, column = np.meshgrid(np.arange(count), np.arange(SIDE), indexing="ij")
    x = picture * (SIDE + GAP) + column
    return np.repeat(np.broadcast_to(x[:, None, :], (count, SIDE, SIDE)).reshape(-1), 3)


def draw_halftone(axes, strokes: Float[np.ndarray, "B*192"], gid: str | None = None, width: float = 3.4) -> None:
    """Draw pictures into axes, without a frame and with square pixels; under `gid` an explorer moves them.

    `width` is that of a stroke in points: as wide as a pixel is drawn.
    """
    count = len(strokes) // (3 * SIDE * SIDE)
    axes.plot(halftone_columns(count), strokes, gid=gid, color="black", lw=width, solid_capstyle="butt")
    axes.set(xlim=(-1, count * (SIDE + GAP) - GAP), ylim=(-1, SIDE), aspect="equal")
    axes.axis("off")
