"""What every public function accepts, and what it says of what it does not: by name, before any arithmetic."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from artifex_rl.rl import losses, returns
from artifex_rl.rl.arrays import check_shape, read_array, read_floats, read_mask, read_scalar

T, N = 3, 2
SERIES, MASK = np.array([0.5, -1.0, 2.0]), np.array([True, False, True])
LOG_P, LOG_Q = np.log([0.2, 0.3, 0.5]), np.log([0.5, 0.25, 0.25])

# Each public function with good arguments. `data` are arrays or None, `knobs` scalars, `words` static.
FUNCTIONS = {
    returns.compute_discounted_returns: dict(rewards=SERIES, gamma=0.9, dones=MASK, last_value=1.0),
    returns.compute_td_errors: dict(
        rewards=SERIES, values=SERIES, dones=MASK, gamma=0.9, truncations=MASK, next_values=SERIES, last_value=1.0
    ),
    returns.compute_gae_advantages: dict(
        rewards=SERIES, values=SERIES, dones=MASK, gamma=0.9, gae_lambda=0.8, truncations=MASK, next_values=SERIES
    ),
    returns.normalize_advantages: dict(advantages=SERIES, eps=0.1, mask=MASK),
    returns.compute_group_advantages: dict(rewards=SERIES, group_size=3, scale="group", eps=0.1, mask=MASK),
    losses.compute_policy_entropy: dict(log_probs=LOG_P, mask=MASK),
    losses.compute_kl_divergence: dict(policy_log_probs=LOG_P, ref_log_probs=LOG_Q, mask=MASK),
    losses.estimate_kl: dict(log_probs=LOG_P, ref_log_probs=LOG_Q, estimator="k3", mask=MASK),
    losses.compute_clipped_surrogate: dict(
        log_probs=LOG_P, old_log_probs=LOG_Q, advantages=SERIES, clip_param=0.2, clip_param_high=0.3
    ),
    losses.compute_clipped_surrogate_loss: dict(
        log_probs=LOG_P, old_log_probs=LOG_Q, advantages=SERIES, clip_param=0.2, mask=MASK, clip_param_high=0.3
    ),
    losses.compute_value_loss: dict(values=SERIES, returns=LOG_P, old_values=LOG_Q, clip_param=0.2, mask=MASK),
    losses.compute_preference_loss: dict(
        margins=SERIES, beta=0.5, loss_type="sigmoid", label_smoothing=0.1, mask=MASK
    ),
    losses.compute_dpo_loss: dict(
        chosen_log_probs=LOG_P,
        rejected_log_probs=LOG_Q,
        ref_chosen_log_probs=LOG_Q,
        ref_rejected_log_probs=SERIES,
        beta=0.5,
        loss_type="ipo",
        label_smoothing=0.1,
        mask=MASK,
    ),
    losses.compute_simpo_loss: dict(
        chosen_log_probs=LOG_P,
        rejected_log_probs=LOG_Q,
        chosen_lengths=np.array([1, 2, 3]),
        rejected_lengths=np.array([3, 1, 1]),
        beta=0.5,
        gamma_beta_ratio=0.3,
        loss_type="hinge",
        label_smoothing=0.1,
        mask=MASK,
    ),
}
WORDS = {"scale", "estimator", "loss_type", "group_size"}
ARGUMENTS = [(f, name) for f, good in FUNCTIONS.items() for name in good if name not in WORDS]
# The first array sets the shape that the others must have.
SHAPED = [(f, name) for f, good in FUNCTIONS.items() for name in list(good)[1:] if name not in WORDS]
named = {"ids": lambda x: getattr(x, "__name__", x)}


def call(function, **changed):
    return function(**FUNCTIONS[function] | changed)


def test_every_public_function_is_in_the_table():
    public = {
        function
        for module in (returns, losses)
        for name, function in vars(module).items()
        if name.startswith(("compute_", "normalize_", "estimate_")) and callable(function)
    }
    assert public == set(FUNCTIONS)


# --- errors


@pytest.mark.parametrize(("function", "name"), ARGUMENTS, **named)
def test_what_is_not_numbers_is_an_error_that_names_the_argument(function, name):
    for value in ("text", object(), [[1.0], [1.0, 2.0]], {"a": 1.0}, 1j, np.ones(3, complex), [2**70]):
        with pytest.raises(ValueError, match=f"^{name}: got .*, needs "):
            call(function, **{name: value})


@pytest.mark.parametrize(("function", "name"), SHAPED, **named)
def test_a_wrong_shape_is_an_error_that_names_the_argument_what_it_got_and_what_it_needs(function, name):
    good = FUNCTIONS[function][name]
    needs = str(np.shape(good))
    for shape in [(7,), (3, 1), (1, 3), (1,)]:
        with pytest.raises(ValueError, match=rf"^{name}: got shape {re.escape(str(shape))}, needs .*") as caught:
            call(function, **{name: np.ones(shape)})
        assert needs in str(caught.value)


@pytest.mark.parametrize(("function", "name"), ARGUMENTS, **named)
def test_none_is_an_error_that_names_the_argument_or_a_documented_default(function, name):
    optional = {"dones", "last_value", "truncations", "mask", "clip_param_high"}
    if name in optional and not (name == "dones" and function is not returns.compute_discounted_returns):
        assert np.isfinite(call(function, **{name: None})).all()
    else:
        with pytest.raises(ValueError, match=f"^{name}: got None, needs "):
            call(function, **{name: None})


@pytest.mark.parametrize("function", [returns.compute_discounted_returns, returns.compute_gae_advantages])
@pytest.mark.parametrize("shape", [(), (0,), (2, 2, 2), (0, 2)])
def test_rewards_have_one_or_two_axes_and_at_least_one_step(function, shape):
    with pytest.raises(ValueError, match=rf"^rewards: got shape {re.escape(str(shape))}, needs \(T,\) or \(T, N\)"):
        call(function, rewards=np.ones(shape))


@pytest.mark.parametrize(
    "estimate", [returns.compute_td_errors, partial(returns.compute_gae_advantages, gae_lambda=1.0)]
)
def test_values_have_as_many_steps_as_rewards_or_one_more(estimate):
    for steps in (T - 1, T + 2):
        with pytest.raises(ValueError, match=rf"^values: got shape \({steps},\), needs \({T},\) or \({T + 1},\)"):
            estimate(np.ones(T), np.ones(steps), np.ones(T), gamma=0.9)
    with pytest.raises(ValueError, match=r"^values: got shape \(4,\), needs \(3, 2\) or \(4, 2\)"):
        estimate(np.ones((T, N)), np.ones(T + 1), np.ones((T, N)), gamma=0.9)


def test_a_last_value_is_one_number_or_one_for_each_stream():
    for estimate in (
        returns.compute_discounted_returns,
        partial(returns.compute_gae_advantages, values=np.ones((T, N)), dones=np.zeros((T, N)), gae_lambda=1.0),
    ):
        with pytest.raises(ValueError, match=r"^last_value: got shape \(3,\), needs \(\) or \(2,\)$"):
            estimate(np.ones((T, N)), gamma=0.9, last_value=np.ones(3))
    with pytest.raises(ValueError, match=r"^last_value: got shape \(1,\), needs \(\)$"):
        returns.compute_discounted_returns(SERIES, 0.9, last_value=[1.0])


@pytest.mark.parametrize("function", [returns.compute_td_errors, returns.compute_gae_advantages])
def test_truncations_need_next_values(function):
    with pytest.raises(ValueError, match=r"^next_values: got None.*truncations"):
        call(function, next_values=None)


@pytest.mark.parametrize("function", [returns.compute_td_errors, returns.compute_gae_advantages])
def test_the_last_state_has_one_value(function):
    with pytest.raises(ValueError, match=r"^last_value: given beside values of shape \(4,\)"):
        call(function, values=np.ones(T + 1), last_value=1.0)


def test_a_value_clip_and_old_values_come_together():
    with pytest.raises(ValueError, match=r"^old_values: got None"):
        losses.compute_value_loss(SERIES, SERIES, clip_param=0.2)
    with pytest.raises(ValueError, match=r"^clip_param: got None"):
        losses.compute_value_loss(SERIES, SERIES, old_values=SERIES)


@pytest.mark.parametrize("group_size", [0, -3, 2, 4, 3.0, None, "3"])
def test_a_group_size_divides_the_batch(group_size):
    with pytest.raises(ValueError, match=rf"^group_size: got {group_size}, needs a divisor of the 3 rewards"):
        call(returns.compute_group_advantages, group_size=group_size)


def test_group_rewards_have_one_axis():
    for rewards in (np.ones((3, 2)), 1.0):
        with pytest.raises(ValueError, match=r"^rewards: got shape .*, needs \(B,\)"):
            call(returns.compute_group_advantages, rewards=rewards)


@pytest.mark.parametrize(
    ("function", "name", "known"),
    [
        (returns.compute_group_advantages, "scale", ["group", "batch", "none"]),
        (losses.estimate_kl, "estimator", ["k1", "k2", "k3"]),
        (losses.compute_preference_loss, "loss_type", ["sigmoid", "ipo", "hinge", "robust"]),
        (losses.compute_dpo_loss, "loss_type", ["sigmoid", "ipo", "hinge", "robust"]),
        (losses.compute_simpo_loss, "loss_type", ["sigmoid", "ipo", "hinge", "robust"]),
    ],
    **named,
)
def test_an_unknown_word_is_an_error_that_lists_the_known_ones(function, name, known):
    for wrong in ("nonsense", known[0].upper(), None):
        with pytest.raises(ValueError, match=f"^{name}: got {wrong!r}, needs ") as caught:
            call(function, **{name: wrong})
        assert all(repr(word) in str(caught.value) for word in known)
    for word in known:
        assert np.isfinite(call(function, **{name: word})).all()


@pytest.mark.parametrize("name", ["log_probs", "policy_log_probs"])
def test_a_distribution_has_an_axis_of_actions(name):
    function = (
        losses.compute_policy_entropy
        if name == "log_probs"
        else partial(losses.compute_kl_divergence, ref_log_probs=0.0)
    )
    with pytest.raises(ValueError, match=rf"^{name}: got shape \(\), needs \(\.\.\., A\)"):
        function(**{name: 0.0})


def test_a_mask_of_distributions_has_one_entry_for_each():
    with pytest.raises(ValueError, match=r"^mask: got shape \(3,\), needs \(2,\) or \(2, 3\)$"):
        losses.compute_policy_entropy(np.zeros((2, 3)), np.ones(3))
    with pytest.raises(ValueError, match=r"^mask: got shape \(2, 1\), needs \(2,\) or \(2, 3\)$"):
        losses.compute_kl_divergence(np.zeros((2, 3)), np.zeros((2, 3)), np.ones((2, 1)))


def test_errors_come_while_tracing_too():
    with pytest.raises(ValueError, match=r"^dones: got shape"):
        jax.jit(returns.compute_discounted_returns)(SERIES, 0.9, np.ones(2))


# --- kinds of numbers


@pytest.mark.parametrize("function", FUNCTIONS, **named)
def test_jitted_with_every_knob_traced_is_the_same(function):
    good = FUNCTIONS[function]
    words = {name: value for name, value in good.items() if name in WORDS}
    traced = {name: value for name, value in good.items() if name not in WORDS}
    compiled = jax.jit(lambda traced: function(**traced, **words))
    np.testing.assert_allclose(compiled(traced), call(function), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("function", FUNCTIONS, **named)
@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.int32, np.int64, bool])
def test_numbers_of_any_type_are_computed_in_float32(function, dtype):
    arrays = {name: value for name, value in FUNCTIONS[function].items() if isinstance(value, np.ndarray)}
    # Rounded by the type, then either handed over in it or widened by hand.
    narrow = {name: value.astype(dtype) for name, value in arrays.items()}
    wide = {name: value.astype(np.float32) for name, value in narrow.items()}
    result = call(function, **narrow)
    assert result.dtype == jnp.float32
    np.testing.assert_array_equal(result, call(function, **wide))


def test_half_precision_does_not_overflow():
    half = jnp.full(4, 60_000, jnp.float16)
    np.testing.assert_allclose(returns.compute_discounted_returns(half, 1.0)[0], 4 * half[0].astype(float))
    assert np.isfinite(losses.compute_value_loss(half, -half))


def test_integers_beyond_32_bits_do_not_wrap():
    big = np.array([2**40, 0], np.int64)
    np.testing.assert_allclose(returns.compute_discounted_returns(big, 0.5), [2.0**40, 0.0])
    np.testing.assert_allclose(returns.compute_discounted_returns([0, 0], 0.5, last_value=big[0]), [2.0**38, 2.0**39])
    assert read_mask("mask", big, (2,)).tolist() == [True, False]


@pytest.mark.parametrize("function", FUNCTIONS, **named)
def test_float64_stays_float64_where_jax_allows_it(function):
    with jax.enable_x64(True):
        double = call(function)
        assert double.dtype == jnp.float64
        single = {
            name: value.astype(np.float32) if isinstance(value, np.ndarray) and value.dtype != bool else value
            for name, value in FUNCTIONS[function].items()
        }
        assert function(**single).dtype == jnp.float32
    np.testing.assert_allclose(double, call(function), rtol=1e-4, atol=1e-5)


def test_one_float64_among_the_arrays_makes_the_result_float64():
    with jax.enable_x64(True):
        one, two = read_floats(a=jnp.ones(1, jnp.float32), b=jnp.ones(1, jnp.float64))
        assert one.dtype == two.dtype == jnp.float64
        mixed = returns.compute_gae_advantages(
            np.ones(2, np.float32), np.ones(3, np.float64), [0, 0], np.float32(0.9), 0.5
        )
        assert mixed.dtype == jnp.float64
        for extra in ({"last_value": np.float64(1.0)}, {"next_values": np.ones(2)}):
            single = np.ones(2, np.float32)
            assert returns.compute_gae_advantages(single, single, [0, 0], 0.9, 0.5, **extra).dtype == jnp.float32


def test_lists_of_numbers_are_arrays():
    np.testing.assert_allclose(returns.compute_discounted_returns([1, 2], 1, [False, True]), [3.0, 2.0])


def test_flags_may_be_of_any_type():
    for flag in (bool, np.int32, np.float32, jnp.bfloat16):
        assert read_mask("mask", jnp.array([0, 1, 2]).astype(flag), (3,)).tolist() == [False, True, True]


def test_the_readers_keep_what_they_read():
    assert read_array("x", [1, 2]).dtype == jnp.int32
    scalar = read_scalar("gamma", 1, jnp.float32)
    assert scalar == 1 and scalar.dtype == jnp.float32 and scalar.shape == ()
    assert [x.tolist() for x in read_floats(a=[1, 2], b=True)] == [[1.0, 2.0], 1.0]
    check_shape("x", jnp.ones((2, 3)), (2,), (2, 3))
    with pytest.raises(ValueError, match=r"^x: got shape \(3,\), needs \(2,\) or \(2, 3\)$"):
        check_shape("x", jnp.ones(3), (2,), (2, 3))
