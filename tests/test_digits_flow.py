"""The pretrained flow of digits: legible by ODE and by SDE, varied, light, and to be made again by its script."""

import subprocess
import sys
from importlib.resources import files

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from artifex_rl import GRPOConfig, GRPOTrainer, pretrained_flow
from artifex_rl.data import digit_judge, image_diversity, ink, load_digits, load_digits_flow
from artifex_rl.rl.denoising import Setting

ALL = np.arange(10).repeat(30)


@pytest.fixture(scope="module")
def deploy():
    """Images that a flow draws for labels by the ODE, compiled once."""
    graphdef, _ = nnx.split(pretrained_flow())
    ode = jax.jit(lambda state, labels: nnx.merge(graphdef, state).deploy(labels, jax.random.key(0)))
    return lambda policy, labels=ALL: np.asarray(ode(nnx.split(policy)[1], jnp.asarray(labels)))


def test_the_ode_draws_what_the_judge_reads_varied_and_no_copies(deploy):
    images, real = deploy(pretrained_flow()), load_digits()
    assert (digit_judge().classify(images) == ALL).mean() >= 0.94
    assert abs(float(ink(images).mean() - ink(real.train.images).mean())) < 0.02
    within = [float(image_diversity(images[np.equal(ALL, digit)])) for digit in range(10)]
    assert min(within) > 0.12
    nearest = lambda some: np.linalg.norm(  # noqa: E731
        some.reshape(-1, 1, 64) - real.train.images.reshape(1, -1, 64), axis=2
    ).min(axis=1)
    assert np.median(nearest(images)) > 0.8 * np.median(nearest(real.heldout.images)), "not learnt by heart"


def test_without_a_label_all_ten_digits_are_drawn(deploy):
    counts = np.bincount(digit_judge().classify(deploy(pretrained_flow(), np.full(300, 10))), minlength=10)
    assert counts.min() >= 9 and counts.max() <= 75


def test_the_sde_draws_digits_too_with_few_steps_and_guided_ones_better():
    policy = pretrained_flow(5, guidance=2.0)
    path, log_probs = nnx.jit(lambda policy: policy.sample(ALL, jax.random.key(0)))(policy)
    assert path.shape == (300, 6, 8, 8) and log_probs.shape == (300, 5)
    assert (digit_judge().classify(policy.outcome(path)) == ALL).mean() >= 0.97


def test_every_call_gives_a_new_policy_with_the_same_weights_and_its_own_settings():
    one, two = pretrained_flow(4, noise_level=0.3, min_std=0.2), pretrained_flow()
    assert (one.num_steps, one.min_std, two.num_steps) == (4, 0.2, 10)
    assert [float(leaf) for leaf in jax.tree.leaves(nnx.state(one, Setting))] == [pytest.approx(0.3)]
    weights = [nnx.to_pure_dict(nnx.state(model, nnx.Param)) for model in (one.velocity, load_digits_flow())]
    jax.tree.map(np.testing.assert_array_equal, *weights)
    optimizer = nnx.Optimizer(one, optax.adam(1e-3), wrt=nnx.Param)
    GRPOTrainer(one, optimizer, GRPOConfig(num_generations=2), reference_model=two)  # shares nothing


def test_the_weights_are_small_and_load_without_scikit_learn():
    assert files("artifex_rl.data").joinpath("digits_flow.npz").stat().st_size <= 400_000
    code = "import sys; sys.modules['sklearn'] = None; import artifex_rl; print(artifex_rl.pretrained_flow().shape)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "(8, 8)\n", done.stderr


@pytest.mark.slow
def test_the_weights_can_be_made_again_in_less_time(deploy):
    from artifex_rl.data.make_digits_flow import make_digits_flow

    policy = pretrained_flow()
    policy.velocity = make_digits_flow(num_steps=2000, seed=1)
    assert (digit_judge().classify(deploy(policy)) == ALL).mean() >= 0.92
