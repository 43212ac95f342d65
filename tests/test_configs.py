"""Configs: the guide's defaults, errors that name the field, numbers that are traced."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from artifex_rl import DPOConfig, GRPOConfig, PPOConfig, REINFORCEConfig

ALL = [REINFORCEConfig, PPOConfig, GRPOConfig, DPOConfig]


@pytest.mark.parametrize(
    ("cls", "guide"),
    [
        (REINFORCEConfig, {"gamma": 0.99, "normalize_returns": True, "entropy_coeff": 0.01}),
        (
            PPOConfig,
            {"gamma": 0.99, "gae_lambda": 0.95, "clip_param": 0.2, "vf_coeff": 0.5, "entropy_coeff": 0.01}
            | {"max_grad_norm": 0.5},
        ),
        (
            GRPOConfig,
            {"num_generations": 4, "clip_param": 0.2, "beta": 0.01, "entropy_coeff": 0.01, "gamma": 0.99},
        ),
        (DPOConfig, {"beta": 0.1, "label_smoothing": 0.0, "reference_free": False}),
    ],
)
def test_the_defaults_are_the_guides_and_its_fields_come_first(cls, guide):
    fields = dataclasses.asdict(cls())
    assert dict(list(fields.items())[: len(guide)]) == guide


BAD = [
    (REINFORCEConfig, "gamma", 1.01, "at most 1"),
    (REINFORCEConfig, "gamma", -0.1, "at least 0"),
    (REINFORCEConfig, "gamma", float("nan"), "a number"),
    (REINFORCEConfig, "gamma", "0.9", "a number"),
    (REINFORCEConfig, "gamma", None, "a number"),
    (REINFORCEConfig, "gamma", True, "a number"),
    (REINFORCEConfig, "gamma", [0.9], "a number"),
    (REINFORCEConfig, "entropy_coeff", -1e-3, "at least 0"),
    (REINFORCEConfig, "entropy_coeff", float("inf"), "a number"),
    (REINFORCEConfig, "normalize_returns", 1, "True or False"),
    (REINFORCEConfig, "normalize_returns", "yes", "True or False"),
    (REINFORCEConfig, "baseline", "rloo", "'leave_one_out'"),
    (REINFORCEConfig, "num_generations", 0, "at least 1"),
    (REINFORCEConfig, "beta", -0.1, "at least 0"),
    (PPOConfig, "gae_lambda", 2, "at most 1"),
    (PPOConfig, "clip_param", 0, "more than 0"),
    (PPOConfig, "clip_param", None, "more than 0"),
    (PPOConfig, "clip_param_high", 0.0, "None"),
    (PPOConfig, "vf_coeff", -0.5, "at least 0"),
    (PPOConfig, "max_grad_norm", 0, "more than 0"),
    (PPOConfig, "target_kl", -1, "more than 0"),
    (PPOConfig, "num_epochs", 0, "at least 1"),
    (PPOConfig, "num_epochs", 2.0, "an integer"),
    (PPOConfig, "num_minibatches", True, "an integer"),
    (GRPOConfig, "num_generations", 0, "at least 1"),
    (GRPOConfig, "beta", -0.1, "at least 0"),
    (GRPOConfig, "advantage_scale", "std", "'group'"),
    (GRPOConfig, "kl_estimator", "k4", "'exact'"),
    (GRPOConfig, "max_length", 0, "None"),
    (DPOConfig, "beta", 0.0, "more than 0"),
    (DPOConfig, "label_smoothing", 0.5, "less than 0.5"),
    (DPOConfig, "loss_type", "log", "'ipo'"),
    (DPOConfig, "reference_free", 0, "True or False"),
]


@pytest.mark.parametrize(("cls", "field", "value", "needed"), BAD)
def test_an_error_names_the_field_the_value_and_what_is_needed(cls, field, value, needed):
    with pytest.raises(ValueError) as caught:
        cls(**{field: value})
    message = str(caught.value)
    assert message.startswith(f"{cls.__name__}.{field}: got {value!r}, needs ") and needed in message
    with pytest.raises(ValueError, match=field):
        dataclasses.replace(cls(), **{field: value})


@pytest.mark.parametrize("cls", ALL)
def test_a_config_cannot_be_changed_in_place(cls):
    with pytest.raises(dataclasses.FrozenInstanceError):
        cls().beta = 1.0


@pytest.mark.parametrize("one", [1, np.float32(1), np.array(1.0), jnp.float32(1)])
def test_any_kind_of_number_becomes_a_float(one):
    gamma = REINFORCEConfig(gamma=one).gamma
    assert gamma == 1.0 and type(gamma) is float


@pytest.mark.parametrize("cls", ALL)
def test_floats_and_the_number_of_epochs_are_leaves_and_all_else_is_structure(cls):
    config = cls()
    leaves = jax.tree.leaves(config)
    assert leaves == [v for n, v in dataclasses.asdict(config).items() if type(v) is float or n == "num_epochs"]
    assert jax.tree.map(lambda x: x, config) == config


@pytest.mark.parametrize("cls", ALL)
def test_a_compiled_function_is_compiled_anew_for_structure_alone(cls):
    traces = []

    @jax.jit
    def total(config):
        traces.append(1)
        return sum(jax.tree.leaves(config))

    config = cls()
    name = "beta" if hasattr(config, "beta") else "gamma"
    before = total(config)
    after = total(dataclasses.replace(config, **{name: 0.5}))
    assert len(traces) == 1
    np.testing.assert_allclose(after - before, 0.5 - getattr(config, name), atol=1e-6)
    static = next(
        f.name
        for f in dataclasses.fields(cls)
        if not f.metadata["traced"] and isinstance(getattr(config, f.name), bool | int)
    )
    value = getattr(config, static)
    total(dataclasses.replace(config, **{static: not value if isinstance(value, bool) else value + 1}))
    assert len(traces) == 2


def test_a_traced_field_is_not_checked_and_the_others_are():
    @jax.jit
    def inside(gamma):
        with pytest.raises(ValueError, match="entropy_coeff"):
            REINFORCEConfig(gamma=gamma, entropy_coeff=-1)
        return dataclasses.replace(REINFORCEConfig(), gamma=gamma).gamma * 2

    assert inside(3.0) == 6.0


def test_configs_of_a_sweep_are_one_config_of_arrays():
    many = jax.tree.map(lambda *x: jnp.stack(x), *[jax.device_put(PPOConfig(clip_param=c)) for c in (0.1, 0.2, 0.3)])
    np.testing.assert_allclose(jax.vmap(lambda config: config.clip_param * 10)(many), [1, 2, 3], rtol=1e-6)
