"""Energy-based models, p(x) ∝ exp(−E(x)): walks that draw from them, and losses that need no normaliser.

An energy is a pure function from samples `(B, *D)` to energies `(B,)`, of which each depends on its own sample alone.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

Energy = Callable[[Float[Array, "B *D"]], Float[Array, "B"]]


def begin_walks(
    shape: tuple[int, ...], key: Array, low: ArrayLike | None = None, high: ArrayLike | None = None
) -> Float[Array, "B *D"]:
    """Where new walks begin: evenly between `low` and `high`, or at N(0, I) if one of them is None."""
    if low is None or high is None:
        return jnp.clip(jax.random.normal(key, shape), low, high)
    return jax.random.uniform(key, shape, minval=low, maxval=high)


def langevin_step(
    energy: Energy, x: Float[Array, "B *D"], step_size: ArrayLike, temperature: ArrayLike = 1.0
) -> tuple[Float[Array, "B *D"], Float[Array, ""]]:
    """Mean and standard deviation of a step of unadjusted Langevin dynamics from x: N(x − η ∇E(x), 2 η T I).

    Args:
        energy: see the module.
        x: where the walks are.
        step_size: η > 0.
        temperature: T ≥ 0.

    Reference: Roberts & Tweedie (1996), doi:10.2307/3318418, section 1.4.1, whose h is 2 η.
    """
    step_size, temperature = (jnp.asarray(number, x.dtype) for number in (step_size, temperature))
    return x - step_size * _slope(energy, x), jnp.sqrt(2 * step_size * temperature)


def sample_langevin(
    energy: Energy,
    start: Float[Array, "B *D"],
    key: Array,
    num_steps: int,
    step_size: ArrayLike,
    temperature: ArrayLike = 1.0,
    low: ArrayLike | None = None,
    high: ArrayLike | None = None,
) -> Float[Array, "B *D"]:
    """B walks of unadjusted Langevin dynamics: x ← x − η ∇E(x) + √(2 η T) ε, with ε from N(0, I).

    For small η the walks come to draw from exp(−E / T); for an energy ½ λ x² they have the variance
    T / (λ (1 − η λ / 2)), a little more than T / λ, and none for η λ ≥ 2. T = 0 is gradient descent.

    Args:
        energy: see the module.
        start: where the walks begin.
        key: a JAX random key.
        num_steps: of each walk, ≥ 0.
        step_size: η > 0.
        temperature: T ≥ 0.
        low: walks that step below are put back there. None: no bound.
        high: the same above.

    Returns:
        Where they end. No gradient goes back through a walk.

    Reference: Welling & Teh (2011), *Bayesian Learning via Stochastic Gradient Langevin Dynamics*, eq. 3, whose
    ε_t is 2 η; Du & Mordatch (2019), arXiv:1903.08689, eq. 3.
    """
    start, (step_size, temperature, low, high) = _read(start, step_size, temperature, low, high)

    def step(x, key):
        mean, std = langevin_step(energy, x, step_size, temperature)
        x = mean + std * jax.random.normal(key, x.shape, x.dtype)
        return (x if low is None and high is None else jnp.clip(x, low, high)), None

    x, _ = jax.lax.scan(step, start, jax.random.split(key, num_steps))
    return jax.lax.stop_gradient(x)


def sample_mala(
    energy: Energy,
    start: Float[Array, "B *D"],
    key: Array,
    num_steps: int,
    step_size: ArrayLike,
    temperature: ArrayLike = 1.0,
    low: ArrayLike | None = None,
    high: ArrayLike | None = None,
) -> tuple[Float[Array, "B *D"], Float[Array, ""]]:
    """The Metropolis-adjusted Langevin algorithm: Langevin steps that may be refused, so that the law is exact.

    A step from x to y is taken with probability min(1, exp(−(E(y) − E(x)) / T) q(x|y) / q(y|x)), where q(y|x) is
    N(y; x − η ∇E(x), 2 η T I). Whatever η is, exp(−E / T) stays as it is. A step beyond `low` or `high` is refused,
    which makes that the law within the bounds. At T = 0 a step is taken if it makes the slope smaller along with the
    energy.

    Args:
        energy, start, key, num_steps, step_size, temperature, low, high: see `sample_langevin`; η may be larger here.

    Returns:
        Where the walks end, and the share of steps that were taken, of all steps and walks: 1 where there were none.

    Reference: Roberts & Tweedie (1996), *Exponential convergence of Langevin distributions and their discrete
    approximations*, doi:10.2307/3318418, section 1.4.2.
    """
    start, (step_size, temperature, low, high) = _read(start, step_size, temperature, low, high)
    noise_scale = jnp.sqrt(2 * step_size * temperature)

    def look(x):
        energies, pull = jax.vjp(energy, x)
        return energies, pull(jnp.ones_like(energies))[0]

    def distance(y, x, slope):  # −4 η T log q(y|x), but for a constant
        return jnp.sum(((y - x + step_size * slope) ** 2).reshape(len(x), -1), axis=1)

    def step(here, key):
        (x, energies, slope), (noise_key, key) = here, jax.random.split(key)
        y = x - step_size * slope + noise_scale * jax.random.normal(noise_key, x.shape, x.dtype)
        new_energies, new_slope = look(y)
        # The logarithm of the ratio times T, which is finite where T is 0.
        back = distance(x, y, new_slope) - distance(y, x, slope)
        log_ratio = energies - new_energies - back / (4 * step_size)
        taken = temperature * jnp.log(jax.random.uniform(key, log_ratio.shape, x.dtype)) < log_ratio
        for bound, inside in ((low, jnp.greater_equal), (high, jnp.less_equal)):
            if bound is not None:
                taken = taken & jnp.all(inside(y, bound).reshape(len(y), -1), axis=1)

        def choose(new, old):
            return jnp.where(taken.reshape(-1, *(1,) * (new.ndim - 1)), new, old)

        return (choose(y, x), choose(new_energies, energies), choose(new_slope, slope)), taken

    (x, *_), taken = jax.lax.scan(step, (start, *look(start)), jax.random.split(key, num_steps))
    acceptance = jnp.mean(taken, dtype=start.dtype) if num_steps else jnp.ones((), start.dtype)
    return jax.lax.stop_gradient(x), acceptance


def compute_contrastive_loss(
    data_energies: Float[Array, "B"], negative_energies: Float[Array, "M"], penalty: ArrayLike = 0.0
) -> Float[Array, ""]:
    """E_data[E(x)] − E_negatives[E(x)] + α (E_data[E(x)²] + E_negatives[E(x)²]).

    Where the negatives are drawn from the model, and are held fixed, the gradient of its first two terms by the
    weights is that of −log p(x): the normaliser's own gradient is −E_model[∇E].

    Args:
        data_energies: `(B,)`.
        negative_energies: `(M,)`.
        penalty: α ≥ 0: keeps energies near 0, whose level the rest leaves open.

    Reference: Hinton (2002), *Training Products of Experts by Minimizing Contrastive Divergence*, eq. 5; Du &
    Mordatch (2019), section 3.3, for the penalty.
    """
    gap = jnp.mean(data_energies) - jnp.mean(negative_energies)
    squares = jnp.mean(data_energies**2) + jnp.mean(negative_energies**2)
    return gap + jnp.asarray(penalty, gap.dtype) * squares


def compute_denoising_score_loss(
    energy: Energy, data: Float[Array, "B *D"], key: Array, std: ArrayLike
) -> Float[Array, ""]:
    """½ E ‖σ ∇E(x + σ ε) − ε‖²: the energy's slope says which noise was added.

    Its minimum is the energy of data *with* that noise: of a normal of precision λ, one of variance 1/λ + σ². There
    x − σ² ∇E(x) is the expected sample without noise.

    Args:
        energy: see the module.
        data: samples.
        key: a JAX random key, for ε from N(0, I).
        std: σ > 0, in the unit of the data.

    Reference: Vincent (2011), *A Connection Between Score Matching and Denoising Autoencoders*, section 4.3, times σ²
    as Song & Ermon (2019), arXiv:1907.05600, eq. 5, have it.
    """
    std, noise = jnp.asarray(std, data.dtype), jax.random.normal(key, data.shape, data.dtype)
    return 0.5 * jnp.mean(_squares(std * _slope(energy, data + std * noise) - noise))


def expected_clean(energy: Energy, noisy: Float[Array, "B *D"], std: ArrayLike) -> Float[Array, "B *D"]:
    """x − σ² ∇E(x): the expected sample without noise, for an energy of samples with noise of σ.

    Args:
        energy: as `compute_denoising_score_loss` has it.
        noisy: samples with noise.
        std: σ > 0.

    Reference: Robbins (1956), *An Empirical Bayes Approach to Statistics*; Efron (2011), *Tweedie's Formula and
    Selection Bias*, eq. 1.4.
    """
    return noisy - jnp.asarray(std, noisy.dtype) ** 2 * _slope(energy, noisy)


def compute_sliced_score_loss(energy: Energy, data: Float[Array, "B *D"], key: Array) -> Float[Array, ""]:
    """E [½ ‖∇E(x)‖² − vᵀ ∇²E(x) v]: Hyvärinen's score matching, with the Laplacian seen along random signs v.

    The expectation over v is the trace of ∇²E, and where that is diagonal each v gives it exactly. Needs an energy
    that bends: one of ReLUs has no second derivative.

    Args:
        energy: see the module.
        data: samples.
        key: a JAX random key, for v.

    Reference: Hyvärinen (2005), *Estimation of Non-Normalized Statistical Models by Score Matching*, eq. 4; Song et
    al. (2019), *Sliced Score Matching*, arXiv:1905.07088, eq. 8 (with reduced variance).
    """
    signs = jax.random.rademacher(key, data.shape, data.dtype)
    slope, bend = jax.jvp(lambda x: _slope(energy, x), (data,), (signs,))
    return jnp.mean(0.5 * _squares(slope) - jnp.sum((signs * bend).reshape(len(data), -1), axis=1))


def tilt_energy(energy: Float[Array, "*B"], reward: Float[Array, "*B"], beta: ArrayLike) -> Float[Array, "*B"]:
    """E(x) − r(x) / β: the energy of p(x) exp(r(x) / β), which is the best that a reward can make of a model.

    No law has a higher E[r] − β KL(· ‖ p): what policy gradients with a KL penalty approach, known without training.

    Args:
        energy: of some samples under the model, where p ∝ exp(−E).
        reward: of the same.
        beta: β > 0, weight of the KL, in units of reward a nat.

    Reference: Korbak et al. (2022), *RL with KL penalties is better viewed as Bayesian inference*, arXiv:2205.11275,
    eq. 4.
    """
    return energy - reward / jnp.asarray(beta, energy.dtype)


def _read(start, *numbers):
    start = jnp.asarray(start)
    return start, tuple(None if x is None else jnp.asarray(x, start.dtype) for x in numbers)


def _slope(energy, x):
    return jax.grad(lambda x: jnp.sum(energy(x)))(x)


def _squares(x):
    return jnp.sum((x**2).reshape(len(x), -1), axis=1)
