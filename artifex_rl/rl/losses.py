"""What the trainers minimise, and what they measure: surrogate, value and preference losses, entropy, KL.

Every function is pure, and may be jitted, vmapped and differentiated; every coefficient may be traced. Entries under
a false mask count for nothing, even NaN, in the value and in the gradient. Log-probabilities of −∞ and log-ratios of
any size give finite values and finite gradients.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from artifex_rl.rl.arrays import check_shape, read_floats, read_mask, read_scalar

#: Log-ratios that are exponentiated stop here: e²⁰ ≈ 5·10⁸ is far beyond any trust region, and its square is finite.
MAX_EXPONENT = 20.0
#: Log-ratios that are not exponentiated stop here, so that a log-probability of −∞ stays a finite penalty.
MAX_LOG_RATIO = 1e6


def compute_policy_entropy(log_probs: ArrayLike, mask: ArrayLike | None = None) -> Float[Array, ""]:
    """Mean entropy of categorical distributions, in nats: H = −Σₐ p(a) log p(a), averaged over the batch.

    Args:
        log_probs: `(..., A)`, normalised log-probabilities of the A actions; −∞ for an impossible one.
        mask: `(...)` says which distributions count; `(..., A)` says which actions exist.

    Returns:
        A scalar in [0, log A].

    Raises:
        ValueError: a shape does not fit.
    """
    (log_probs,) = read_floats(log_probs=log_probs)
    log_probs, positions = _mask_actions(log_probs, mask)
    return _mean(categorical_entropy(log_probs), positions)


def compute_kl_divergence(
    policy_log_probs: ArrayLike, ref_log_probs: ArrayLike, mask: ArrayLike | None = None
) -> Float[Array, ""]:
    """Mean exact KL(policy ‖ reference) of categorical distributions, in nats: Σₐ p(a) (log p(a) − log q(a)).

    For log-probabilities of samples alone, see `estimate_kl`.

    Args:
        policy_log_probs: `(..., A)`, normalised log-probabilities log p of the A actions.
        ref_log_probs: like `policy_log_probs`, log q. Where q is 0 and p is not the divergence is infinite; it comes
            back as the large finite p · `MAX_LOG_RATIO`.
        mask: `(...)` says which distributions count; `(..., A)` says which actions exist.

    Returns:
        A scalar ≥ 0.

    Raises:
        ValueError: a shape does not fit.
    """
    policy, ref = read_floats(policy_log_probs=policy_log_probs, ref_log_probs=ref_log_probs)
    check_shape("ref_log_probs", ref, policy.shape)
    policy, positions = _mask_actions(policy, mask, name="policy_log_probs")
    ref, _ = _mask_actions(ref, mask)
    return _mean(categorical_kl(policy, ref), positions)


def categorical_entropy(log_probs: Float[Array, "*B A"]) -> Float[Array, "*B"]:
    """Entropy of each distribution over the last axis, in nats; an action of probability 0 adds 0."""
    finite = jnp.where(log_probs == -jnp.inf, 0.0, log_probs)  # 1 · log 1 is 0 as well, and has a gradient
    return -jnp.sum(jnp.exp(finite) * finite, axis=-1)


def categorical_kl(log_p: Float[Array, "*B A"], log_q: Float[Array, "*B A"]) -> Float[Array, "*B"]:
    """KL(p ‖ q) of each pair of distributions over the last axis, in nats."""
    return jnp.sum(jnp.exp(log_p) * _log_ratio(log_p, log_q), axis=-1)


def estimate_kl(
    log_probs: ArrayLike, ref_log_probs: ArrayLike, estimator: str = "k3", mask: ArrayLike | None = None
) -> Float[Array, "*B"]:
    """Estimate of KL(policy ‖ reference) from each sample of the policy alone, in nats.

    With d = log π(x) − log π_ref(x): k1 = d is unbiased and may be negative; k2 = d²/2 is biased and of low variance;
    k3 = exp(−d) − 1 + d is unbiased and never negative.

    Args:
        log_probs: any shape, log π of samples drawn from π.
        ref_log_probs: like `log_probs`, log π_ref of the same samples.
        estimator: "k1", "k2" or "k3".
        mask: like `log_probs`; entries where it is false come back as 0.

    Returns:
        Like `log_probs`: one estimate a sample, to be averaged by the caller.

    Raises:
        ValueError: the estimator is unknown or a shape does not fit.

    Reference: Schulman (2020), *Approximating KL Divergence*, http://joschu.net/blog/kl-approx.html
    """
    if estimator not in ("k1", "k2", "k3"):
        raise ValueError(f"estimator: got {estimator!r}, needs 'k1', 'k2' or 'k3'")
    log_probs, ref = read_floats(log_probs=log_probs, ref_log_probs=ref_log_probs)
    check_shape("ref_log_probs", ref, log_probs.shape)
    _, (log_probs, ref) = _mask_entries(mask, log_probs, ref)  # both 0 under a false mask, and so every estimate
    log_ratio = _log_ratio(log_probs, ref)
    if estimator == "k1":
        return log_ratio
    if estimator == "k2":
        return log_ratio**2 / 2
    inverse = jnp.minimum(-log_ratio, MAX_EXPONENT)
    return jnp.expm1(inverse) - inverse


def compute_clipped_surrogate(
    log_probs: ArrayLike,
    old_log_probs: ArrayLike,
    advantages: ArrayLike,
    clip_param: ArrayLike,
    clip_param_high: ArrayLike | None = None,
) -> Float[Array, "*B"]:
    """PPO's clipped objective of each sample: min(ρA, clip(ρ, 1 − ε, 1 + ε_high) A) with ρ = π(a|s) / π_old(a|s).

    It is to be maximised. The minimum makes it a pessimistic bound: once the ratio has moved by ε in the direction
    that the advantage asks for, the gradient is 0; in the other direction it never is.

    Args:
        log_probs: any shape, log π(a|s) under the policy in training. The gradient flows through these alone.
        old_log_probs: like `log_probs`, under the policy that drew the actions; a constant.
        advantages: like `log_probs`; constants.
        clip_param: ε > 0, a scalar.
        clip_param_high: ε of the upper bound, where it differs ("clip-higher", DAPO). None: ε.

    Returns:
        Like `log_probs`.

    Raises:
        ValueError: a shape does not fit.

    Reference: Schulman et al. (2017), *Proximal Policy Optimization Algorithms*, arXiv:1707.06347, eq. 7; Yu et al.
    (2025), *DAPO*, arXiv:2503.14476, eq. 10, for ε_high. Log-ratios stop at ±`MAX_EXPONENT`.
    """
    log_probs, old, advantages = read_floats(log_probs=log_probs, old_log_probs=old_log_probs, advantages=advantages)
    check_shape("old_log_probs", old, log_probs.shape)
    check_shape("advantages", advantages, log_probs.shape)
    low = read_scalar("clip_param", clip_param, log_probs.dtype)
    high = low if clip_param_high is None else read_scalar("clip_param_high", clip_param_high, log_probs.dtype)
    old, advantages = jax.lax.stop_gradient((old, advantages))
    ratio = jnp.exp(jnp.clip(_log_ratio(log_probs, old), -MAX_EXPONENT, MAX_EXPONENT))
    free, clipped = ratio * advantages, jnp.clip(ratio, 1 - low, 1 + high) * advantages
    return jnp.where(free <= clipped, free, clipped)  # not `minimum`: on the bound itself it would mix two gradients


def compute_clipped_surrogate_loss(
    log_probs: ArrayLike,
    old_log_probs: ArrayLike,
    advantages: ArrayLike,
    clip_param: ArrayLike,
    mask: ArrayLike | None = None,
    clip_param_high: ArrayLike | None = None,
) -> Float[Array, ""]:
    """PPO's policy loss: minus the mean of `compute_clipped_surrogate`, over the samples under the mask.

    Args:
        mask: like `log_probs`; which samples count. None: all.

    The other arguments and the errors are those of `compute_clipped_surrogate`.

    Returns:
        A scalar, to be minimised; 0 where the mask holds nothing.
    """
    log_probs, old, advantages = read_floats(log_probs=log_probs, old_log_probs=old_log_probs, advantages=advantages)
    check_shape("old_log_probs", old, log_probs.shape)
    check_shape("advantages", advantages, log_probs.shape)
    mask, (log_probs, old, advantages) = _mask_entries(mask, log_probs, old, advantages)
    return -_mean(compute_clipped_surrogate(log_probs, old, advantages, clip_param, clip_param_high), mask)


def compute_value_loss(
    values: ArrayLike,
    returns: ArrayLike,
    old_values: ArrayLike | None = None,
    clip_param: ArrayLike | None = None,
    mask: ArrayLike | None = None,
) -> Float[Array, ""]:
    """Critic's loss: ½ · mean((V − R)²), or, with a clip, ½ · mean(max((V − R)², (V_clip − R)²)).

    V_clip = V_old + clip(V − V_old, −ε, ε) keeps the critic near the one that collected the data.

    Args:
        values: any shape, V(s) of the critic in training. The gradient flows through these alone.
        returns: like `values`, the targets; constants.
        old_values: like `values`, of the critic that collected the data. Needed with `clip_param`.
        clip_param: ε > 0, a scalar in the units of the values. None: no clipping.
        mask: like `values`; which entries count. None: all.

    Returns:
        A scalar ≥ 0.

    Raises:
        ValueError: `clip_param` comes without `old_values` or the reverse, or a shape does not fit.

    Reference: Engstrom et al. (2020), *Implementation Matters in Deep Policy Gradients*, arXiv:2005.12729, section 3;
    the factor ½ as in OpenAI baselines.
    """
    if (old_values is None) != (clip_param is None):
        missing = "old_values" if old_values is None else "clip_param"
        raise ValueError(f"{missing}: got None, needs a value: clipping takes both old_values and clip_param")
    clipping = clip_param is not None
    values, returns, old = read_floats(values=values, returns=returns, old_values=old_values if clipping else values)
    check_shape("returns", returns, values.shape)
    check_shape("old_values", old, values.shape)
    mask, (values, returns, old) = _mask_entries(mask, values, returns, old)
    returns, old = jax.lax.stop_gradient((returns, old))
    squared = (values - returns) ** 2
    if clipping:
        bound = read_scalar("clip_param", clip_param, values.dtype)
        squared = jnp.maximum(squared, (old + jnp.clip(values - old, -bound, bound) - returns) ** 2)
    return _mean(squared, mask) / 2


#: Loss of a preference margin h for inverse temperature β. h > 0: the policy agrees with the label.
PREFERENCE_LOSSES = {
    "sigmoid": lambda h, beta: -jax.nn.log_sigmoid(beta * h),
    "ipo": lambda h, beta: (h - 1 / (2 * beta)) ** 2,
    "hinge": lambda h, beta: jax.nn.relu(1 - beta * h),
    "robust": lambda h, beta: -jax.nn.log_sigmoid(beta * h),
}


def compute_preference_loss(
    margins: ArrayLike,
    beta: ArrayLike,
    loss_type: str = "sigmoid",
    label_smoothing: ArrayLike = 0.0,
    mask: ArrayLike | None = None,
) -> Float[Array, ""]:
    """Mean loss of preference margins h, the log-ratio of the chosen response minus that of the rejected one.

    "sigmoid" is −log σ(βh) (DPO); "ipo" is (h − 1/(2β))²; "hinge" is max(0, 1 − βh) (SLiC). With label smoothing s
    each of them becomes (1 − s) L(h) + s L(−h), which for "sigmoid" is cDPO. "robust" is
    ((1 − s) L(h) − s L(−h)) / (1 − 2s) with the sigmoid's L: unbiased where labels are flipped with probability s.

    Args:
        margins: `(B,)` or any shape, h.
        beta: β > 0, a scalar.
        loss_type: "sigmoid", "ipo", "hinge" or "robust".
        label_smoothing: s in [0, 0.5), a scalar.
        mask: like `margins`; which pairs count. None: all.

    Returns:
        A scalar.

    Raises:
        ValueError: the loss is unknown or a shape does not fit.

    Reference: Rafailov et al. (2023), *Direct Preference Optimization*, arXiv:2305.18290, eq. 7; Azar et al. (2023),
    arXiv:2310.12036, eq. 17 (IPO); Zhao et al. (2023), arXiv:2305.10425 (SLiC-HF); Mitchell (2023), *A note on DPO
    with noisy preferences* (cDPO); Chowdhury et al. (2024), arXiv:2403.00409, eq. 12 (robust).
    """
    if loss_type not in PREFERENCE_LOSSES:
        known = ", ".join(map(repr, PREFERENCE_LOSSES))
        raise ValueError(f"loss_type: got {loss_type!r}, needs one of {known}")
    (margins,) = read_floats(margins=margins)
    beta = read_scalar("beta", beta, margins.dtype)
    smoothing = read_scalar("label_smoothing", label_smoothing, margins.dtype)
    mask, (margins,) = _mask_entries(mask, margins)
    margins = jnp.clip(margins, -MAX_LOG_RATIO, MAX_LOG_RATIO)
    loss = PREFERENCE_LOSSES[loss_type]
    agreeing, disagreeing = (1 - smoothing) * loss(margins, beta), smoothing * loss(-margins, beta)
    if loss_type == "robust":
        return _mean((agreeing - disagreeing) / (1 - 2 * smoothing), mask)
    return _mean(agreeing + disagreeing, mask)


def compute_dpo_loss(
    chosen_log_probs: ArrayLike,
    rejected_log_probs: ArrayLike,
    ref_chosen_log_probs: ArrayLike,
    ref_rejected_log_probs: ArrayLike,
    beta: ArrayLike = 0.1,
    loss_type: str = "sigmoid",
    label_smoothing: ArrayLike = 0.0,
    mask: ArrayLike | None = None,
) -> Float[Array, ""]:
    """DPO's loss of pairs: `compute_preference_loss` of h = log(π/π_ref)(chosen) − log(π/π_ref)(rejected).

    Args:
        chosen_log_probs: `(B,)`, log π of the preferred response, *summed* over its tokens.
        rejected_log_probs: `(B,)`, the same of the other response.
        ref_chosen_log_probs: `(B,)`, the same under the reference; a constant.
        ref_rejected_log_probs: `(B,)`, the same under the reference; a constant.
        beta: inverse temperature β > 0; a higher one is a stronger pull towards the reference.
        loss_type: see `compute_preference_loss`, as for `label_smoothing` and `mask` (`(B,)`).

    Returns:
        A scalar; log 2 where the policy is the reference, for "sigmoid".

    Raises:
        ValueError: the loss is unknown or a shape does not fit.

    Reference: Rafailov et al. (2023), arXiv:2305.18290, eq. 7.
    """
    chosen, rejected, ref_chosen, ref_rejected = read_floats(
        chosen_log_probs=chosen_log_probs,
        rejected_log_probs=rejected_log_probs,
        ref_chosen_log_probs=ref_chosen_log_probs,
        ref_rejected_log_probs=ref_rejected_log_probs,
    )
    check_shape("rejected_log_probs", rejected, chosen.shape)
    check_shape("ref_chosen_log_probs", ref_chosen, chosen.shape)
    check_shape("ref_rejected_log_probs", ref_rejected, chosen.shape)
    mask, arrays = _mask_entries(mask, chosen, rejected, ref_chosen, ref_rejected)
    chosen, rejected, ref_chosen, ref_rejected = arrays
    ref_chosen, ref_rejected = jax.lax.stop_gradient((ref_chosen, ref_rejected))
    margins = _log_ratio(chosen, ref_chosen) - _log_ratio(rejected, ref_rejected)
    return compute_preference_loss(margins, beta, loss_type, label_smoothing, mask)


def compute_simpo_loss(
    chosen_log_probs: ArrayLike,
    rejected_log_probs: ArrayLike,
    chosen_lengths: ArrayLike,
    rejected_lengths: ArrayLike,
    beta: ArrayLike = 0.1,
    gamma_beta_ratio: ArrayLike = 0.25,
    loss_type: str = "sigmoid",
    label_smoothing: ArrayLike = 0.0,
    mask: ArrayLike | None = None,
) -> Float[Array, ""]:
    """SimPO's reference-free loss: log-probs averaged over each response's length, and a target margin.

    h = log π(chosen)/|chosen| − log π(rejected)/|rejected| − γ/β, then `compute_preference_loss`.

    Args:
        chosen_log_probs: `(B,)`, log π of the preferred response, summed over its tokens.
        rejected_log_probs: `(B,)`, the same of the other response.
        chosen_lengths: `(B,)`, tokens in the preferred response, ≥ 1.
        rejected_lengths: `(B,)`, the same of the other response.
        beta: β > 0, a scalar.
        gamma_beta_ratio: γ/β ≥ 0, the margin by which the chosen should win, in nats a token.
        loss_type: see `compute_preference_loss`, as for `label_smoothing` and `mask` (`(B,)`).

    Returns:
        A scalar.

    Raises:
        ValueError: the loss is unknown or a shape does not fit.

    Reference: Meng et al. (2024), *SimPO*, arXiv:2405.14734, eq. 6.
    """
    chosen, rejected, chosen_length, rejected_length = read_floats(
        chosen_log_probs=chosen_log_probs,
        rejected_log_probs=rejected_log_probs,
        chosen_lengths=chosen_lengths,
        rejected_lengths=rejected_lengths,
    )
    check_shape("rejected_log_probs", rejected, chosen.shape)
    check_shape("chosen_lengths", chosen_length, chosen.shape)
    check_shape("rejected_lengths", rejected_length, chosen.shape)
    target = read_scalar("gamma_beta_ratio", gamma_beta_ratio, chosen.dtype)
    mask, arrays = _mask_entries(mask, chosen, rejected, chosen_length, rejected_length)
    chosen, rejected, chosen_length, rejected_length = arrays
    chosen, rejected = chosen / jnp.maximum(chosen_length, 1.0), rejected / jnp.maximum(rejected_length, 1.0)
    margins = _log_ratio(chosen, rejected) - target
    return compute_preference_loss(margins, beta, loss_type, label_smoothing, mask)


def _log_ratio(log_p: jax.Array, log_q: jax.Array) -> jax.Array:
    """log p − log q within ±`MAX_LOG_RATIO`; two impossible events have the ratio 1. NaN stays NaN."""
    floor = -1e30  # finite, so that −∞ − (−∞) is 0 and not NaN
    return jnp.clip(jnp.maximum(log_p, floor) - jnp.maximum(log_q, floor), -MAX_LOG_RATIO, MAX_LOG_RATIO)


def _mask_entries(mask: ArrayLike | None, *arrays: jax.Array) -> tuple[jax.Array, list[jax.Array]]:
    """The mask as booleans, and the arrays with 0 where it is false, before any arithmetic: no NaN gets in."""
    shape = arrays[0].shape
    mask = jnp.ones(shape, bool) if mask is None else read_mask("mask", mask, shape)
    return mask, [jnp.where(mask, array, 0.0) for array in arrays]


def _mask_actions(
    log_probs: jax.Array, mask: ArrayLike | None, name: str = "log_probs"
) -> tuple[jax.Array, jax.Array]:
    """Log-probs with −∞ for what the mask removes, and which distributions still count."""
    if log_probs.ndim == 0:
        raise ValueError(f"{name}: got shape (), needs (..., A) with the actions on the last axis")
    if mask is None:
        return log_probs, jnp.ones(log_probs.shape[:-1], bool)
    mask = read_mask("mask", mask, log_probs.shape[:-1], log_probs.shape)
    actions = mask if mask.shape == log_probs.shape else mask[..., None]
    return jnp.where(actions, log_probs, -jnp.inf), actions.any(axis=-1)


def _mean(x: jax.Array, mask: jax.Array) -> jax.Array:
    return jnp.sum(jnp.where(mask, x, 0.0)) / jnp.maximum(jnp.sum(mask, dtype=x.dtype), 1)
