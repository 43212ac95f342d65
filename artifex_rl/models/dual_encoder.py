"""A pair of towers, one for pictures and one for words, that meet in one space: CLIP in miniature."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

PATCH = 4


class DualEncoder(nnx.Module):
    """Embeds square colour pictures, and names that are bags of known words, so that what belongs together is near.

    Pictures: patches of 4 × 4 pixels, each through the same linear map, then two layers over all of them. Names: the
    mean of the embeddings of their words; the order of the words is not seen. `EmbeddingReward` takes the cosine.

    Args:
        side: of the pictures in pixels, a multiple of 4.
        num_words: words that are known.
        hidden_features: of the picture's tower.
        embed_features: D, of both towers.
        patch_features: of each patch.
        rngs: source of the initial weights.

    Raises:
        ValueError: a size is less than 1, or `side` is no multiple of 4.

    Reference: Radford et al. (2021), *Learning Transferable Visual Models From Natural Language Supervision*,
    arXiv:2103.00020.
    """

    def __init__(
        self,
        side: int,
        num_words: int,
        hidden_features: int = 96,
        embed_features: int = 48,
        patch_features: int = 32,
        *,
        rngs: nnx.Rngs,
    ):
        sizes = (side, num_words, hidden_features, embed_features, patch_features)
        if min(sizes) < 1 or side % PATCH:
            raise ValueError(f"DualEncoder: got sizes {sizes}, needs at least 1 each, and a side in fours")
        self.side = side
        self.patch = nnx.Linear(3 * PATCH**2, patch_features, rngs=rngs)
        self.hidden = nnx.Linear(patch_features * (side // PATCH) ** 2, hidden_features, rngs=rngs)
        self.image = nnx.Linear(hidden_features, embed_features, rngs=rngs)
        self.words = nnx.Linear(num_words, embed_features, use_bias=False, rngs=rngs)
        self.log_scale = nnx.Param(jnp.log(jnp.float32(10.0)))

    def embed_images(self, images: Float[Array, "B S S 3"]) -> Float[Array, "B D"]:
        """Pictures in [0, 1], not normalised."""
        images = jnp.asarray(images, jnp.float32)
        if images.ndim != 4 or images.shape[1:] != (self.side, self.side, 3):
            raise ValueError(f"images: got shape {images.shape}, needs (B, {self.side}, {self.side}, 3)")
        count, cells = len(images), self.side // PATCH
        cut = images.reshape(count, cells, PATCH, cells, PATCH, 3).swapaxes(2, 3)
        patches = jax.nn.gelu(self.patch(2 * cut.reshape(count, cells**2, -1) - 1))
        return self.image(jax.nn.gelu(self.hidden(patches.reshape(count, -1))))

    def embed_words(self, counts: Float[Array, "B W"]) -> Float[Array, "B D"]:
        """Bags of words: how often each known word is in a name. A name without any has the zero vector."""
        counts = jnp.asarray(counts, jnp.float32)
        return self.words(counts / jnp.maximum(counts.sum(axis=1, keepdims=True), 1.0))


def compute_contrastive_loss(
    images: Float[Array, "B D"], texts: Float[Array, "B D"], scale: Float[Array, ""]
) -> Float[Array, ""]:
    """InfoNCE in both directions: each picture is to find its own text among B, and each text its own picture.

    Args:
        images: embeddings; row i belongs to row i of the texts.
        texts: embeddings.
        scale: factor of the cosines, the inverse temperature, > 0.

    Returns:
        Mean cross-entropy of the two directions, in nats: log B for embeddings that say nothing.

    Reference: van den Oord, Li & Vinyals (2018), arXiv:1807.03748, eq. 4; Radford et al. (2021), arXiv:2103.00020,
    figure 3.
    """
    images, texts = (x / jnp.maximum(jnp.linalg.norm(x, axis=1, keepdims=True), 1e-6) for x in (images, texts))
    logits = scale * images @ texts.T
    own = jnp.diagonal(logits)
    losses = [jnp.mean(jax.nn.logsumexp(logits, axis=axis) - own) for axis in (0, 1)]
    return (losses[0] + losses[1]) / 2
