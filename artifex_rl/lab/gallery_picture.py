"""A notebook's picture, made compact for the gallery: a palette, an even margin, and drawings in greys.

An explorer draws an 8 × 8 picture as strokes, as long as a pixel is dark, so that the page can move it like a curve.
A still picture has no need of that: where such strokes are known, their pixels are filled with grey.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image, ImageChops

from artifex_rl.lab.stored import points

COLOURS = 128
MARGIN = 12
#: A picture less wide than `SMALL` is a grid of samples without enlargement: it becomes about `GRID` wide, sharp.
SMALL, GRID = 240, 480
#: Points that `halftone` has for a picture: the two ends of a stroke and a gap, for each pixel.
STROKES = 8 * 8 * 3


def decode(png: str) -> bytes:
    """The bytes of a notebook's base64."""
    return base64.b64decode("".join(png.split()))


def compact(png: bytes, state: Mapping[str, Any] | None = None, text: str = "") -> bytes:
    """The picture as a PNG with a palette.

    Args:
        png: as a notebook holds it.
        state: of the explorer that it shows, if it is one.
        text: the sentence of the frame that it shows.

    Raises:
        ValueError: the picture is blank.
    """
    image = Image.open(io.BytesIO(png)).convert("RGB")
    if state and "_grid" in state:
        _fill_strokes(image, state, text)
    box = ImageChops.difference(image, Image.new("RGB", image.size, "white")).getbbox()
    if box is None:
        raise ValueError(f"png: got a blank picture of {image.width} × {image.height} pixels")
    part = image.crop(box)
    if part.width < SMALL:  # a pixel for a pixel, as a panel's page gets them
        times = GRID // part.width
        part = part.resize((part.width * times, part.height * times), Image.Resampling.NEAREST)
    framed = Image.new("RGB", (part.width + 2 * MARGIN, part.height + 2 * MARGIN), "white")
    framed.paste(part, (MARGIN, MARGIN))
    buffer = io.BytesIO()
    framed.quantize(COLOURS, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(
        buffer, "PNG", optimize=True
    )
    return buffer.getvalue()


def _fill_strokes(image: Image.Image, state: Mapping[str, Any], text: str) -> None:
    """Pictures drawn as strokes become pictures in greys, in place."""
    curves = points(state, text)
    if curves is None:
        return
    scale = image.width / float(re.search(r'viewBox="0 0 ([\d.]+)', state["_figure"]["svg"])[1])
    for line in curves.values():
        if not _is_halftone(line):
            continue
        strokes = line.reshape(-1, 8, 8, 3, 2) * scale
        for picture in strokes:
            _paste(image, picture)


def _is_halftone(line: np.ndarray) -> bool:
    """Three points a pixel at one x, the third of them a gap, the pixels of a row side by side."""
    if len(line) == 0 or len(line) % STROKES:
        return False
    triples = line.reshape(-1, 3, 2)
    upright = np.allclose(triples[:, 0, 0], triples[:, 1, 0]) and np.allclose(triples[:, 0, 0], triples[:, 2, 0])
    return upright and bool(np.isnan(triples[:, 2, 1]).all() and np.isfinite(triples[:, :2, 1]).all())


def _paste(image: Image.Image, strokes: np.ndarray) -> None:
    """One picture, `(8, 8, 3, 2)` points in pixels of the image."""
    middle = strokes[..., :2, 1].mean(axis=-1)
    pitch = (middle[-1].mean() - middle[0].mean()) / 7
    dark = np.clip(np.abs(strokes[..., 0, 1] - strokes[..., 1, 1]) / abs(pitch), 0, 1)
    left, right = strokes[0, 0, 0, 0] - abs(pitch) / 2, strokes[0, -1, 0, 0] + abs(pitch) / 2
    top, bottom = sorted((middle[0].mean() - pitch / 2, middle[-1].mean() + pitch / 2))
    greys = Image.fromarray(np.round(255 * (1 - (dark if pitch > 0 else dark[::-1]))).astype(np.uint8))
    size = (max(8, round(right) - round(left)), max(8, round(bottom) - round(top)))
    image.paste(greys.resize(size, Image.Resampling.NEAREST).convert("RGB"), (round(left), round(top)))
