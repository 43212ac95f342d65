"""What a long run meets sooner or later: NaN under a mask, log-probabilities of −∞, log-ratios beyond any float."""

from functools import partial
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from artifex_rl.rl.losses import (
    compute_clipped_surrogate,
    compute_clipped_surrogate_loss,
    compute_dpo_loss,
    compute_kl_divergence,
    compute_policy_entropy,
    compute_preference_loss,
    compute_simpo_loss,
    compute_value_loss,
    estimate_kl,
)
from artifex_rl.rl.returns import compute_group_advantages, normalize_advantages

TYPES = ("sigmoid", "ipo", "hinge", "robust")
ESTIMATORS = ("k1", "k2", "k3")

# Every function that takes a mask, of arrays with the mask's shape, made a scalar so that it has a gradient.
# A sum of squares, because the entries of normalised advantages sum to 0 whatever goes in.
MASKED = {
    "surrogate loss": (3, lambda mask, *x: compute_clipped_surrogate_loss(*x, 0.2, mask)),
    "value loss": (2, lambda mask, *x: compute_value_loss(*x, mask=mask)),
    "clipped value loss": (3, lambda mask, *x: compute_value_loss(*x, 0.5, mask)),
    "normalisation": (1, lambda mask, x: (normalize_advantages(x, mask=mask, eps=0.3) ** 2).sum()),
    "group advantages": (1, lambda mask, x: (compute_group_advantages(x, x.size, mask=mask, eps=0.3) ** 2).sum()),
    "batch advantages": (1, lambda mask, x: (compute_group_advantages(x, x.size, "batch", 0.3, mask) ** 2).sum()),
    "dpo": (4, lambda mask, *x: compute_dpo_loss(*x, mask=mask)),
    "simpo": (4, lambda mask, *x: compute_simpo_loss(*x, mask=mask)),
} | {
    f"preference {kind}": (1, lambda mask, x, kind=kind: compute_preference_loss(x, 0.5, kind, 0.1, mask))
    for kind in TYPES
} | {
    f"estimate {kind}": (2, lambda mask, *x, kind=kind: estimate_kl(*x, kind, mask).sum()) for kind in ESTIMATORS
}  # fmt: skip


@pytest.mark.parametrize("hidden", [(np.nan, 1e30), pytest.param((np.inf, -np.inf), marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", MASKED)
def test_masking_entries_is_dropping_them_in_the_value_and_in_the_gradient(variant, name, hidden):
    count, function = MASKED[name]
    mask = np.array([1, 0, 1, 1, 0, 1], bool)
    arrays = np.random.default_rng(1).uniform(1, 3, (count, 6)).astype(np.float32)
    arrays[:, ~mask] = hidden

    def value_and_gradients(arrays, mask):
        return variant(jax.value_and_grad(partial(function, mask), tuple(range(count))))(*arrays)

    value, gradients = value_and_gradients(arrays, mask)
    kept_value, kept_gradients = value_and_gradients(arrays[:, mask], None)
    np.testing.assert_allclose(value, kept_value, rtol=1e-5)
    for gradient, kept in zip(gradients, kept_gradients, strict=True):
        np.testing.assert_array_equal(gradient[~mask], 0.0)
        np.testing.assert_allclose(gradient[mask], kept, rtol=1e-4, atol=1e-6)
    assert np.any(gradients[0] != 0)


@pytest.mark.parametrize("hidden", [np.nan, np.inf])
@pytest.mark.parametrize("by_action", [False, True])
@pytest.mark.parametrize("function", [compute_policy_entropy, compute_kl_divergence])
def test_masking_distributions_is_dropping_them_in_the_value_and_in_the_gradient(
    variant, function, by_action, hidden
):
    count = 2 if function is compute_kl_divergence else 1
    mask = np.array([1, 0, 1], bool)
    arrays = np.array(jax.nn.log_softmax(np.random.default_rng(2).normal(size=(count, 3, 4))))
    arrays[:, ~mask] = hidden
    shaped = np.broadcast_to(mask[:, None], (3, 4)) if by_action else mask
    both = variant(lambda *x: jax.value_and_grad(partial(function, mask=shaped), tuple(range(count)))(*x))
    kept = variant(lambda *x: jax.value_and_grad(function, tuple(range(count)))(*x))
    value, gradients = both(*arrays)
    kept_value, kept_gradients = kept(*arrays[:, mask])
    np.testing.assert_allclose(value, kept_value, rtol=1e-5)
    for gradient, expected in zip(gradients, kept_gradients, strict=True):
        np.testing.assert_array_equal(gradient[~mask], 0.0)
        np.testing.assert_allclose(gradient[mask], expected, rtol=1e-4, atol=1e-6)


# Log-probabilities that no float can subtract: every pair of these, in both orders.
HUGE = [0.0, -1.0, -100.0, -1e4, -1e9, -1e30, -jnp.inf, 1e9]
PAIRS = jnp.array(list(product(HUGE, HUGE)), jnp.float32)
OF_LOG_PROBS = (
    {
        f"surrogate {sign:+d}": lambda p, q, sign=sign: compute_clipped_surrogate(p, q, sign * jnp.ones_like(p), 0.2)
        for sign in (1, -1, 0)
    }
    | {f"estimate {kind}": lambda p, q, kind=kind: estimate_kl(p, q, kind) for kind in ESTIMATORS}
    | {
        f"dpo {kind}": lambda p, q, kind=kind: jax.vmap(
            lambda a, b: compute_dpo_loss(a, b, b, a, loss_type=kind, label_smoothing=0.1)
        )(p, q)
        for kind in TYPES
    }
    | {
        f"simpo {kind}": lambda p, q, kind=kind: jax.vmap(
            lambda a, b: compute_simpo_loss(a, b, 2, 3, loss_type=kind, label_smoothing=0.1)
        )(p, q)
        for kind in TYPES
    }
)


@pytest.mark.parametrize("name", OF_LOG_PROBS)
def test_log_ratios_of_any_size_give_finite_values_and_finite_gradients(variant, name):
    function = variant(OF_LOG_PROBS[name])
    assert np.isfinite(function(PAIRS[:, 0], PAIRS[:, 1])).all()
    for gradient in jax.grad(lambda *x: function(*x).sum(), (0, 1))(PAIRS[:, 0], PAIRS[:, 1]):
        assert np.isfinite(gradient).all()


@pytest.mark.parametrize("loss_type", TYPES)
def test_margins_of_any_size_give_finite_losses_and_finite_gradients(variant, loss_type):
    margins = jnp.array([0.0, 1e3, -1e3, 1e9, -1e9, jnp.inf, -jnp.inf])
    loss = variant(jax.vmap(lambda h: compute_preference_loss(h, 0.1, loss_type, 0.1)))
    assert np.isfinite(loss(margins)).all()
    assert np.isfinite(jax.grad(lambda h: loss(h).sum())(margins)).all()


@pytest.mark.parametrize("loss_type", TYPES)
def test_two_impossible_responses_are_as_likely_as_each_other(loss_type):
    impossible, tie = jnp.full(1, -jnp.inf), compute_dpo_loss([0.0], [0.0], [0.0], [0.0], 0.5, loss_type)
    np.testing.assert_allclose(compute_dpo_loss(*[impossible] * 4, 0.5, loss_type), tie)
    assert estimate_kl(impossible, impossible) == 0
    assert compute_clipped_surrogate(impossible, impossible, jnp.ones(1), 0.2) == 1


def test_nan_that_no_mask_hides_is_not_hidden():
    # A finite number here would let a broken policy train on.
    nan = jnp.full(1, jnp.nan)
    zero = jnp.zeros(1)
    for result in (
        compute_clipped_surrogate_loss(nan, zero, zero + 1, 0.2),
        compute_value_loss(nan, zero),
        compute_dpo_loss(nan, zero, zero, zero),
        compute_simpo_loss(nan, zero, [1], [1]),
        compute_preference_loss(nan, 0.1),
        normalize_advantages([jnp.nan, 1.0])[1],
        compute_policy_entropy(nan),
        compute_kl_divergence(nan, zero),
        compute_kl_divergence(zero, nan),
        *(estimate_kl(nan, zero, kind)[0] for kind in ESTIMATORS),
    ):
        assert np.isnan(result)
