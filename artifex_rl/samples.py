"""What a model makes, for a page or a file: texts as they are, images as PNG."""

from __future__ import annotations

import io
from typing import Any

import matplotlib.image
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

#: Pixels between the images of a grid.
GAP = 1


def as_sample(shown: Any) -> dict[str, Any]:
    """What a `show` function returned, as a page takes it: "text", or "png" and its "alt".

    Raises:
        ValueError: it is nothing that can be shown.
    """
    alt = ""
    if isinstance(shown, tuple) and len(shown) == 2 and isinstance(shown[1], str):
        shown, alt = shown
    if isinstance(shown, str):
        return {"text": shown, "alt": alt}
    if isinstance(shown, list | tuple) and all(isinstance(line, str) for line in shown):
        return {"text": "\n".join(shown), "alt": alt}
    if isinstance(shown, Figure):
        FigureCanvasAgg(shown)
        buffer = io.BytesIO()
        shown.savefig(buffer, format="png", dpi=90, facecolor="white", metadata={"Software": None})
        return {"png": buffer.getvalue(), "alt": alt or "what the model makes"}
    pixels = np.asarray(shown)
    if pixels.dtype == object or pixels.ndim not in (2, 3, 4):
        raise ValueError(f"show: returned {type(shown).__name__}, needs a text, texts, images or a Figure")
    return {"png": _png(pixels), "alt": alt or "samples of the model"}


def _png(pixels: np.ndarray) -> bytes:
    """Images as one, side by side in a grid that is about square; floats from 0, black, to 1."""
    if pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[-1] == 3 and pixels.shape[0] != 3):
        pixels = pixels[None]
    if pixels.dtype != np.uint8:
        pixels = (np.clip(np.nan_to_num(pixels.astype(float)), 0, 1) * 255).round().astype(np.uint8)
    if pixels.ndim == 3:
        pixels = np.repeat(pixels[..., None], 3, axis=-1)
    count, height, width, _ = pixels.shape
    columns = int(np.ceil(np.sqrt(count)))
    rows = -(-count // columns)
    sheet = np.full((rows * (height + GAP) + GAP, columns * (width + GAP) + GAP, 3), 127, np.uint8)
    for i, image in enumerate(pixels):
        top, left = GAP + i // columns * (height + GAP), GAP + i % columns * (width + GAP)
        sheet[top : top + height, left : left + width] = image
    buffer = io.BytesIO()
    matplotlib.image.imsave(buffer, sheet, format="png", metadata={"Software": None})
    return buffer.getvalue()
