"""What the trainers of generative models cost: each one's step beside a step of the same loss written by hand.

Data the size of digits, batch 128, the networks of `artifex_rl.models`, Adam. A hand-written step is one `jax.jit` of
the loss in plain `jnp`, of Adam, and where ours keeps an average of the weights, of that. Both begin with the same
weights, draw the same random numbers, are given the same NumPy batch and bring the loss to the host. They take turns,
in blocks, and medians of blocks are compared; the losses of the first steps must agree. To reach: at most 1.2 times a
hand-written step. Beside it: 256 samples in one call.

    python benchmarks/families.py [--blocks 20]
"""

import argparse
import math
import statistics

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from train_step import compare, microseconds

from artifex_rl.models import GRU, VAE, Denoiser, Discriminator, EnergyNetwork, Generator
from artifex_rl.trainers import (
    AutoregressiveConfig,
    AutoregressiveTrainer,
    DiffusionConfig,
    DiffusionTrainer,
    EnergyTrainer,
    FlowConfig,
    FlowTrainer,
    GANConfig,
    GANTrainer,
    VAETrainer,
)

ROWS, SHAPE, CLASSES, TOKENS, VOCABULARY = 128, (8, 8), 10, 12, 32
STEPS_A_BLOCK, SAMPLES = 20, 256
DECAY = 0.999


def functional(model):
    """Weights, and a function that calls the model with them: what a hand-written step differentiates."""
    graphdef, *state = nnx.split(model, nnx.Param, ...)
    params, rest = jax.tree.map(jnp.copy, state)  # nnx's state is by reference: it would move with the model
    return params, lambda params: nnx.merge(graphdef, params, rest)


def average(mean, params, step):
    decay = jnp.minimum(DECAY, (1.0 + step) / (10.0 + step))
    return jax.tree.map(lambda a, b: a + (1 - decay) * (b - a), mean, params)


def adam_step(transform, loss_fn, params, opt_state, *arguments):
    loss, grads = jax.value_and_grad(loss_fn)(params, *arguments)
    updates, opt_state = transform.update(grads, opt_state, params)
    return optax.apply_updates(params, updates), opt_state, loss


class HandWritten:
    """A pure update `(state, step, batch, key) -> (state, loss)`, jitted; its key is that of our step."""

    def __init__(self, state, update):
        self.state, self.steps = state, np.uint32(0)

        @jax.jit
        def one(state, step, batch):
            return update(state, step.astype(jnp.float32), batch, jax.random.fold_in(jax.random.key(0), step))

        self._one = one

    def step(self, batch):
        self.state, loss = self._one(self.state, self.steps, batch)
        self.steps += np.uint32(1)
        return float(loss)


def simple(model, transform, loss_fn, averaged=False):
    """One network, one loss `(model, batch, key)`."""
    params, bind = functional(model)

    def update(state, step, batch, key):
        params, opt_state, mean = state
        params, opt_state, loss = adam_step(transform, lambda p: loss_fn(bind(p), batch, key), params, opt_state)
        return (params, opt_state, average(mean, params, step) if averaged else mean), loss

    return HandWritten((params, transform.init(params), params if averaged else None), update)


# The losses by hand


def vae_loss(model, batch, key):
    x = batch["data"]
    mean, log_std = jnp.split(model.encoder.network(x.reshape(len(x), -1)), 2, axis=-1)
    log_std = jnp.clip(log_std, -7.0, 2.0)
    logits = model.decoder(mean + jnp.exp(log_std) * jax.random.normal(key, mean.shape))
    likelihood = jnp.sum(x * logits - jax.nn.softplus(logits), axis=(1, 2))
    return jnp.mean(0.5 * jnp.sum(mean**2 + jnp.exp(2 * log_std) - 1 - 2 * log_std, axis=1) - likelihood)


def cosine_levels(steps=20, offset=0.008):
    curve = np.cos((np.arange(steps + 1) / steps + offset) / (1 + offset) * math.pi / 2) ** 2
    return np.cumprod([1.0, *(1 - np.minimum(1 - curve[1:] / curve[:-1], 0.999))]).astype(np.float32)


LEVELS = cosine_levels()


def hidden_labels(batch, key, rate=0.1):
    return jnp.where(jax.random.uniform(key, (ROWS,)) < rate, CLASSES, batch["labels"])


def diffusion_loss(model, batch, key):
    x0, (label_key, key) = batch["data"], jax.random.split(key)
    time_key, noise_key = jax.random.split(key)
    t = jax.random.randint(time_key, (ROWS,), 1, len(LEVELS))
    level = jnp.asarray(LEVELS)[t][:, None, None]
    x = jnp.sqrt(level) * x0 + jnp.sqrt(1 - level) * jax.random.normal(noise_key, x0.shape)
    return jnp.mean((model(x, t / (len(LEVELS) - 1), hidden_labels(batch, label_key)) - x0) ** 2)


def flow_loss(model, batch, key):
    data, (label_key, noise_key, _, key) = batch["data"], jax.random.split(key, 4)
    noise, t = jax.random.normal(noise_key, data.shape), jax.random.uniform(key, (ROWS,))
    x = (1 - t[:, None, None]) * noise + t[:, None, None] * data
    return jnp.mean((model(x, t, hidden_labels(batch, label_key)) - (data - noise)) ** 2)


def language_loss(model, batch, key):
    tokens = jnp.concatenate([batch["observations"], batch["tokens"]], axis=1)
    log_probs = jax.nn.log_softmax(model(tokens[:, :-1]))
    return -jnp.mean(jnp.take_along_axis(log_probs, tokens[:, 1:, None], axis=2))


def adversaries(generator, discriminator, transform):
    """Two networks that take turns, and the generator's average."""
    (g, make), (d, judge) = functional(generator), functional(discriminator)

    def update(state, step, batch, key):
        g, g_state, d, d_state, mean = state
        key, learn_key = jax.random.split(key)
        noise_key, _ = jax.random.split(learn_key)
        fakes = make(g)(jax.random.normal(noise_key, (ROWS, generator.latent_size)))

        def discriminator_loss(d):
            real, fake = judge(d)(batch["data"]), judge(d)(fakes)
            return jnp.mean(jax.nn.softplus(-real)) + jnp.mean(jax.nn.softplus(fake))

        d, d_state, _ = adam_step(transform, discriminator_loss, d, d_state)
        noise = jax.random.normal(key, (ROWS, generator.latent_size))
        g, g_state, loss = adam_step(
            transform, lambda g: jnp.mean(jax.nn.softplus(-judge(d)(make(g)(noise)))), g, g_state
        )
        return (g, g_state, d, d_state, average(mean, g, step)), loss

    return HandWritten((g, transform.init(g), d, transform.init(d), g), update)


def landscape(model, buffer, transform):
    """An energy, and persistent walks of 20 Langevin steps on it."""
    params, bind = functional(model)

    def update(state, step, batch, key):
        params, opt_state, buffer = state
        pick_key, walk_key, _ = jax.random.split(key, 3)
        row_key, new_key, begin_key = jax.random.split(pick_key, 3)
        rows = jax.random.permutation(row_key, len(buffer))[:ROWS]
        anew = jax.random.bernoulli(new_key, 0.05, (ROWS, 1, 1))
        x = jnp.where(anew, jax.random.normal(begin_key, (ROWS, *SHAPE)), buffer[rows])

        def walk(x, key):
            slope = jax.grad(lambda x: jnp.sum(bind(params)(x)))(x)
            return x - 0.01 * slope + math.sqrt(0.02) * jax.random.normal(key, x.shape), None

        x, _ = jax.lax.scan(walk, x, jax.random.split(walk_key, 20))
        both = jnp.concatenate([batch["data"], x])

        def loss_fn(params):
            energies = bind(params)(both)
            return jnp.mean(energies[:ROWS]) - jnp.mean(energies[ROWS:])

        params, opt_state, loss = adam_step(transform, loss_fn, params, opt_state)
        return (params, opt_state, buffer.at[rows].set(x)), loss

    return HandWritten((params, transform.init(params), buffer), update)


def contestants():
    """Name, our trainer, its batch, the hand-written one, and how to draw samples."""
    rng, adam = np.random.default_rng(0), optax.adam(1e-3)
    pictures = rng.uniform(0, 1, (ROWS, *SHAPE)).astype(np.float32)
    labelled = {"data": 2 * pictures - 1, "labels": rng.integers(0, CLASSES, ROWS).astype(np.int32)}
    words = {
        "observations": np.zeros((ROWS, 1), np.int32),
        "tokens": rng.integers(0, VOCABULARY, (ROWS, TOKENS)).astype(np.int32),
    }

    def optimizer(model):
        return nnx.Optimizer(model, adam, wrt=nnx.Param)

    vae = VAE(SHAPE, 8, rngs=nnx.Rngs(0))
    yield "VAE", VAETrainer(vae, optimizer(vae)), {"data": pictures}, simple(vae, adam, vae_loss), {}

    generator, discriminator = Generator(16, SHAPE, rngs=nnx.Rngs(0)), Discriminator(SHAPE, rngs=nnx.Rngs(1))
    trainer = GANTrainer(
        generator,
        optimizer(generator),
        GANConfig(),
        discriminator=discriminator,
        discriminator_optimizer=optimizer(discriminator),
    )
    yield "GAN", trainer, {"data": labelled["data"]}, adversaries(generator, discriminator, adam), {}

    denoiser = Denoiser(SHAPE, num_classes=CLASSES, rngs=nnx.Rngs(0))
    trainer = DiffusionTrainer(denoiser, optimizer(denoiser), DiffusionConfig())
    yield "diffusion", trainer, labelled, simple(denoiser, adam, diffusion_loss, True), {"labels": np.int32(3)}

    velocity = Denoiser(SHAPE, num_classes=CLASSES, rngs=nnx.Rngs(0))
    trainer = FlowTrainer(velocity, optimizer(velocity), FlowConfig())
    yield "flow", trainer, labelled, simple(velocity, adam, flow_loss, True), {"labels": np.int32(3)}

    energy = EnergyNetwork(SHAPE, rngs=nnx.Rngs(0))
    trainer = EnergyTrainer(energy, optimizer(energy))
    hand = landscape(energy, jnp.copy(trainer.buffer[...]), adam)
    yield "energy", trainer, {"data": labelled["data"]}, hand, {}

    network = GRU(VOCABULARY, 64, rngs=nnx.Rngs(0))
    trainer = AutoregressiveTrainer(network, optimizer(network), AutoregressiveConfig(max_length=TOKENS))
    yield "autoregressive", trainer, words, simple(network, adam, language_loss), {"labels": np.int32(0)}


def measure(name, trainer, batch, hand, options, blocks):
    """Microseconds of our step and by hand, their ratio, and milliseconds for samples."""
    ours, theirs = zip(*((trainer.train_step(batch)["loss"], hand.step(batch)) for _ in range(5)), strict=True)
    np.testing.assert_allclose(ours, theirs, rtol=2e-3, atol=2e-4, err_msg=name)
    step = compare(lambda: trainer.train_step(batch), lambda: hand.step(batch), blocks, STEPS_A_BLOCK)

    def draw():
        jax.block_until_ready(trainer.sample(SAMPLES, jax.random.key(0), **options))

    draw()
    return *step, statistics.median(microseconds(draw, 1) for _ in range(10)) / 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--blocks", type=int, default=20)
    blocks = parser.parse_args().blocks
    print(f"| trainer | step, µs | by hand, µs | ratio | {SAMPLES} samples, ms |\n|---|---|---|---|---|")
    for name, *contestant in contestants():
        ours, theirs, ratio, samples = measure(name, *contestant, blocks)
        print(f"| {name} | {ours:.0f} | {theirs:.0f} | {ratio:.2f} | {samples:.1f} |", flush=True)


if __name__ == "__main__":
    main()
