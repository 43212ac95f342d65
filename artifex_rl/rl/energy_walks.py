"""What the two policies of an energy share: where walks begin, how far a step goes, and where the bounds are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from artifex_rl.generative.energy import Energy, begin_walks
from artifex_rl.rl.denoising import Setting


def frozen_energy(model: nnx.Module) -> Energy:
    """The energy of a model in its evaluation mode, as a pure function: what it is asked leaves no trace in it.

    Gradients by the model's weights go through.
    """
    frozen = nnx.clone(model)
    frozen.eval()
    return lambda x: nnx.clone(frozen)(x)  # a spectral norm writes into its network even in this mode


class WalkingPolicy(nnx.Module):
    """A policy that walks on an energy.

    Args:
        energy: maps samples `(B, *shape)` to energies `(B,)`, as a network that `EnergyTrainer` trained does.
        num_steps: T ≥ 1, of a walk.
        shape: of one sample. None: the energy's `shape`.
        step_size: η > 0, as that of `sample_langevin`. A variable of the model: `policy.step_size = 0.02` compiles
            nothing.
        temperature: τ > 0, likewise.
        low: least value of a sample. None: any.
        high: greatest value of a sample, more than `low`.

    Raises:
        ValueError: an argument is out of its range.
    """

    def __init__(
        self,
        energy: nnx.Module,
        num_steps: int,
        shape: Sequence[int] | None,
        step_size: float,
        temperature: float,
        low: float | None,
        high: float | None,
    ):
        shape = getattr(energy, "shape", None) if shape is None else shape
        if not shape:
            raise ValueError(
                f"shape: got {shape}, needs that of one sample, which {type(energy).__name__} does not say"
            )
        if isinstance(num_steps, bool) or not isinstance(num_steps, Integral) or num_steps < 1:
            raise ValueError(f"num_steps: got {num_steps!r}, needs an integer of at least 1")
        bounds = [bound for bound in (low, high) if bound is not None]
        if not all(isinstance(x, Real) and math.isfinite(x) for x in bounds) or bounds != sorted(set(bounds)):
            raise ValueError(f"got low={low}, high={high}; needs numbers or None, and low less than high")
        self.energy, self.num_steps, self.shape = energy, int(num_steps), tuple(shape)
        self.low, self.high = low, high
        self._step_size = Setting(jnp.float32(_check("step_size", step_size)))
        self._temperature = Setting(jnp.float32(_check("temperature", temperature)))

    @property
    def step_size(self) -> Float[Array, ""]:
        """η of now; a number of more than 0 may be assigned between steps of training."""
        return self._step_size[...]

    @step_size.setter
    def step_size(self, step_size: float) -> None:
        self._step_size[...] = jnp.float32(_check("step_size", step_size))

    @property
    def temperature(self) -> Float[Array, ""]:
        """τ of now; a number of more than 0 may be assigned between steps of training."""
        return self._temperature[...]

    @temperature.setter
    def temperature(self, temperature: float) -> None:
        self._temperature[...] = jnp.float32(_check("temperature", temperature))

    def __call__(self, samples: Float[Array, "B *D"]) -> Float[Array, "B"]:
        """The energy, in whatever mode it is: so `EnergyTrainer` trains it before a trainer of policies does."""
        return self.energy(samples)

    def begin(self, observations: Any, key: Array) -> Float[Array, "B *D"]:
        """Where walks begin: in observations `(B, *shape)` themselves; anew, see `begin_walks`, for those of `(B,)`.

        Raises:
            ValueError: observations have another shape.
        """
        starts = jnp.asarray(observations)
        if starts.ndim == 1:
            return begin_walks((len(starts), *self.shape), key, self.low, self.high)
        if starts.shape[1:] != self.shape or not jnp.issubdtype(starts.dtype, jnp.floating):
            raise ValueError(
                f"observations: got {starts.dtype} of shape {starts.shape}, needs floats "
                f"(B, {', '.join(map(str, self.shape))}), where walks begin, or (B,) for walks that begin anew"
            )
        return starts


def _check(name: str, number: ArrayLike) -> ArrayLike:
    if not isinstance(number, jax.core.Tracer) and not 0 < number < math.inf:
        raise ValueError(f"{name}: got {number}, needs a number of more than 0: without noise a step has no density")
    return number
