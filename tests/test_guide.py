"""The guide's code blocks, word for word but for the name of the package, do what the guide says that they do."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from wandb_records import offline_runs

OBSERVATIONS, ACTIONS, BATCH = 4, 3, 32


def run(block: str, **names) -> dict:
    """Run a block under the import rule, with what the guide takes for granted given by name."""
    source = block.replace("artifex.generative_models.training", "artifex_rl")
    exec(compile(source, "guide", "exec"), names)
    return names


class PolicyModel(nnx.Module):
    """As simple as the guide's: a module that returns logits."""

    def __init__(self, rngs: nnx.Rngs):
        self.linear = nnx.Linear(OBSERVATIONS, ACTIONS, rngs=rngs)

    def __call__(self, observations):
        return self.linear(observations)


class ActorCriticModel(PolicyModel):
    """One that returns logits and values."""

    def __init__(self, rngs: nnx.Rngs):
        super().__init__(rngs)
        self.value = nnx.Linear(OBSERVATIONS, 1, rngs=rngs)

    def __call__(self, observations):
        return self.linear(observations), self.value(observations)[..., 0]


def experience() -> dict:
    rng = np.random.default_rng(0)
    observations = rng.normal(size=(BATCH, OBSERVATIONS)).astype(np.float32)
    actions = rng.integers(0, ACTIONS, BATCH)
    log_probs = np.log(rng.uniform(0.2, 0.6, BATCH)).astype(np.float32)
    return {
        "observations": observations,
        "actions": actions,
        "rewards": rng.normal(size=BATCH).astype(np.float32),
        "old_log_probs": log_probs,
        "ref_log_probs": log_probs - 0.1,
        "values": rng.normal(size=BATCH).astype(np.float32),
        "dones": np.arange(BATCH) % 8 == 7,
    }


REINFORCE = """
from flax import nnx
import optax
from artifex.generative_models.training import (
    REINFORCEConfig,
    REINFORCETrainer,
)

# Setup model and optimizer
model = YourPolicyModel(rngs=nnx.Rngs(0))
optimizer = nnx.Optimizer(model, optax.adam(1e-4), wrt=nnx.Param)

# Create trainer
config = REINFORCEConfig(gamma=0.99, entropy_coeff=0.01)
trainer = REINFORCETrainer(model, optimizer, config)

# Training step
batch = {
    "observations": observations,  # State observations
    "actions": actions,            # Actions taken
    "rewards": rewards,            # Rewards received
}
metrics = trainer.train_step(batch)
print(f"Policy loss: {metrics['policy_loss']:.4f}")
"""

PPO = """
from flax import nnx
import optax
from artifex.generative_models.training import PPOConfig, PPOTrainer

# Actor-critic model with separate heads
model = ActorCriticModel(rngs=nnx.Rngs(0))
optimizer = nnx.Optimizer(model, optax.adam(3e-4), wrt=nnx.Param)

config = PPOConfig(
    gamma=0.99,
    gae_lambda=0.95,
    clip_param=0.2,
    vf_coeff=0.5,
    entropy_coeff=0.01,
)
trainer = PPOTrainer(model, optimizer, config)

# Collect trajectory
trajectory = {
    "observations": observations,
    "actions": actions,
    "rewards": rewards,
    "values": values,           # Value estimates V(s)
    "log_probs": old_log_probs, # Log probs from old policy
    "dones": dones,             # Episode termination flags
}

# Train on trajectory
metrics = trainer.train_step(trajectory)
print(f"Policy loss: {metrics['policy_loss']:.4f}")
print(f"Value loss: {metrics['value_loss']:.4f}")
print(f"Entropy: {metrics['entropy']:.4f}")
"""

GRPO = """
from flax import nnx
import optax
from artifex.generative_models.training import GRPOConfig, GRPOTrainer

# Policy model (no value head needed!)
model = PolicyModel(rngs=nnx.Rngs(0))
optimizer = nnx.Optimizer(model, optax.adam(1e-4), wrt=nnx.Param)

config = GRPOConfig(
    num_generations=4,  # Generate 4 samples per prompt
    clip_param=0.2,
    beta=0.01,
)
trainer = GRPOTrainer(model, optimizer, config)

# Batch with grouped generations
# If num_prompts=8 and num_generations=4, batch_size=32
batch = {
    "observations": observations,  # Shape: (batch_size, ...)
    "actions": actions,            # Shape: (batch_size, ...)
    "rewards": rewards,            # Shape: (batch_size,)
    "log_probs": old_log_probs,    # Shape: (batch_size,)
    "group_size": 4,               # Optional, defaults to config
}

metrics = trainer.train_step(batch)
print(f"Policy loss: {metrics['policy_loss']:.4f}")
print(f"Approx KL: {metrics['approx_kl']:.4f}")
"""

GRPO_REFERENCE = """
# With reference model for KL penalty
batch = {
    "observations": observations,
    "actions": actions,
    "rewards": rewards,
    "log_probs": old_log_probs,
    "ref_log_probs": ref_log_probs,  # From frozen reference model
}

# KL penalty is automatically applied when ref_log_probs is provided
metrics = trainer.train_step(batch)
print(f"KL penalty: {metrics.get('kl_penalty', 0):.4f}")
"""

DPO = """
from flax import nnx
import optax
from artifex.generative_models.training import DPOConfig, DPOTrainer

model = PolicyModel(rngs=nnx.Rngs(0))
optimizer = nnx.Optimizer(model, optax.adam(1e-5), wrt=nnx.Param)

config = DPOConfig(beta=0.1)
trainer = DPOTrainer(model, optimizer, config)

# Preference pairs: chosen (preferred) vs rejected
batch = {
    "chosen_log_probs": chosen_log_probs,      # Log probs for preferred
    "rejected_log_probs": rejected_log_probs,  # Log probs for rejected
    "ref_chosen_log_probs": ref_chosen,        # Reference model log probs
    "ref_rejected_log_probs": ref_rejected,
}

metrics = trainer.train_step(batch)
print(f"DPO loss: {metrics['dpo_loss']:.4f}")
print(f"Reward accuracy: {metrics['reward_accuracy']:.2%}")
"""

SIMPO = """
config = DPOConfig(
    beta=0.1,
    reference_free=True,  # Enable SimPO mode
)
trainer = DPOTrainer(model, optimizer, config)

# No reference log probs needed
batch = {
    "chosen_log_probs": chosen_log_probs,
    "rejected_log_probs": rejected_log_probs,
}

metrics = trainer.train_step(batch)
"""

REWARDS = """
from artifex.generative_models.training import (
    ConstantReward,
    CompositeReward,
    ThresholdReward,
    ScaledReward,
    ClippedReward,
)
reward_fn = ConstantReward(value=1.0)
rewards = reward_fn(samples)  # Returns array of 1.0
constant = rewards
reward_fn = CompositeReward(
    reward_fns=[aesthetic_reward, clip_reward],
    weights=[0.3, 0.7],  # 30% aesthetic, 70% CLIP
)
composite = reward_fn(samples)
# Reward = 1.0 if base_reward > 0.5 else 0.0
reward_fn = ThresholdReward(
    reward_fn=base_reward,
    threshold=0.5,
    above_value=1.0,
    below_value=0.0,
)
threshold = reward_fn(samples)
reward_fn = ScaledReward(reward_fn=base_reward, scale=10.0)
scaled = reward_fn(samples)
reward_fn = ClippedReward(
    reward_fn=base_reward,
    min_value=-1.0,
    max_value=1.0,
)
clipped = reward_fn(samples)
"""

UTILITIES = """
from artifex.generative_models.training.rl.utils import (
    compute_discounted_returns,
    compute_gae_advantages,
    normalize_advantages,
    compute_policy_entropy,
    compute_kl_divergence,
    compute_clipped_surrogate_loss,
)
# Compute G_t = r_t + gamma * r_{t+1} + gamma^2 * r_{t+2} + ...
returns = compute_discounted_returns(rewards, gamma=0.99)
# GAE with bias-variance trade-off
advantages = compute_gae_advantages(
    rewards=rewards,
    values=values,        # V(s) estimates including V(s_T+1)
    dones=dones,          # Episode termination flags
    gamma=0.99,
    gae_lambda=0.95,
)
# Zero mean, unit variance normalization
normalized = normalize_advantages(advantages, eps=1e-8)
# H = -sum(p * log(p))
entropy = compute_policy_entropy(log_probs)
# KL(policy || reference)
kl = compute_kl_divergence(policy_log_probs, ref_log_probs)
# PPO clipped objective
loss = compute_clipped_surrogate_loss(
    log_probs=current_log_probs,
    old_log_probs=old_log_probs,
    advantages=advantages,
    clip_param=0.2,
)
"""

EXPORTS = """
from artifex.generative_models.training import (
    # Configurations
    REINFORCEConfig,
    PPOConfig,
    GRPOConfig,
    DPOConfig,

    # Trainers
    REINFORCETrainer,
    PPOTrainer,
    GRPOTrainer,
    DPOTrainer,

    # Reward functions
    RewardFunction,
    ConstantReward,
    CompositeReward,
    ThresholdReward,
    ScaledReward,
    ClippedReward,
)
"""

CALLBACKS = """
from artifex.generative_models.training import GRPOTrainer, GRPOConfig
from artifex.generative_models.training.callbacks import (
    WandbLoggerCallback,
    WandbLoggerConfig,
    ModelCheckpoint,
    CheckpointConfig,
    JAXProfiler,
    ProfilingConfig,
    ProgressBarCallback,
)

# Configure RL trainer
grpo_config = GRPOConfig(
    num_generations=4,
    clip_param=0.2,
    beta=0.01,
)
trainer = GRPOTrainer(model, optimizer, grpo_config)

# Setup callbacks for RL training
callbacks = [
    # Log RL-specific metrics (rewards, advantages, KL divergence)
    WandbLoggerCallback(WandbLoggerConfig(
        project="rl-finetuning",
        name="grpo-experiment",
        config={
            "algorithm": "GRPO",
            "num_generations": 4,
            "beta": 0.01,
        },
        log_every_n_steps=10,
    )),

    # Save best model based on mean reward
    ModelCheckpoint(CheckpointConfig(
        dirpath="checkpoints/grpo",
        monitor="mean_reward",
        mode="max",  # Higher reward is better
        save_top_k=1,  # Keep only the best checkpoint
    )),

    # Profile RL training (useful for debugging generation bottlenecks)
    JAXProfiler(ProfilingConfig(
        log_dir="logs/rl_profiles",
        start_step=50,
        end_step=60,
    )),

    # Progress bar with RL metrics
    ProgressBarCallback(),
]

# Training loop with callbacks
for callback in callbacks:
    callback.on_train_begin(trainer)

for step, batch in enumerate(dataloader):
    # Generate samples and compute rewards
    metrics = trainer.train_step(batch, reward_fn, key)

    # Log metrics via callbacks
    for callback in callbacks:
        callback.on_train_batch_end(trainer, metrics, step)

for callback in callbacks:
    callback.on_train_end(trainer)
"""


def weights(model) -> np.ndarray:
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(nnx.state(model, nnx.Param))])


@pytest.mark.parametrize(
    ("block", "model", "name", "metrics"),
    [
        (REINFORCE, PolicyModel, "YourPolicyModel", "policy_loss loss mean_reward reward_std entropy"),
        (PPO, ActorCriticModel, "ActorCriticModel", "policy_loss value_loss entropy mean_reward advantage_mean"),
        (GRPO, PolicyModel, "PolicyModel", "policy_loss approx_kl loss mean_reward group_advantage_std"),
    ],
    ids=["REINFORCE", "PPO", "GRPO"],
)
def test_a_trainer_s_example_trains_its_model_and_reports_what_the_guide_lists(block, model, name, metrics, capsys):
    names = run(block, **{name: model}, **experience())
    assert set(metrics.split()) <= set(names["metrics"])
    assert np.abs(weights(names["model"]) - weights(model(rngs=nnx.Rngs(0)))).max() > 1e-5
    assert "Policy loss: " in capsys.readouterr().out


def test_reference_log_probs_bring_the_kl_penalty():
    names = run(GRPO + GRPO_REFERENCE, PolicyModel=PolicyModel, **experience())
    assert names["metrics"]["kl_penalty"] > 0


def test_log_probs_alone_give_dpo_s_loss_and_train_nothing():
    chosen, rejected = jnp.array([-1.0, -2.0]), jnp.array([-2.0, -1.5])
    pairs = {"chosen_log_probs": chosen, "rejected_log_probs": rejected}
    reference = {"ref_chosen": jnp.full(2, -1.5), "ref_rejected": jnp.full(2, -1.5)}
    with pytest.warns(UserWarning, match="chosen"):
        names = run(DPO, PolicyModel=PolicyModel, **pairs, **reference)
    expected = np.log1p(np.exp(-0.1 * np.array([1.0, -0.5]))).mean()
    assert names["metrics"]["dpo_loss"] == pytest.approx(expected, rel=1e-5)
    assert names["metrics"]["reward_accuracy"] == 0.5
    assert {"loss", "chosen_reward", "rejected_reward", "reward_margin"} <= set(names["metrics"])
    np.testing.assert_array_equal(weights(names["model"]), weights(PolicyModel(rngs=nnx.Rngs(0))))
    with pytest.warns(UserWarning, match="chosen"):
        names = run(SIMPO, **names)
    assert np.isfinite(names["metrics"]["loss"])


def test_rewards_do_what_their_sentences_say():
    base = lambda samples, conditions=None, **kwargs: samples[:, 0]  # noqa: E731
    samples = jnp.array([[0.5], [0.6], [-3.0]])
    names = run(
        REWARDS, samples=samples, base_reward=base, aesthetic_reward=base, clip_reward=lambda s, c=None: s[:, 0] * 2
    )
    np.testing.assert_allclose(names["constant"], [1, 1, 1])
    np.testing.assert_allclose(names["composite"], 0.3 * samples[:, 0] + 0.7 * 2 * samples[:, 0], rtol=1e-6)
    np.testing.assert_allclose(names["threshold"], [0, 1, 0])
    np.testing.assert_allclose(names["scaled"], [5, 6, -30], rtol=1e-6)
    np.testing.assert_allclose(names["clipped"], [0.5, 0.6, -1])


def test_utilities_take_the_arguments_that_the_guide_passes():
    rewards, values, dones = np.ones(3), np.array([1.0, 2.0, 3.0, 4.0]), np.array([0, 0, 1])
    uniform, skewed = np.log(np.full((2, 4), 0.25)), np.log([[0.7, 0.1, 0.1, 0.1]] * 2)
    names = run(
        UTILITIES,
        rewards=rewards,
        values=values,
        dones=dones,
        log_probs=uniform,
        policy_log_probs=uniform,
        ref_log_probs=skewed,
        current_log_probs=np.zeros(3),
        old_log_probs=np.zeros(3),
    )
    np.testing.assert_allclose(names["returns"], [1 + 0.99 + 0.99**2, 1.99, 1], rtol=1e-6)
    assert float(names["entropy"]) == pytest.approx(np.log(4), rel=1e-6)
    assert float(names["kl"]) == pytest.approx((0.25 * (uniform - skewed)).sum() / 2, rel=1e-5)
    assert float(names["loss"]) == pytest.approx(-np.asarray(names["advantages"]).mean(), rel=1e-5)


def test_everything_that_the_api_reference_names_is_there():
    names = run(EXPORTS)
    assert names["GRPOConfig"]() == names["GRPOConfig"](
        num_generations=4, clip_param=0.2, beta=0.01, entropy_coeff=0.01, gamma=0.99
    )
    assert names["PPOConfig"]() == names["PPOConfig"](
        gamma=0.99, gae_lambda=0.95, clip_param=0.2, vf_coeff=0.5, entropy_coeff=0.01, max_grad_norm=0.5
    )
    assert names["REINFORCEConfig"]() == names["REINFORCEConfig"](
        gamma=0.99, normalize_returns=True, entropy_coeff=0.01
    )
    assert names["DPOConfig"]() == names["DPOConfig"](beta=0.1, label_smoothing=0.0, reference_free=False)


def test_the_callbacks_leave_a_checkpoint_a_profile_and_an_offline_run_on_disk(tmp_path, monkeypatch, capsys):
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_BASE_URL", "WANDB_DIR", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))  # where there is no key
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.chdir(tmp_path)
    model = PolicyModel(rngs=nnx.Rngs(0))
    batches = [{"observations": np.eye(OBSERVATIONS, dtype=np.float32)}] * 65
    with pytest.warns(UserWarning, match="WandbLoggerCallback: offline, because there is no API key") as caught:
        names = run(
            CALLBACKS,
            model=model,
            optimizer=nnx.Optimizer(model, optax.adam(0.05), wrt=nnx.Param),
            dataloader=batches,
            reward_fn=lambda samples, conditions: (samples == 1).astype(np.float32),
            key=jax.random.key(0),
        )
    assert len(caught) == 1
    _, checkpoint, profiler, _ = names["callbacks"]

    (found,) = offline_runs(tmp_path)
    assert found["run"].project == "rl-finetuning" and found["run"].display_name == "grpo-experiment"
    assert found["config"]["algorithm"] == "GRPO" and found["config"]["num_generations"] == 4
    assert [row["_step"] for row in found["rows"]] == [0, 10, 20, 30, 40, 50, 60]
    assert {"loss", "mean_reward", "group_advantage_std", "kl_penalty"} <= set(found["rows"][0])

    assert checkpoint.best.path.is_relative_to(tmp_path / "checkpoints" / "grpo")
    best = names["trainer"].clone()
    best.restore(checkpoint.best.path)
    assert best.step == checkpoint.best.step
    assert checkpoint.best.metrics["mean_reward"] >= max(row["mean_reward"] for row in found["rows"])

    assert profiler.trace.is_file() and profiler.trace.is_relative_to("logs/rl_profiles")
    out, err = capsys.readouterr()
    assert "Profile of steps 50 to 59: open https://ui.perfetto.dev" in out and "65 steps in" in err
