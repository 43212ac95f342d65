"""PPO's time until CartPole-v1 is solved: ours, a hand-written single-jit PPO, Stable-Baselines3 where installed.

Solved is a mean return of 475 over the last 100 episodes. All have 4 environments × 128 steps, 4 epochs × 4
minibatches, Adam with a learning rate from 2.5e-4 to 0 over 500,000 steps, two networks of 64 and 64, and the same
coefficients; they stop when they have solved it. Every 32 updates the host looks. Seeds take turns between the
implementations, so that a busy moment hits all. The first call compiles, and is timed apart.

    python benchmarks/cartpole.py [--seeds 5]
"""

import argparse
import importlib.util
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from artifex_rl import PPOConfig, PPOTrainer
from artifex_rl.envs import CartPole
from artifex_rl.models import ActorCritic
from artifex_rl.rl.onpolicy import episode_returns, train_in_environment

ENVS, STEPS, EPOCHS, PARTS, UPDATES, CHUNK = 4, 128, 4, 4, 976, 32
RATE = optax.linear_schedule(2.5e-4, 0.0, UPDATES * EPOCHS * PARTS)
ENV = CartPole()


def make_ours():
    """`start(seed) -> carry` and `advance(carry, key) -> (carry, rewards, dones)` of this library."""

    def make_trainer(seed):
        model = ActorCritic(4, (64, 64), 2, rngs=nnx.Rngs(seed))
        return PPOTrainer(model, nnx.Optimizer(model, optax.adam(RATE, eps=1e-5), wrt=nnx.Param), PPOConfig())

    trainer = make_trainer(0)

    @jax.jit
    def advance(carry, key):
        state, envs = carry
        sizes = {"num_updates": CHUNK, "num_steps": STEPS, "num_envs": ENVS}
        state, envs, seen = train_in_environment(trainer, state, ENV, key, trainer.config, **sizes, env_state=envs)
        return (state, envs), seen["rewards"], seen["dones"]

    return lambda seed: (jax.tree.map(jnp.asarray, make_trainer(seed).state), fresh(seed)), advance


def make_hand_written():
    """The same two functions, of a PPO as one writes it for this one task: arrays, one file, one jit."""
    transform = optax.chain(optax.clip_by_global_norm(0.5), optax.adam(RATE, eps=1e-5))

    def init(seed):
        keys = iter(jax.random.split(jax.random.key(seed), 6))

        def net(out, scale):
            sizes = ((4, 64), (64, 64), (64, out))
            draw = [jax.random.truncated_normal(next(keys), -2, 2, size) / size[0] ** 0.5 / 0.8796 for size in sizes]
            return [(w * (scale if i == 2 else 1.0), jnp.zeros(w.shape[1])) for i, w in enumerate(draw)]

        params = {"actor": net(2, 0.01), "critic": net(1, 1.0)}
        return (params, transform.init(params)), fresh(seed)

    def net(layers, x):
        for w, b in layers[:-1]:
            x = jnp.tanh(x @ w + b)
        return x @ layers[-1][0] + layers[-1][1]

    def loss_fn(params, part):
        obs, action, old, advantage, target = part
        log_p = jax.nn.log_softmax(net(params["actor"], obs))
        ratio = jnp.exp(log_p[jnp.arange(len(action)), action] - old)
        advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
        policy = -jnp.minimum(ratio * advantage, jnp.clip(ratio, 0.8, 1.2) * advantage).mean()
        value = 0.5 * ((net(params["critic"], obs)[:, 0] - target) ** 2).mean()
        return policy + 0.5 * value + 0.01 * (jnp.exp(log_p) * log_p).sum(1).mean()

    def act(params, carry, _):
        envs, key = carry
        key, action_key, reset_key = jax.random.split(key, 3)
        obs = ENV.observe(envs)
        logits = net(params["actor"], obs)
        action = jax.random.categorical(action_key, logits)
        log_prob = jax.nn.log_softmax(logits)[jnp.arange(ENVS), action]
        reached, reward, terminated, truncated = jax.vmap(ENV.step)(envs, action)
        done = terminated | truncated
        begun = jax.vmap(ENV.reset)(jax.random.split(reset_key, ENVS))
        envs = jax.tree.map(lambda new, old: jnp.where(done, new, old), begun, reached)
        return (envs, key), (obs, action, log_prob, reward, terminated, done, ENV.observe(reached))

    def gae(following, now):
        delta, done = now
        total = delta + 0.99 * 0.95 * jnp.where(done, 0.0, following)
        return total, total

    def update(carry, key):
        (params, opt_state), envs = carry
        act_key, *epoch_keys = jax.random.split(key, EPOCHS + 1)
        (envs, _), seen = jax.lax.scan(lambda c, x: act(params, c, x), (envs, act_key), length=STEPS)
        obs, action, log_prob, reward, terminated, done, reached = seen
        value, next_value = (net(params["critic"], x)[..., 0] for x in (obs, reached))
        delta = reward + 0.99 * jnp.where(terminated, 0.0, next_value) - value
        advantage = jax.lax.scan(gae, jnp.zeros(ENVS), (delta, done), reverse=True)[1]
        data = jax.tree.map(
            lambda x: x.reshape(-1, *x.shape[2:]), (obs, action, log_prob, advantage, advantage + value)
        )

        def minibatch(carry, part):
            params, opt_state = carry
            updates, opt_state = transform.update(jax.grad(loss_fn)(params, part), opt_state)
            return (optax.apply_updates(params, updates), opt_state), None

        def epoch(carry, key):
            order = jax.random.permutation(key, ENVS * STEPS)
            parts = jax.tree.map(lambda x: x[order].reshape(PARTS, -1, *x.shape[1:]), data)
            return jax.lax.scan(minibatch, carry, parts)

        learner, _ = jax.lax.scan(epoch, (params, opt_state), jnp.stack(epoch_keys))
        return (learner, envs), (reward, done)

    @jax.jit
    def advance(carry, key):
        carry, (rewards, dones) = jax.lax.scan(update, carry, jax.random.split(key, CHUNK))
        return carry, rewards.reshape(-1, ENVS), dones.reshape(-1, ENVS)

    return init, advance


def fresh(seed):
    """Environments at the start of an episode."""
    return jax.vmap(ENV.reset)(jax.random.split(jax.random.key(1000 + seed), ENVS))


def solve(start, advance, seed):
    """Seconds and environment steps until solved; None for both if 500,000 steps did not do it."""
    carry, rewards, dones = jax.block_until_ready(start(seed)), [], []
    began = time.perf_counter()
    for i in range(-(-UPDATES // CHUNK)):
        carry, reward, done = advance(carry, jax.random.fold_in(jax.random.key(seed), i))
        rewards.append(np.asarray(reward))
        dones.append(np.asarray(done))
        returns = episode_returns(np.concatenate(rewards), np.concatenate(dones))
        if len(returns) >= 100 and np.convolve(returns, np.full(100, 0.01), "valid").max() >= 475:
            return time.perf_counter() - began, (i + 1) * CHUNK * ENVS * STEPS
    return None, None


def solve_with_stable_baselines(seed):
    """The same of Stable-Baselines3, on gymnasium's CartPole-v1, on the CPU."""
    import gymnasium
    import stable_baselines3
    import torch
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.vec_env import DummyVecEnv

    torch.set_num_threads(1)  # networks as small as these are done before a second thread has woken up

    class Stop(BaseCallback):
        def __init__(self):
            super().__init__()
            self.returns = []

        def _on_step(self):
            self.returns += [info["episode"]["r"] for info in self.locals["infos"] if "episode" in info]
            return not (len(self.returns) >= 100 and np.mean(self.returns[-100:]) >= 475)

    def make_env():
        return gymnasium.wrappers.RecordEpisodeStatistics(gymnasium.make("CartPole-v1"))

    agent = stable_baselines3.PPO(
        "MlpPolicy",
        DummyVecEnv([make_env] * ENVS),
        n_steps=STEPS,
        batch_size=ENVS * STEPS // PARTS,
        n_epochs=EPOCHS,
        learning_rate=lambda remaining: 2.5e-4 * remaining,
        ent_coef=0.01,
        seed=seed,
        device="cpu",
    )
    stop, began = Stop(), time.perf_counter()
    agent.learn(UPDATES * ENVS * STEPS, callback=stop)
    solved = len(stop.returns) >= 100 and np.mean(stop.returns[-100:]) >= 475
    return (time.perf_counter() - began, agent.num_timesteps) if solved else (None, None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    seeds = range(parser.parse_args().seeds)
    solvers, compiling = {}, {}
    for name, (start, advance) in {"artifex_rl": make_ours(), "hand-written": make_hand_written()}.items():
        began = time.perf_counter()
        compiled = advance.lower(start(0), jax.random.key(0)).compile()
        compiling[name] = time.perf_counter() - began
        solvers[name] = lambda seed, start=start, compiled=compiled: solve(start, compiled, seed)
    if importlib.util.find_spec("stable_baselines3"):
        solvers["Stable-Baselines3"] = solve_with_stable_baselines
    results = {name: [] for name in solvers}
    for seed in seeds:
        for name in list(solvers) if seed % 2 else reversed(solvers):
            results[name].append(solvers[name](seed))

    print("| PPO | compiling, s | solved | median s | median steps | steps a second |\n|---|---|---|---|---|---|")
    for name, runs in results.items():
        done = [run for run in runs if run[0] is not None]
        seconds, steps = zip(*done, strict=True) if done else ([float("nan")], [float("nan")])
        compiled = f"{compiling[name]:.1f}" if name in compiling else "–"
        print(
            f"| {name} | {compiled} | {len(done)} of {len(runs)} | {statistics.median(seconds):.2f} "
            f"| {statistics.median(steps):,.0f} | {sum(steps) / sum(seconds):,.0f} |"
        )


if __name__ == "__main__":
    main()
