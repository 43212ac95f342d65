"""GAN: learn to make data by deceiving a discriminator that learns to tell."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from artifex_rl.configs import choice, config, count, number
from artifex_rl.descent import descend
from artifex_rl.generative.adversarial import (
    compute_discriminator_accuracy,
    compute_discriminator_loss,
    compute_generator_loss,
    compute_gradient_penalty,
    compute_r1_penalty,
    interpolate,
)
from artifex_rl.rl.batches import signature
from artifex_rl.state import check_parts
from artifex_rl.trainer import Metrics, TrainState
from artifex_rl.trainers.average import follow, new_average
from artifex_rl.trainers.base import GenerativeTrainer


@config
class GANConfig:
    """Settings of `GANTrainer`.

    Args:
        loss_type: the game that is played; see `compute_discriminator_loss` and `compute_generator_loss`.
            "wasserstein" has its gradient penalty.
        n_critic: discriminator steps for each step of the generator.
        gradient_penalty_weight: λ of the Wasserstein critic's penalty, ≥ 0; 0 has none.
        r1_weight: γ of the R1 penalty ½ γ E‖∇D(x)‖², for any of the games, ≥ 0; 0 has none.
        ema_decay: how slowly the average of the generator's weights follows, in [0, 1); 0 is no average.

    Raises:
        ValueError: a field is out of its range; the message names it, the value and what is needed.
    """

    loss_type: str = choice("non_saturating", "minimax", "wasserstein", "hinge", "least_squares")
    n_critic: int = count(1)
    gradient_penalty_weight: float = number(10.0, low=0)
    r1_weight: float = number(0.0, low=0)
    ema_decay: float = number(0.999, low=0, below=1)


class GANTrainer(GenerativeTrainer):
    """Generative adversarial network: the discriminator D minimises its loss `n_critic` times, then G does once.

    The model is the generator G: called with noise `(B, Z)` from N(0, I), it returns samples like the data; its
    `latent_size` is Z. D is called with samples and returns scores `(B,)`. Where batches have labels `(B,)`, both are
    told them as a second argument: fakes are made for the labels of the batch. `artifex_rl.models.Generator` and
    `Discriminator` are such. All n_critic + 1 updates are one compiled call. Each of the discriminator's sees the
    whole batch, beside fakes of fresh noise.

    What a network has beside weights moves in its own updates alone. While D learns, G's batch statistics stand
    still; while G learns, and where penalties measure D's slope, D's statistics and the vectors of its spectral norm
    do. Both networks draw dropout and see statistics of the batch in training, each other's as well.

    Batches hold "data" `(B, ...)`, in [−1, 1] for a generator that ends in tanh, and "labels" for a conditional one.

    Metrics: "loss" and "generator_loss" of G, "discriminator_loss" of D's last step with its penalties, "real_score"
    and "fake_score", the mean of D on either, "accuracy", see `compute_discriminator_accuracy`,
    "gradient_penalty" and "r1_penalty" before their weights (0 where the weight is), "grad_norm" of G and
    "discriminator_grad_norm".

    Args:
        generator: the model.
        optimizer: made for the generator.
        config: a `GANConfig`.
        discriminator: its opponent.
        discriminator_optimizer: made for the discriminator.
        options: `key` and `mesh`, see `Trainer`.

    Reference: Goodfellow et al. (2014), *Generative Adversarial Nets*, arXiv:1406.2661, algorithm 1; Gulrajani et al.
    (2017), arXiv:1704.00028, algorithm 1; Yazıcı et al. (2019), arXiv:1806.04498, for the average.
    """

    config_class = GANConfig

    def __init__(
        self,
        generator: nnx.Module,
        optimizer: nnx.Optimizer,
        config: Any = None,
        *,
        discriminator: nnx.Module,
        discriminator_optimizer: nnx.Optimizer,
        **options: Any,
    ):
        check_parts(generator, optimizer, "generator")
        check_parts(discriminator, discriminator_optimizer, "discriminator", "discriminator_optimizer")
        if discriminator is generator or discriminator_optimizer is optimizer:
            raise ValueError("discriminator: got the generator or its optimizer, needs a network and one of its own")
        if not hasattr(generator, "latent_size"):
            raise TypeError(f"generator: {type(generator).__name__} has no latent_size, needs that of its noise")
        companions = discriminator, discriminator_optimizer, new_average(generator)
        super().__init__(generator, optimizer, config, companions=companions, **options)

    @property
    def discriminator(self) -> nnx.Module:
        """The opponent, as it is now."""
        return self.companions[0]

    @property
    def discriminator_optimizer(self) -> nnx.Optimizer:
        """Its optimizer, as it is now."""
        return self.companions[1]

    @property
    def average(self) -> nnx.Module:
        """The generator with the average of its weights, which `sample` draws from."""
        return self.companions[2]

    def check_batch(self, batch: dict[str, Any]) -> None:
        """ValueError for shapes that the networks cannot read, and for data unlike what the generator makes."""
        super().check_batch(batch)
        shape, known = np.shape(batch["data"]), signature(tuple(batch.values()))
        if known in self._readable:
            return
        try:
            fakes, scores = jax.eval_shape(self._play, self.state, batch)
        except (TypeError, ValueError) as error:
            raise ValueError(f"data: got shape {shape}, which the networks cannot read: {error}") from error
        if fakes.shape != shape:
            raise ValueError(f"data: got shape {shape}, needs {fakes.shape}, that of the generator's samples")
        if scores.shape != shape[:1]:
            raise ValueError(f"discriminator: returned shape {scores.shape}, needs {shape[:1]}, a score a sample")
        self._readable.add(known)

    def check_labels(self, labels: np.ndarray) -> None:
        """ValueError for labels beyond the generator's `num_classes`."""
        classes = getattr(self.model, "num_classes", None)
        if classes is not None and (labels.min() < 0 or labels.max() >= classes):
            raise ValueError(f"labels: got classes {labels.min()} to {labels.max()}, needs 0 to {classes - 1}")

    def update(self, state: TrainState, batch: dict[str, Any], key: Array) -> tuple[TrainState, Metrics]:
        """`n_critic` updates of the discriminator, one of the generator, and one of its average."""
        key, *keys = jax.random.split(key, self.config.n_critic + 1)
        # A loop over the updates compiles as fast for many as for one; a single one needs no loop.
        learn = partial(self._discriminator_step, batch=batch)
        if len(keys) == 1:
            state, seen = learn(state, keys[0])
        else:
            state, seen = jax.lax.scan(learn, state, jnp.stack(keys))
            seen = jax.tree.map(lambda x: x[-1], seen)
        seen = {"discriminator_grad_norm": seen.pop("grad_norm"), "discriminator_loss": seen.pop("loss"), **seen}

        generator, optimizer, discriminator, *others, average = self.merge(state)
        opponent = nnx.clone(discriminator)
        metrics = descend(self.compute_loss, generator, optimizer, batch, key, opponent)
        nnx.update(discriminator, nnx.state(opponent, nnx.RngState))  # no dropout is drawn twice
        follow(average, generator, self.config.ema_decay, state.step)
        return self.split(generator, optimizer, discriminator, *others, average, step=state.step), {**seen, **metrics}

    def compute_loss(
        self, model: nnx.Module, batch: dict[str, Any], key: Array, discriminator: nnx.Module
    ) -> tuple[Array, Metrics]:
        """The generator's loss against a discriminator, on as many fakes as the batch has data."""
        scores = discriminator(*self._fakes(model, batch, key))
        loss = compute_generator_loss(scores, self.config.loss_type)
        return loss, {"generator_loss": loss}

    def compute_discriminator_loss(
        self, discriminator: nnx.Module, batch: dict[str, Any], key: Array, generator: nnx.Module
    ) -> tuple[Array, Metrics]:
        """The discriminator's loss against a generator, with its penalties."""
        config, (real, *labels) = self.config, self._reals(batch)
        noise_key, key = jax.random.split(key)
        fake, *_ = jax.lax.stop_gradient(self._fakes(generator, batch, noise_key))

        def critic(samples):  # the one that scores below, with the same dropout; measuring its slope leaves no trace
            return nnx.clone(discriminator)(samples, *labels)

        def weighed(weight, penalty, points):  # a penalty of weight 0 is not even computed
            value = jax.lax.cond(weight > 0, lambda x: penalty(critic, x), lambda x: jnp.zeros((), x.dtype), points)
            return value, jnp.asarray(weight, value.dtype) * value

        r1, cost = weighed(config.r1_weight, compute_r1_penalty, real)
        slope = jnp.zeros_like(r1)
        if config.loss_type == "wasserstein":
            points = interpolate(real, fake, key)
            slope, more = weighed(config.gradient_penalty_weight, compute_gradient_penalty, points)
            cost = cost + more
        scores = discriminator(real, *labels), discriminator(fake, *labels)
        return compute_discriminator_loss(*scores, config.loss_type) + cost, {
            "real_score": jnp.mean(scores[0]),
            "fake_score": jnp.mean(scores[1]),
            "accuracy": compute_discriminator_accuracy(*scores, config.loss_type),
            "gradient_penalty": slope,
            "r1_penalty": r1,
        }

    def evaluation_loss(self, parts: tuple[Any, ...], batch: dict[str, Any], key: Array) -> tuple[Array, Metrics]:
        """The generator's loss, and what the discriminator says of data and fakes."""
        generator, _, discriminator, *_ = parts
        theirs, seen = self.compute_discriminator_loss(discriminator, batch, key, generator)
        loss, metrics = self.compute_loss(generator, batch, key, discriminator)
        return loss, {**seen, **metrics, "discriminator_loss": theirs}

    def draw(self, parts: tuple[Any, ...], num_samples: int, key: Array, labels: Any = None) -> Float[Array, "B *D"]:
        """Samples of the generator's average."""
        average = parts[-1]
        noise = jax.random.normal(key, (num_samples, average.latent_size))
        return average(noise) if labels is None else average(noise, labels)

    def _discriminator_step(self, state, key, batch):
        generator, optimizer, discriminator, its_optimizer, average = self.merge(state)
        maker = nnx.clone(generator)
        metrics = descend(self.compute_discriminator_loss, discriminator, its_optimizer, batch, key, maker)
        nnx.update(generator, nnx.state(maker, nnx.RngState))
        return self.split(generator, optimizer, discriminator, its_optimizer, average, step=state.step), metrics

    def _reals(self, batch):
        return tuple(jnp.asarray(batch[name]) for name in ("data", "labels") if name in batch)

    def _fakes(self, generator, batch, key):
        """Samples, and the labels that they were made for, if there are any."""
        data, *labels = self._reals(batch)
        return generator(jax.random.normal(key, (len(data), generator.latent_size), data.dtype), *labels), *labels

    def _play(self, state, batch):
        generator, _, discriminator, *_ = self.merge(state)
        fakes, *labels = self._fakes(generator, batch, jax.random.key(0))
        return fakes, discriminator(self._reals(batch)[0], *labels)
