"""VAE: learn to describe data in a few numbers, from a bound on its likelihood."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from artifex_rl.configs import choice, config, number
from artifex_rl.generative.elbo import (
    apply_free_bits,
    compute_bernoulli_log_likelihood,
    compute_gaussian_kl,
    compute_gaussian_log_likelihood,
    compute_kl_weight,
    count_active_units,
)
from artifex_rl.loop import prepare
from artifex_rl.trainer import Metrics, TrainState
from artifex_rl.trainers.base import GenerativeTrainer


@config
class VAEConfig:
    """Settings of `VAETrainer`.

    Args:
        beta: weight of the KL once it is annealed, ≥ 0; 1 is the bound itself (β-VAE: Higgins et al., 2017).
        kl_annealing: how the weight comes to `beta`; see `compute_kl_weight`.
        annealing_steps: steps until it is there, or of one cycle, > 0.
        free_bits: nats for each latent dimension that cost nothing, ≥ 0; see `apply_free_bits`.
        likelihood: "bernoulli", of data in [0, 1] by logits; "gaussian", of real data by means.
        likelihood_std: standard deviation of the Gaussian, > 0, in the unit of the data.

    Raises:
        ValueError: a field is out of its range; the message names it, the value and what is needed.
    """

    beta: float = number(1.0, low=0)
    kl_annealing: str = choice("none", "linear", "sigmoid", "cyclical")
    annealing_steps: float = number(1000.0, above=0)
    free_bits: float = number(0.0, low=0)
    likelihood: str = choice("bernoulli", "gaussian")
    likelihood_std: float = number(1.0, above=0)


class VAETrainer(GenerativeTrainer):
    """Variational autoencoder: minimises −E_q[log p(x|z)] + w · KL(q(z|x) ‖ N(0, I)), averaged over the batch.

    The model has an `encoder`, whose call returns a `DiagonalGaussian` over latents `(B, Z)`, a `decoder`, from
    latents to logits or means like the data, and its `latent_size` Z; `artifex_rl.models.VAE` has them. w goes from 0
    to `beta` as `kl_annealing` says; `evaluate` measures with `beta` itself.

    Batches hold "data" `(B, ...)`: in [0, 1] for the Bernoulli likelihood, any real numbers for the Gaussian.

    Metrics, in nats and averaged over the batch: "loss"; "reconstruction" −E_q[log p(x|z)]; "kl" KL(q ‖ N(0, I)), the
    true one, whatever free bits do; "kl_objective", the one that is minimised; "elbo" −reconstruction − kl, a lower
    bound of log p(x); "kl_weight" w; "active_units", see `count_active_units`; "grad_norm".

    Reference: Kingma & Welling (2014), *Auto-Encoding Variational Bayes*, arXiv:1312.6114, eqs. 3 and 7.
    """

    config_class = VAEConfig
    optional = ()

    def __init__(self, model: nnx.Module, optimizer: nnx.Optimizer, config: VAEConfig | None = None, **options: Any):
        missing = [name for name in ("encoder", "decoder", "latent_size") if not hasattr(model, name)]
        if missing:
            raise TypeError(
                f"model: got {type(model).__name__} without {', '.join(missing)}, needs these as a VAE has"
            )
        super().__init__(model, optimizer, config, **options)

    def compute_loss(self, model: nnx.Module, batch: dict[str, Any], key: Array) -> tuple[Array, Metrics]:
        """The negative bound of a batch; with "step" in it, at the KL's weight of that step."""
        config, data = self.config, jnp.asarray(batch["data"])
        posterior = model.encoder(data)
        decoded = model.decoder(posterior.sample(key))
        if config.likelihood == "bernoulli":
            log_likelihood = compute_bernoulli_log_likelihood(decoded, data)
        else:
            log_likelihood = compute_gaussian_log_likelihood(decoded, data, config.likelihood_std)
        reconstruction = -jnp.mean(log_likelihood)

        kls = compute_gaussian_kl(posterior.mean, posterior.log_std)
        kl, objective = jnp.sum(jnp.mean(kls, axis=0)), apply_free_bits(kls, config.free_bits)
        weight = jnp.asarray(config.beta, kl.dtype)
        if "step" in batch:
            weight = weight * compute_kl_weight(batch["step"], config.kl_annealing, config.annealing_steps)
        return reconstruction + weight * objective, {
            "reconstruction": reconstruction,
            "kl": kl,
            "kl_objective": objective,
            "elbo": -reconstruction - kl,
            "kl_weight": weight,
            "active_units": count_active_units(posterior.mean),
        }

    def update(self, state: TrainState, batch: dict[str, Any], key: Array) -> tuple[TrainState, Metrics]:
        """A gradient step at the weight that annealing has reached."""
        return self.gradient_step(state, {**batch, "step": state.step}, key)

    def check_batch(self, batch: dict[str, Any]) -> None:
        """ValueError for shapes and types that the model cannot read."""
        super().check_batch(batch)
        self.check_readable(batch)

    def check_labels(self, labels: np.ndarray) -> None:
        """ValueError: a VAE is told no class."""
        raise ValueError("labels: got some, needs none: a VAE draws from all that it has seen")

    def validate(self, batch: dict[str, Any]) -> None:
        """ValueError for NaN or infinity, and for data that the likelihood cannot have."""
        super().validate(batch)
        data = np.asarray(batch["data"])
        if self.config.likelihood == "bernoulli" and (data.min() < 0 or data.max() > 1):
            raise ValueError(
                f"data: got values from {data.min():.4g} to {data.max():.4g}, needs 0 to 1 for the Bernoulli "
                f"likelihood; VAEConfig(likelihood='gaussian') takes any"
            )

    def encode(self, data: Float[Array, "B *D"]) -> tuple[Float[Array, "B Z"], Float[Array, "B Z"]]:
        """Mean and standard deviation of q(z|x)."""
        return self.call("_encode", prepare(self, {"data": data}))

    def reconstruct(self, data: Float[Array, "B *D"]) -> Float[Array, "B *D"]:
        """The data, encoded to the mean and decoded: probabilities for Bernoulli, means for Gaussian."""
        return self.call("_reconstruct", prepare(self, {"data": data}))

    def decode(self, latents: Float[Array, "B Z"]) -> Float[Array, "B *D"]:
        """What latents stand for: probabilities for Bernoulli, means for Gaussian.

        It may be traced, such as by an environment of latents; the weights are then those of that moment.

        Raises:
            ValueError: the latents have another shape.
        """
        latents, size = jnp.asarray(latents), self.model.latent_size
        if latents.ndim != 2 or latents.shape[1] != size or not jnp.issubdtype(latents.dtype, jnp.floating):
            raise ValueError(f"latents: got {latents.dtype} of shape {latents.shape}, needs floats (B, {size})")
        return self.call("_decode", latents)

    def draw(self, parts: tuple[Any, ...], num_samples: int, key: Array, labels: Any = None) -> Float[Array, "B *D"]:
        """Decoded latents of the prior N(0, I): probabilities for Bernoulli, means for Gaussian."""
        latent_size = parts[0].latent_size
        return self._decode(parts, jax.random.normal(key, (num_samples, latent_size)))

    def _encode(self, parts, batch):
        posterior = parts[0].encoder(jnp.asarray(batch["data"]))
        return posterior.mean, jnp.exp(posterior.log_std)

    def _reconstruct(self, parts, batch):
        return self._decode(parts, self._encode(parts, batch)[0])

    def _decode(self, parts, latents):
        decoded = parts[0].decoder(latents)
        return jax.nn.sigmoid(decoded) if self.config.likelihood == "bernoulli" else decoded
