"""Flow: learn the velocity that carries noise to data, along lines as straight as they can be."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from artifex_rl.configs import choice, config, count, number
from artifex_rl.generative.coupling import COUPLINGS, couple
from artifex_rl.generative.flow import compute_flow_loss, compute_straightness
from artifex_rl.generative.ode import METHODS, integrate
from artifex_rl.trainer import Metrics
from artifex_rl.trainers.guided import GuidedTrainer


@config
class FlowConfig:
    """Settings of `FlowTrainer`.

    Args:
        coupling: which noise is to become which data of a batch: "independent" is flow matching, "hungarian" and
            "sinkhorn" are optimal transport (OT-CFM), exact and smoothed; see `couple`.
        sinkhorn_regularization: of "sinkhorn", in units of the mean cost, > 0.
        sinkhorn_iterations: of "sinkhorn".
        ema_decay: how slowly the average of the weights follows, in [0, 1); 0 is no average.
        label_dropout: share of the labels that are left out in training, in [0, 1]; guidance needs some.

    Raises:
        ValueError: a field is out of its range; the message names it, the value and what is needed.
    """

    coupling: str = choice(*COUPLINGS)
    sinkhorn_regularization: float = number(0.05, above=0)
    sinkhorn_iterations: int = count(50)
    ema_decay: float = number(0.999, low=0, below=1)
    label_dropout: float = number(0.1, low=0, high=1)


class FlowTrainer(GuidedTrainer):
    """Flow matching: minimises E ‖v(x_t, t, label) − (data − noise)‖² / D, with x_t = (1 − t) noise + t data.

    Samples follow dx/dt = v from noise, t = 0, to data, t = 1. `reflow_pairs` gives noise with the samples that it
    becomes; trained on these, a flow grows straighter and needs fewer steps (rectified flow):

        pairs = trainer.reflow_pairs(2000, key)
        trainer.fit(pairs, steps=1000, batch_size=128)

    The model is called `model(x, times, labels)` with times in [0, 1] and answers with velocities; see
    `GuidedTrainer`. A `FlowPolicy` is such a model as well, to be trained here and then by reward.

    Batches hold "data" `(B, ...)`, best scaled to [−1, 1]; "labels" `(B,)` for a model that is told a class; and
    perhaps "noise", like the data: what row of noise is to become what row of data, in place of the coupling.

    Args:
        shape: of one sample. None: the model's `shape`.

    Metrics: "loss"; "transport_cost", E ‖data − noise‖² over the pairs, summed over D, which optimal transport
    lowers; "grad_norm".

    Reference: Lipman et al. (2023), arXiv:2210.02747; Tong et al. (2024), arXiv:2302.00482; Liu, Gong & Liu (2023),
    arXiv:2209.03003.
    """

    config_class = FlowConfig
    optional = ("labels", "noise")

    def check_batch(self, batch: dict[str, Any]) -> None:
        """ValueError for shapes that the model cannot read, and for noise unlike the data."""
        super().check_batch(batch)
        noise, data = batch.get("noise", batch["data"]), batch["data"]
        if noise.dtype != data.dtype or np.shape(noise) != np.shape(data):
            raise ValueError(
                f"noise: got {noise.dtype} of shape {np.shape(noise)}, needs {data.dtype} of shape {np.shape(data)}"
            )

    def compute_loss(self, model: nnx.Module, batch: dict[str, Any], key: Array) -> tuple[Array, Metrics]:
        """The loss of a batch, its noise drawn and coupled, or as it is given."""
        config, data = self.config, jnp.asarray(batch["data"])
        label_key, noise_key, couple_key, key = jax.random.split(key, 4)
        if "noise" in batch:
            noise = jnp.asarray(batch["noise"])
        else:
            noise = jax.random.normal(noise_key, data.shape, data.dtype)
            known = None if "labels" not in batch else jnp.asarray(batch["labels"])
            sinkhorn = config.sinkhorn_regularization, config.sinkhorn_iterations
            noise = couple(noise, data, couple_key, config.coupling, known, *sinkhorn)
        loss = compute_flow_loss(model, noise, data, self.drop_labels(batch, label_key), key)
        return loss, {"transport_cost": jnp.sum((data - noise) ** 2) / len(data)}

    def sample(
        self,
        num_samples: int,
        key: Array,
        labels: Any = None,
        *,
        sampler: str = "heun",
        num_steps: int = 20,
        guidance: ArrayLike = 1.0,
        path: bool = False,
    ) -> Float[Array, "B *D"]:
        """Follow the average's velocities; compiled once for each `num_samples`, `sampler`, `num_steps` and `path`.

        Args:
            num_samples: how many.
            key: a JAX random key.
            labels: `(num_samples,)` classes, or one for all. None: any class.
            sampler: "heun", of second order at two calls of the model a step, or "euler".
            num_steps: ≥ 1.
            guidance: weight of the labels, finite; see `guide`. 1 asks the model once, others twice.
            path: return all of the way, `(B, num_steps + 1, *D)`, from the noise to the sample.

        Raises:
            ValueError: an argument is out of its range.
        """
        if sampler not in METHODS:
            raise ValueError(f"sampler: got {sampler!r}, needs {' or '.join(map(repr, METHODS))}")
        if isinstance(num_steps, bool) or not hasattr(num_steps, "__index__") or num_steps < 1:
            raise ValueError(f"num_steps: got {num_steps!r}, needs an integer of at least 1")
        options = {"sampler": sampler, "num_steps": int(num_steps), "path": bool(path)}
        return super().sample(num_samples, key, labels, guidance=guidance, **options)

    def reflow_pairs(self, num_samples: int, key: Array, labels: Any = None, **options: Any) -> dict[str, Array]:
        """Noise, and the samples that it becomes: a batch or dataset of "noise", "data", and "labels" if given.

        Args:
            num_samples: how many.
            key: a JAX random key.
            labels: as for `sample`.
            options: as for `sample`.

        Reference: Liu, Gong & Liu (2023), arXiv:2209.03003, algorithm 1.
        """
        data = self.sample(num_samples, key, labels, **options)
        pairs = {"noise": jax.random.normal(key, data.shape), "data": data}  # as `draw` begins
        return pairs if labels is None else pairs | {"labels": np.broadcast_to(labels, (num_samples,))}

    def straightness(self, num_samples: int, key: Array, labels: Any = None, **options: Any) -> float:
        """S of the average's trajectories, see `compute_straightness`; options are those of `sample`."""
        return float(compute_straightness(self.sample(num_samples, key, labels, **options, path=True)))

    def draw(
        self,
        parts: tuple[Any, ...],
        num_samples: int,
        key: Array,
        labels: Any = None,
        *,
        sampler: str,
        num_steps: int,
        guidance: ArrayLike,
        twice: bool,
        path: bool,
    ) -> Float[Array, "B *D"]:
        model = self.guide(parts, guidance, twice)
        noise = jax.random.normal(key, (num_samples, *self.shape))

        def field(x, time):
            return model(x, jnp.full(num_samples, time), labels)

        samples = integrate(field, noise, jnp.linspace(0.0, 1.0, num_steps + 1), sampler, path)
        return jnp.moveaxis(samples, 0, 1) if path else samples
