"""Rewards that look at the samples themselves: closeness to a target in an embedding, and size as a JPEG."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, UInt8

from artifex_rl.rl.arrays import check_shape, read_array, read_floats
from artifex_rl.rl.scoring import check_callable, count_samples


@dataclass(frozen=True, eq=False)
class EmbeddingReward:
    """Cosine between the embedding of a sample and that of its target: u·v / (‖u‖ ‖v‖), in [−1, 1].

    With CLIP's image encoder and the embedding of a text this is the CLIP score, and it is so whether or not the
    encoder normalises. The zero vector has no direction: its cosine is 0, and so is the gradient there. Pure JAX
    where the encoder is.

    Args:
        encoder: samples to embeddings `(B, D)`, such as a CLIP image tower or a PCA.
        target: one of
            - `(D,)` or `(1, D)`: the target of every sample;
            - `(K, D)`: one target for each class; conditions are class indices `(B,)` in [0, K);
            - a callable, conditions to embeddings `(B, D)`, such as a CLIP text tower.

    Raises:
        ValueError: `encoder` is not callable, the target has another shape or is not finite; in a call, embeddings
            that do not match, or conditions that are missing or out of range. (Under `jit` an index out of range
            cannot be an error: its reward is NaN.)

    Reference: Radford et al. (2021), *Learning Transferable Visual Models From Natural Language Supervision*,
    arXiv:2103.00020; Hessel et al. (2021), *CLIPScore*, arXiv:2104.08718, which clips at 0 and scales by 2.5.
    """

    encoder: Callable[[Any], ArrayLike]
    target: ArrayLike | Callable[[Any], ArrayLike]

    def __post_init__(self):
        check_callable("encoder", self.encoder)
        if isinstance(self.target, type):
            check_callable("target", self.target)
        if not callable(self.target):
            (target,) = read_floats(target=self.target)
            if target.ndim not in (1, 2) or target.size == 0:
                raise ValueError(f"target: got shape {target.shape}, needs (D,), or (K, D) with one for each class")
            if not isinstance(target, jax.core.Tracer) and not jnp.isfinite(target).all():
                raise ValueError("target: got NaN or infinity, needs finite numbers")

    def __call__(self, samples: Any, conditions: Any = None, **kwargs: Any) -> Float[Array, "B"]:
        count = count_samples(samples)
        embeddings, target = read_floats(encoder=self.encoder(samples), target=self._targets(conditions))
        if embeddings.ndim != 2 or embeddings.shape[0] != count:
            raise ValueError(f"encoder: got shape {embeddings.shape}, needs (B, D) with B = {count}")
        width = embeddings.shape[1]
        if callable(self.target):
            check_shape("target(conditions)", target, (count, width))
        elif target.shape[-1] != width:
            raise ValueError(
                f"target: got shape {target.shape}, needs D = {width} on the last axis, like the encoder"
            )
        elif target.ndim == 2 and len(target) > 1:
            target = _select(target, conditions, count)
        target = jnp.broadcast_to(target.reshape(-1, width), (count, width))
        # Rounding may end a little outside.
        return jnp.clip(jnp.sum(_unit(embeddings) * _unit(target), axis=-1), -1.0, 1.0)

    def _targets(self, conditions: Any) -> ArrayLike:
        if not callable(self.target):
            return self.target
        if conditions is None:
            raise ValueError("conditions: got None, needs what `target` maps to embeddings")
        return self.target(conditions)


@dataclass(frozen=True, eq=False)
class CompressibilityReward:
    """How small an image is as a JPEG: minus its size in kilobytes (of 1000 bytes), header included.

    The reward of DDPO that needs no model at all, and one that a learner can see: backgrounds go plain, detail goes.
    Turned around, images fill with noise. A blank image takes some 330 bytes in greyscale and 630 in colour, nearly
    all of them header: enlarge very small images before scoring. Runs on the host through Pillow, outside of `jit`.

    Samples are `(B, H, W)`, `(B, H, W, 1)` or `(B, H, W, 3)`, either floats in [0, 1] or uint8.

    Args:
        incompressible: True for plus the size, DDPO's "incompressibility".
        quality: JPEG quality from 1 to 100; DDPO's implementation has 95.

    Raises:
        ImportError: Pillow is not installed.
        ValueError: `quality` is out of range; in a call, samples of another shape, type or range.
        TypeError: called under `jit`.

    Reference: Black et al. (2023), *Training Diffusion Models with Reinforcement Learning*, arXiv:2305.13301,
    section 5.1.
    """

    incompressible: bool = False
    quality: int = 95

    def __post_init__(self):
        if not isinstance(self.incompressible, bool | np.bool_):
            raise ValueError(f"incompressible: got {self.incompressible!r}, needs True or False")
        if not isinstance(self.quality, Integral) or isinstance(self.quality, bool) or not 1 <= self.quality <= 100:
            raise ValueError(f"quality: got {self.quality!r}, needs an integer from 1 to 100")
        _import_pillow()

    def __call__(self, samples: Any, conditions: Any = None, **kwargs: Any) -> Float[Array, "B"]:
        sizes = [_jpeg_size(image, int(self.quality)) for image in _read_images(samples)]
        kilobytes = jnp.asarray(np.array(sizes, np.float32) / np.float32(1000))
        return kilobytes if self.incompressible else -kilobytes


def _unit(x: jax.Array) -> jax.Array:
    """x / ‖x‖ along the last axis, 0 for the zero vector. Scaled by its largest entry first: squares overflow."""
    largest = jax.lax.stop_gradient(jnp.max(jnp.abs(x), axis=-1, keepdims=True))
    x = x / jnp.where(largest == 0, 1.0, largest)
    squared = jnp.sum(x**2, axis=-1, keepdims=True)
    return jnp.where(squared == 0, 0.0, x / jnp.sqrt(jnp.where(squared == 0, 1.0, squared)))


def _select(targets: jax.Array, conditions: Any, count: int) -> jax.Array:
    """The target `(B, D)` of each sample from the table `(K, D)`; NaN for a traced index out of range."""
    if conditions is None:
        raise ValueError("conditions: got None, needs the class of each sample, because there is a target for each")
    classes = read_array("conditions", conditions)
    check_shape("conditions", classes, (count,))
    known = (classes >= 0) & (classes < len(targets)) & (classes == jnp.round(classes))
    if not isinstance(known, jax.core.Tracer) and not known.all():
        raise ValueError(f"conditions: got {conditions}, needs class indices from 0 to {len(targets) - 1}")
    return jnp.where(known[:, None], targets[jnp.where(known, classes, 0).astype(int)], jnp.nan)


def _import_pillow():
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError("CompressibilityReward needs Pillow: pip install pillow") from error
    return Image


def _jpeg_size(image: np.ndarray, quality: int) -> int:
    file = io.BytesIO()
    _import_pillow().fromarray(image).save(file, format="JPEG", quality=quality)
    return file.tell()


def _read_images(samples: Any) -> UInt8[np.ndarray, "B H W *C"]:
    if isinstance(samples, jax.core.Tracer):
        raise TypeError(
            "CompressibilityReward: got a traced array, needs values: Pillow runs outside of jit and grad"
        )
    count_samples(samples)
    try:
        images = np.asarray(samples)
    except ValueError as error:
        raise ValueError("samples: got images of several shapes, needs one shape") from error
    if images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[-1] not in (1, 3)) or 0 in images.shape[1:]:
        channels_first = images.ndim == 4 and images.shape[1] in (1, 3)
        hint = "; these look like (B, C, H, W)" if channels_first else ""
        raise ValueError(f"samples: got shape {images.shape}, needs (B, H, W), (B, H, W, 1) or (B, H, W, 3){hint}")
    if images.dtype != np.uint8:
        if not jnp.issubdtype(images.dtype, jnp.floating):
            raise ValueError(f"samples: got {images.dtype}, needs floats in [0, 1] or uint8")
        images = images.astype(np.float64)
        low, high = images.min(initial=0), images.max(initial=1)
        if not (low >= 0 and high <= 1):
            raise ValueError(f"samples: got floats from {low:.4g} to {high:.4g}, needs [0, 1]: rescale or clip them")
        images = np.round(images * 255).astype(np.uint8)
    return images[..., 0] if images.ndim == 4 and images.shape[-1] == 1 else images
