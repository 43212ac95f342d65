"""What the library costs: each trainer's step beside a step of the same loss written by hand with `jax.jit`.

Batch 32, responses of 16 tokens, vocabulary 16, width 32, Adam. Both start from the same weights and are given the
same NumPy batch at each step; both bring the loss to the host, ours with all its other metrics. They take turns, in
blocks, so that a busy moment hits both, and medians of blocks are compared. In the end the losses must agree.
To reach: at most 1.2 times a hand-written step, and inside `fit`'s scan at most 1.1 times a hand-written scan.

    python benchmarks/train_step.py [--blocks 40] [--parts]

`--parts` also prints where the time of our step goes.
"""

import argparse
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from artifex_rl import (
    DPOTrainer,
    GRPOConfig,
    GRPOTrainer,
    PPOConfig,
    PPOTrainer,
    REINFORCETrainer,
    SequencePolicy,
)

ROWS, TOKENS, VOCABULARY, WIDTH, GROUP = 32, 16, 16, 32, 4
STEPS_A_BLOCK, SCANNED = 20, 100


class Writer(nnx.Module):
    """Logits of the next token from the mean of all tokens so far, and values if asked."""

    def __init__(self, values, *, rngs):
        self.embed, self.hidden = nnx.Embed(VOCABULARY, WIDTH, rngs=rngs), nnx.Linear(WIDTH, WIDTH, rngs=rngs)
        self.head = nnx.Linear(WIDTH, VOCABULARY, rngs=rngs)
        self.critic = nnx.Linear(WIDTH, 1, rngs=rngs) if values else None

    def __call__(self, tokens):
        seen = jnp.cumsum(self.embed(tokens), axis=1) / jnp.arange(1.0, tokens.shape[1] + 1)[None, :, None]
        hidden = jnp.tanh(self.hidden(seen))
        return self.head(hidden) if self.critic is None else (self.head(hidden), self.critic(hidden)[..., 0])


def make_policy(values=False):
    return SequencePolicy(Writer(values, rngs=nnx.Rngs(0)), max_length=TOKENS)


def make_batch(*extra):
    """Responses with the log-probabilities of a policy that is near ours, which is near uniform."""
    rng = np.random.default_rng(0)

    def log_probs(shape=(ROWS, TOKENS)):
        return (np.log(1 / VOCABULARY) + 0.1 * rng.normal(size=shape)).astype(np.float32)

    entries = {
        "observations": rng.integers(0, VOCABULARY, (ROWS, 1)).astype(np.int32),
        "actions": rng.integers(0, VOCABULARY, (ROWS, TOKENS)).astype(np.int32),
        "rewards": rng.normal(size=ROWS).astype(np.float32),
        "log_probs": log_probs(),
        "ref_log_probs": log_probs(),
        "values": (0.1 * rng.normal(size=(ROWS, TOKENS))).astype(np.float32),
        "dones": np.ones(ROWS, bool),
        "chosen": rng.integers(0, VOCABULARY, (ROWS, TOKENS)).astype(np.int32),
        "rejected": rng.integers(0, VOCABULARY, (ROWS, TOKENS)).astype(np.int32),
        "ref_chosen_log_probs": TOKENS * log_probs((ROWS,)),
        "ref_rejected_log_probs": TOKENS * log_probs((ROWS,)),
    }
    return {name: entries[name] for name in ("observations", *extra)}


# The same losses by hand: a dictionary of arrays, jnp, and nothing else


def forward(params, prompts, responses):
    """Log-probabilities of the tokens `(B, T)`, those of all tokens `(B, T, V)`, and what the last layer reads."""
    tokens = jnp.concatenate([prompts, responses], axis=1)
    seen = jnp.cumsum(params["embed"][tokens], axis=1) / jnp.arange(1.0, tokens.shape[1] + 1)[None, :, None]
    hidden = jnp.tanh(seen @ params["w"] + params["b"])[:, :-1]
    everything = jax.nn.log_softmax(hidden @ params["head_w"] + params["head_b"])
    return jnp.take_along_axis(everything, responses[..., None], axis=2)[..., 0], everything, hidden


def entropy(everything):
    return -jnp.mean(jnp.sum(jnp.exp(everything) * everything, axis=-1))


def surrogate(log_probs, old, advantages):
    ratio = jnp.exp(log_probs - old)
    return -jnp.mean(jnp.minimum(ratio * advantages, jnp.clip(ratio, 0.8, 1.2) * advantages))


def normalize(x):
    return (x - jnp.mean(x)) / (jnp.std(x) + 1e-8)


def reinforce_loss(params, batch):
    log_probs, everything, _ = forward(params, batch["observations"], batch["actions"])
    return -jnp.mean(jnp.sum(log_probs, axis=1) * normalize(batch["rewards"])) - 0.01 * entropy(everything)


def ppo_loss(params, batch):
    log_probs, everything, hidden = forward(params, batch["observations"], batch["actions"])
    values, old = (hidden @ params["critic_w"] + params["critic_b"])[..., 0], batch["values"]
    rewards = jnp.zeros(old.shape).at[:, -1].set(batch["rewards"])
    deltas = rewards + 0.99 * jnp.pad(old[:, 1:], ((0, 0), (0, 1))) - old

    def back(later, delta):
        return (total := delta + 0.99 * 0.95 * later), total

    advantages = jax.lax.scan(back, jnp.zeros(ROWS), deltas.T, reverse=True)[1].T
    policy = surrogate(log_probs, batch["log_probs"], normalize(advantages))
    return policy + 0.25 * jnp.mean((values - advantages - old) ** 2) - 0.01 * entropy(everything)


def grpo_loss(params, batch):
    log_probs, everything, _ = forward(params, batch["observations"], batch["actions"])
    groups = batch["rewards"].reshape(-1, GROUP)
    advantages = (groups - groups.mean(1, keepdims=True)) / (groups.std(1, keepdims=True) + 1e-8)
    policy = surrogate(log_probs, batch["log_probs"], advantages.reshape(-1, 1))
    distance = batch["ref_log_probs"] - log_probs
    kl = jnp.mean(jnp.exp(distance) - 1 - distance)
    return policy + 0.01 * kl - 0.01 * entropy(everything)


def dpo_loss(params, batch):
    chosen, rejected = (forward(params, batch["observations"], batch[x])[0].sum(1) for x in ("chosen", "rejected"))
    margin = chosen - batch["ref_chosen_log_probs"] - (rejected - batch["ref_rejected_log_probs"])
    return -jnp.mean(jax.nn.log_sigmoid(0.1 * margin))


class HandWritten:
    """A loss, Adam, and one jit: a step, and a scan of steps."""

    def __init__(self, loss_fn, policy, transform):
        network = policy.network
        params = {"embed": network.embed.embedding[...], "w": network.hidden.kernel[...]}
        params |= {"b": network.hidden.bias[...]}
        params |= {"head_w": network.head.kernel[...], "head_b": network.head.bias[...]}
        if network.critic is not None:
            params |= {"critic_w": network.critic.kernel[...], "critic_b": network.critic.bias[...]}

        def step(state, batch):
            params, opt_state = state
            loss, grads = jax.value_and_grad(loss_fn)(params, batch)
            updates, opt_state = transform.update(grads, opt_state, params)
            return (optax.apply_updates(params, updates), opt_state), loss

        self.state = (params, transform.init(params))
        self._step = jax.jit(step)
        self._scan = jax.jit(lambda state, batch: jax.lax.scan(lambda s, _: step(s, batch), state, length=SCANNED))

    def step(self, batch):
        self.state, loss = self._step(self.state, batch)
        return float(loss)

    def scan(self, batch):
        self.state, losses = self._scan(self.state, batch)
        return np.asarray(losses)


def contestants():
    """Name, trainer, its batch, and the hand-written one."""
    adam, experience = optax.adam(1e-3), ("actions", "rewards", "log_probs")
    cut = optax.chain(optax.clip_by_global_norm(0.5), adam)
    for name, cls, config, keys, loss_fn, transform in (
        ("REINFORCE", REINFORCETrainer, None, ("actions", "rewards"), reinforce_loss, adam),
        (
            "PPO",
            PPOTrainer,
            PPOConfig(num_epochs=1, num_minibatches=1),
            (*experience, "values", "dones"),
            ppo_loss,
            cut,
        ),
        ("GRPO", GRPOTrainer, GRPOConfig(num_generations=GROUP), (*experience, "ref_log_probs"), grpo_loss, adam),
        (
            "DPO",
            DPOTrainer,
            None,
            ("chosen", "rejected", "ref_chosen_log_probs", "ref_rejected_log_probs"),
            dpo_loss,
            adam,
        ),
    ):
        model = make_policy(values=cls is PPOTrainer)
        hand = HandWritten(loss_fn, model, transform)
        yield name, cls(model, nnx.Optimizer(model, adam, wrt=nnx.Param), config), make_batch(*keys), hand


def microseconds(call, times):
    began = time.perf_counter()
    for _ in range(times):
        call()
    return (time.perf_counter() - began) / times * 1e6


def compare(ours, theirs, blocks, times):
    """Median microseconds of both, taking turns; the ratio is the median of the blocks' ratios."""
    pairs = []
    for block in range(blocks):
        calls = (ours, theirs) if block % 2 else (theirs, ours)
        pair = {call: microseconds(call, times) for call in calls}
        pairs.append((pair[ours], pair[theirs]))
    mine, hand = zip(*pairs, strict=True)
    return statistics.median(mine), statistics.median(hand), statistics.median(a / b for a, b in pairs)


def parts(trainer, batch):
    """Where the time of a step goes, in microseconds: each part alone, medians of twenty blocks."""
    prepared = trainer.prepare(batch)
    on_device = jax.device_put(prepared)

    def compiled(batch):
        return jax.block_until_ready(trainer._start(batch))

    started = compiled(prepared)
    calls = {
        "shapes checked (prepare), before": lambda: trainer.prepare(batch),
        "numbers looked at closely (validate), if need be": lambda: trainer.validate(prepared),
        "compiled step, batch from the host": lambda: compiled(prepared),
        "compiled step, batch on the device": lambda: compiled(on_device),
        "state out of the variables": lambda: trainer.state,
        "metrics to floats, state into the variables": lambda: trainer._keep(started),
    }
    return {
        name: statistics.median(microseconds(call, STEPS_A_BLOCK) for _ in range(20)) for name, call in calls.items()
    }


def measure(name, trainer, batch, hand, blocks):
    """Microseconds a step of ours and by hand, their ratio, that without our checks; and in a scan."""
    for _ in range(3):
        trainer.train_step(batch), hand.step(batch)
    ours, theirs = trainer.fit(batch, SCANNED, steps_per_call=SCANNED)["loss"], hand.scan(batch)
    np.testing.assert_allclose(ours, theirs, rtol=2e-3, atol=2e-4, err_msg=name)
    prepared = trainer.prepare(batch)
    step = compare(lambda: trainer.train_step(batch), lambda: hand.step(batch), blocks, STEPS_A_BLOCK)
    scan = compare(lambda: trainer._train_many(prepared, None, SCANNED), lambda: hand.scan(batch), blocks, 1)
    bare = compare(lambda: trainer._keep(trainer._start(prepared)), lambda: hand.step(batch), blocks, STEPS_A_BLOCK)
    return *step, bare[2], scan[0] / SCANNED, scan[1] / SCANNED, scan[2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--blocks", type=int, default=40)
    parser.add_argument("--parts", action="store_true")
    arguments = parser.parse_args()
    rows, details = [], {}
    for name, trainer, batch, hand in contestants():
        rows.append((name, *measure(name, trainer, batch, hand, arguments.blocks)))
        if arguments.parts:
            details[name] = parts(trainer, batch)

    print(
        "| trainer | step, µs | by hand, µs | ratio | without checks, ratio | in a scan, µs | by hand, µs | ratio |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for name, a, b, ratio, bare, c, d, scanned in rows:
        print(f"| {name} | {a:.0f} | {b:.0f} | {ratio:.2f} | {bare:.2f} | {c:.0f} | {d:.0f} | {scanned:.2f} |")
    if details:
        print(f"\n| part of a step, µs | {' | '.join(details)} |\n|---|{'---|' * len(details)}")
        for part in next(iter(details.values())):
            print(f"| {part} | {' | '.join(f'{each[part]:.0f}' for each in details.values())} |")


if __name__ == "__main__":
    main()
