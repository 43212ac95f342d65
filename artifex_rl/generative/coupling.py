"""Which noise becomes which data: couplings of a minibatch, by chance or by optimal transport."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

#: The names of couplings.
COUPLINGS = ("independent", "hungarian", "sinkhorn")


def couple(
    noise: Float[Array, "B *D"],
    data: Float[Array, "B *D"],
    key: Array,
    coupling: str = "independent",
    labels: Int[Array, "B"] | None = None,
    regularization: ArrayLike = 0.05,
    iterations: int = 50,
) -> Float[Array, "B *D"]:
    """The noise in another order: row i of it is to become row i of the data.

    - "independent": as it is.
    - "hungarian": the order in which Σ ‖data − noise‖² is least. Cubic in B: 2 ms on one core for 128 rows, 12 ms
      for 256.
    - "sinkhorn": for each row of data, noise drawn from the plan of `compute_sinkhorn_plan`; some may be drawn twice.
      Quadratic in B: 1 ms for 128 rows, 5 ms for 256.

    With labels, noise is moved within a class alone. Otherwise some of the noise would belong to each class, and a
    sampler that begins anywhere would begin where a class has learnt nothing.

    Args:
        noise: drawn from N(0, I).
        data: a batch.
        key: a JAX random key, for "sinkhorn".
        coupling: one of those names.
        labels: the data's classes. None: one class.
        regularization: of "sinkhorn", in units of the mean cost, > 0.
        iterations: of "sinkhorn", ≥ 1.

    Raises:
        ValueError: `coupling` has no such name.

    Reference: Tong et al. (2024), *Improving and Generalizing Flow-Based Generative Models with Minibatch Optimal
    Transport*, arXiv:2302.00482; Cheng & Schwing (2025), *The Curse of Conditions*, arXiv:2503.10636,
    for labels.
    """
    if coupling not in COUPLINGS:
        raise ValueError(f"coupling: got {coupling!r}, needs {', '.join(map(repr, COUPLINGS))}")
    if coupling == "independent":
        return noise
    costs = compute_costs(noise, data)
    apart = False if labels is None else labels[:, None] != labels[None, :]
    if coupling == "hungarian":
        too_much = len(costs) * (1 + jnp.max(costs))  # more than all others can add up to
        return noise[find_optimal_order(jnp.where(apart, too_much, costs))]
    plan = compute_sinkhorn_plan(jnp.where(apart, jnp.inf, costs), regularization, iterations)
    return noise[jax.random.categorical(key, jnp.log(plan), axis=0)]


def compute_costs(noise: Float[Array, "N *D"], data: Float[Array, "M *D"]) -> Float[Array, "N M"]:
    """‖noise − data‖², summed over D, of every pair."""
    noise, data = (x.reshape(len(x), -1) for x in (noise, data))
    squares = [jnp.sum(x**2, axis=1) for x in (noise, data)]
    return jnp.maximum(squares[0][:, None] + squares[1][None, :] - 2 * noise @ data.T, 0.0)


def find_optimal_order(costs: Float[Array, "B B"]) -> Int[Array, "B"]:
    """Rows in the order of the columns for which the sum of costs is least: row `order[j]` goes to column j.

    Reference: Kuhn (1955), *The Hungarian Method for the Assignment Problem*, doi:10.1002/nav.3800020109.
    """
    rows, columns = optax.assignment.hungarian_algorithm(jax.lax.stop_gradient(costs))
    return jnp.zeros(len(costs), rows.dtype).at[columns].set(rows)


def compute_sinkhorn_plan(
    costs: Float[Array, "N M"], regularization: ArrayLike = 0.05, iterations: int = 50
) -> Float[Array, "N M"]:
    """The plan P that minimises Σ P C − ε H(P), with marginals 1/N and 1/M: transport that hedges.

    Computed in logarithms, so that a small ε does no harm but to speed. The marginal of the columns is exact, that of
    the rows within what the iterations leave.

    Args:
        costs: C; infinite for pairs that may not be. ε is `regularization` times the mean of the others.
        regularization: > 0; 0 would be the optimal assignment.
        iterations: ≥ 1.

    Reference: Cuturi (2013), *Sinkhorn Distances*, arXiv:1306.0895, algorithm 1.
    """
    epsilon = jnp.asarray(regularization, costs.dtype) * jnp.mean(costs, where=jnp.isfinite(costs))
    kernel = -costs / jnp.maximum(epsilon, jnp.finfo(costs.dtype).tiny)
    log_rows, log_columns = (jnp.full(size, -jnp.log(size), costs.dtype) for size in costs.shape)

    def one(potentials, _):
        _, g = potentials
        f = log_rows - jax.nn.logsumexp(kernel + g[None, :], axis=1)
        g = log_columns - jax.nn.logsumexp(kernel + f[:, None], axis=0)
        return (f, g), None

    start = jnp.zeros_like(log_rows), jnp.zeros_like(log_columns)
    (f, g), _ = jax.lax.scan(one, start, length=iterations)
    return jnp.exp(kernel + f[:, None] + g[None, :])
