"""Energy-based model: learn a landscape whose valleys are the data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from artifex_rl.configs import choice, config, count, number
from artifex_rl.descent import descend
from artifex_rl.generative.energy import (
    begin_walks,
    compute_contrastive_loss,
    compute_denoising_score_loss,
    compute_sliced_score_loss,
    expected_clean,
)
from artifex_rl.trainer import Metrics, TrainState
from artifex_rl.trainers.base import GenerativeTrainer
from artifex_rl.trainers.walks import ReplayBuffer, pick_walks, walk

#: The buffer begins with draws from a stream of their own, apart from those of the steps 0, 1, 2, …
BUFFER = 2**32 - 3


@config
class EnergyConfig:
    """Settings of `EnergyTrainer`.

    Args:
        objective: "pcd", persistent contrastive divergence, with walks that go on from a buffer; "cd", contrastive
            divergence, with walks that begin at the data; "denoising" and "sliced" score matching, without walks.
        num_steps: of a walk in training: the k of CD-k.
        sampler: "langevin" or "mala"; see `sample_langevin` and `sample_mala`.
        step_size: η of a walk, > 0.
        temperature: T of a walk, ≥ 0. 1 draws from the model itself; less is common for pictures.
        low: least value of a sample; walks do not go below. None: any.
        high: greatest value of a sample, the same above.
        reinit_share: share of the walks that begin anew and do not go on from the buffer, in [0, 1].
        energy_penalty: α of `compute_contrastive_loss`, ≥ 0.
        noise_std: σ of denoising score matching, > 0, in the unit of the data.

    Raises:
        ValueError: a field is out of its range; the message names it, the value and what is needed.
    """

    objective: str = choice("pcd", "cd", "denoising", "sliced")
    num_steps: int = count(20)
    sampler: str = choice("langevin", "mala")
    step_size: float = number(0.01, above=0)
    temperature: float = number(1.0, low=0)
    low: float | None = number(None)
    high: float | None = number(None)
    reinit_share: float = number(0.05, low=0, high=1)
    energy_penalty: float = number(0.0, low=0)
    noise_std: float = number(0.3, above=0)


class EnergyTrainer(GenerativeTrainer):
    """Energy-based model, p(x) ∝ exp(−E(x)): raises the energy of what walks on it find, and lowers that of data.

    The model maps samples `(B, *D)` to energies `(B,)`; `artifex_rl.models.EnergyNetwork` is one. Contrastive
    divergence compares data with *negatives*: the ends of as many walks on the energy. They are drawn before the
    gradient is taken, and are constants of it. A walk is on the energy of the model in its evaluation mode, and
    leaves no trace in it. Energies of data and negatives are then read in one pass: batch statistics are of both.

    Persistent walks begin in rows of a buffer, a `reinit_share` of them anew, and end there. New walks begin
    evenly between `low` and `high`, or at N(0, I) where these are not set.

    Batches hold "data" `(B, ...)`, between `low` and `high`.

    Metrics: "loss"; "energy_data", its mean; "grad_norm"; for contrastive divergence also "energy_negatives", "gap" =
    energy_negatives − energy_data, near 0 where the model draws what the data are, and "acceptance", the share of
    steps that MALA took, 1 for Langevin.

    Args:
        model: the energy.
        optimizer: made for it.
        config: an `EnergyConfig`.
        shape: of one sample. None: the model's `shape`.
        buffer_size: persistent walks, at least as many as a batch has rows.
        options: `key` and `mesh`, see `Trainer`.

    Reference: Hinton (2002), *Training Products of Experts by Minimizing Contrastive Divergence*; Tieleman (2008),
    doi:10.1145/1390156.1390290, for the persistent walks; Du & Mordatch (2019), *Implicit Generation and Modeling
    with Energy-Based Models*, arXiv:1903.08689, algorithm 1, for the buffer.
    """

    config_class = EnergyConfig
    optional = ()

    def __init__(
        self,
        model: nnx.Module,
        optimizer: nnx.Optimizer,
        config: Any = None,
        *,
        shape: Sequence[int] | None = None,
        buffer_size: int = 1024,
        key: Array | int = 0,
        **options: Any,
    ):
        shape = getattr(model, "shape", None) if shape is None else shape
        if shape is None or buffer_size < 1:
            raise ValueError(
                f"got shape={shape}, buffer_size={buffer_size}; needs the shape of one sample, which "
                f"{type(model).__name__} does not say, and at least 1"
            )
        buffer = ReplayBuffer(jnp.zeros((buffer_size, *shape)))
        super().__init__(model, optimizer, config, companions=(buffer,), key=key, **options)
        stream = jax.random.fold_in(self.key, BUFFER)
        buffer[...] = begin_walks(buffer.shape, stream, self.config.low, self.config.high)

    @property
    def buffer(self) -> ReplayBuffer:
        """Where the persistent walks stand now."""
        return self.companions[0]

    def check_batch(self, batch: dict[str, Any]) -> None:
        """ValueError for shapes that the model cannot read."""
        super().check_batch(batch)
        shape, needed = np.shape(batch["data"]), self.buffer.shape[1:]
        if shape[1:] != needed:
            raise ValueError(f"data: got shape {shape}, needs (B, {', '.join(map(str, needed))})")
        self.check_readable(batch)

    def validate(self, batch: dict[str, Any]) -> None:
        """ValueError for NaN or infinity, and for data beyond `low` and `high`."""
        super().validate(batch)
        low, high = self.config.low, self.config.high
        if low is not None and high is not None and not low < high:
            raise ValueError(f"EnergyConfig.low: got {low}, needs less than high, which is {high}")
        least, most = np.min(batch["data"]), np.max(batch["data"])
        if (low is not None and least < low) or (high is not None and most > high):
            raise ValueError(f"data: got values from {least:.4g} to {most:.4g}, needs {low} to {high}")

    def compute_loss(self, model: nnx.Module, batch: dict[str, Any], key: Array) -> tuple[Array, Metrics]:
        """The loss of a batch; its "negatives" are those of `update`, or else walks that begin at its data."""
        config, data = self.config, jnp.asarray(batch["data"])
        if config.objective in ("pcd", "cd"):
            negatives, acceptance = batch.get("negatives") or walk(model, data, key, config)
            energies = _read_energies(model, jnp.concatenate([data, jax.lax.stop_gradient(negatives)]))
            energies = energies[: len(data)], energies[len(data) :]
            mean, other = (jnp.mean(x) for x in energies)
            metrics = {"energy_data": mean, "energy_negatives": other, "gap": other - mean, "acceptance": acceptance}
            return compute_contrastive_loss(*energies, config.energy_penalty), metrics

        def energy(x):  # the network that reads the data below; its slopes leave no trace in it
            return nnx.clone(model)(x)

        if config.objective == "denoising":
            loss = compute_denoising_score_loss(energy, data, key, config.noise_std)
        else:
            loss = compute_sliced_score_loss(energy, data, key)
        return loss, {"energy_data": jnp.mean(_read_energies(model, data))}

    def update(self, state: TrainState, batch: dict[str, Any], key: Array) -> tuple[TrainState, Metrics]:
        """A gradient step; where walks are persistent, they go on first and are put back into the buffer."""
        model, optimizer, buffer = self.merge(state)
        pick_key, walk_key, key = jax.random.split(key, 3)
        if self.config.objective == "pcd":
            rows, start = pick_walks(buffer, len(batch["data"]), pick_key, self.config)
            batch = {**batch, "negatives": walk(model, start, walk_key, self.config)}
            buffer[...] = buffer[...].at[rows].set(batch["negatives"][0])
        elif self.config.objective == "cd":
            batch = {**batch, "negatives": walk(model, jnp.asarray(batch["data"]), walk_key, self.config)}
        metrics = descend(self.compute_loss, model, optimizer, batch, key)
        return self.split(model, optimizer, buffer, step=state.step), metrics

    def evaluation_loss(self, parts: tuple[Any, ...], batch: dict[str, Any], key: Array) -> tuple[Array, Metrics]:
        """The loss beside the negatives that a step would have drawn; the buffer stays as it is."""
        if self.config.objective in ("pcd", "cd"):
            batch = {**batch, "negatives": self._draw_negatives(parts, batch, key)}
        return self.compute_loss(parts[0], batch, key)

    def sample_negatives(self, data: Float[Array, "B *D"], key: Array) -> tuple[Array, Array]:
        """What a step would compare data with: the ends of B walks `(B, *D)`, and the share of steps taken.

        They begin at the data for "cd", else in the buffer, which stays as it is and sets a limit to how many.
        """
        return self.call("_draw_negatives", self.prepare({"data": data}), key)

    def draw(
        self,
        parts: tuple[Any, ...],
        num_samples: int,
        key: Array,
        labels: Any = None,
        *,
        num_steps: int = 200,
        step_size: ArrayLike | None = None,
        temperature: ArrayLike | None = None,
        start: str = "noise",
        denoise: bool = False,
    ) -> Float[Array, "B *D"]:
        """Ends of walks on the energy.

        Args:
            parts: what `merge` returns.
            num_samples: how many.
            key: a JAX random key.
            labels: None: an energy knows no classes.
            num_steps: of each walk.
            step_size: η; None: that of the config.
            temperature: T; None: that of the config.
            start: "noise", where new walks begin; "buffer", where persistent ones stand.
            denoise: end with x − σ² ∇E(x), for an energy of denoising score matching, which is one of noisy data.

        Raises:
            ValueError: an argument is out of its range.
        """
        model, _, buffer = parts
        rows = len(buffer[...])
        if labels is not None or start not in ("noise", "buffer") or (start == "buffer" and num_samples > rows):
            raise ValueError(
                f"got labels={labels}, start={start!r}, num_samples={num_samples}; needs no labels, 'noise' or "
                f"'buffer', and from the buffer at most {rows}"
            )
        begin_key, key = jax.random.split(key)
        if start == "noise":
            x = begin_walks((num_samples, *buffer.shape[1:]), begin_key, self.config.low, self.config.high)
        else:
            x = jax.random.permutation(begin_key, buffer[...])[:num_samples]
        x, _ = walk(model, x, key, self.config, num_steps=num_steps, step_size=step_size, temperature=temperature)
        if denoise:
            x = expected_clean(lambda x: nnx.clone(model)(x), x, self.config.noise_std)
        return x

    def _draw_negatives(self, parts, batch, key):
        model, _, buffer = parts
        pick_key, key = jax.random.split(key)
        start = jnp.asarray(batch["data"])
        if self.config.objective != "cd":
            _, start = pick_walks(buffer, min(len(start), len(buffer[...])), pick_key, self.config)
        return walk(model, start, key, self.config)


def _read_energies(model, samples):
    energies = model(samples)
    if energies.shape != samples.shape[:1]:
        raise ValueError(f"model: returned shape {energies.shape}, needs {samples.shape[:1]}, an energy a sample")
    return energies
