"""What callbacks cost: each one's hook beside a step of training, and `fit` with it beside a bare `fit`, in one run.

The GRPO trainer of `train_step.py`: batch 32, responses of 16 tokens, one step a call, every number to the host.

- The hook alone: `on_train_batch_end` with the metrics of a step, in blocks of 200 steps; the fastest block, by the
  processor's time of this process, beside the fastest block of bare steps.
- In `fit`: everybody takes turns, in runs of `--steps`; the fastest run by the clock, beside the fastest bare run.
  It has the processes and the disk in it as well, and the noise of the machine.
- Once a run: what it takes to begin and to end, as with W&B's process.

- Drawing the bar, which the hook does about ten times a second, by the clock.

Who writes does so at every step, unless the name says otherwise. To reach: at most 1 % for the progress bar, which is
drawn in a terminal.

    python benchmarks/callbacks.py [--blocks 15] [--steps 1000]
"""

import argparse
import contextlib
import itertools
import os
import pty
import tempfile
import threading
import time
from pathlib import Path

import jax
import numpy as np
import optax
from flax import nnx
from train_step import GROUP, make_batch, make_policy

from artifex_rl import GRPOConfig, GRPOTrainer
from artifex_rl.callbacks import (
    Callback,
    CheckpointConfig,
    EarlyStopping,
    HistoryCallback,
    JAXProfiler,
    KLStop,
    ModelCheckpoint,
    ProfilingConfig,
    ProgressBarCallback,
    SampleGrid,
    TensorBoardCallback,
    WandbLoggerCallback,
    WandbLoggerConfig,
)


def make_trainer():
    model = make_policy()
    return GRPOTrainer(
        model, nnx.Optimizer(model, optax.adam(1e-3), wrt=nnx.Param), GRPOConfig(num_generations=GROUP)
    )


def pixels(model, key):
    """Eight pictures of 8 × 8, for what saving them costs; drawing them is the model's own affair."""
    return jax.random.uniform(key, (8, 8, 8))


def contestants(folder):
    """Names, and callbacks that have a run before them."""
    folder.mkdir()

    def wandb(every):
        return WandbLoggerCallback(WandbLoggerConfig("cost", mode="offline", log_every_n_steps=every, dir=folder))

    yield "`Callback`, which does nothing", Callback()
    yield "`ProgressBarCallback`, in a terminal", ProgressBarCallback()
    yield "`HistoryCallback()`, in memory", HistoryCallback()
    yield "`HistoryCallback`, JSONL", HistoryCallback(folder / "run.jsonl")
    yield "`HistoryCallback`, CSV", HistoryCallback(folder / "run.csv")
    yield "`TensorBoardCallback`", TensorBoardCallback(folder / "tensorboard")
    yield "`WandbLoggerCallback`, offline, every 10th step", wandb(10)
    yield "`WandbLoggerCallback`, offline, every step", wandb(1)
    yield "`EarlyStopping`", EarlyStopping("loss", patience=10**9, check_finite=False)
    yield "`KLStop`", KLStop(1e9)
    yield "`SampleGrid`, every 100th step", SampleGrid(pixels, folder / "samples", every_n_steps=100)
    yield "`JAXProfiler`, before its first step", JAXProfiler(ProfilingConfig(folder / "profile", 10**9, 10**9 + 1))
    checkpoint = CheckpointConfig(dirpath=folder / "checkpoints", every_n_steps=100, resume="auto")
    yield "`ModelCheckpoint`, every 100th step", ModelCheckpoint(checkpoint)


class Clock(Callback):
    """When the first step was done, and the last; by the processor and by the clock."""

    def on_train_begin(self, trainer):
        self.first = None

    def on_train_batch_end(self, trainer, metrics, step):
        self.last = now()
        self.first = self.last if self.first is None else self.first


def now():
    return np.array([time.process_time(), time.perf_counter()])


def fit(trainer, batch, callback, steps):
    """Seconds of a step, by the processor and by the clock, and seconds that a run takes besides."""
    clock, began = Clock(), time.perf_counter()
    trainer.fit(batch, steps, [*([] if callback is None else [callback]), clock], steps_per_call=1)
    ended = time.perf_counter()
    step = (clock.last - clock.first) / (steps - 1)
    return *step, ended - began - steps * step[1]


def hook(trainer, metrics, callback, blocks, steps=200):
    """Seconds of the processor for a call of the hook, in the fastest block; nothing is trained in between."""
    trainer.callbacks, spent = (callback,), []
    callback.on_train_begin(trainer)
    for _ in range(blocks):
        began = time.process_time()
        for _ in range(steps):
            trainer.step += 1
            callback.on_train_batch_end(trainer, metrics, trainer.step - 1)
        spent.append((time.process_time() - began) / steps)
    callback.on_train_end(trainer)
    trainer.callbacks = ()
    return min(spent)


@contextlib.contextmanager
def terminal():
    """A terminal in which the bar is drawn, and nobody looks."""
    ours, theirs = pty.openpty()
    reader = threading.Thread(target=lambda: [None for _ in iter(lambda: _read(ours), b"")], daemon=True)
    reader.start()
    with open(theirs, "w") as stream, contextlib.redirect_stderr(stream):
        yield
    reader.join(5)


def _read(file):
    try:
        return os.read(file, 4096)
    except OSError:  # the other end is closed
        return b""


def measure(blocks, steps):
    """A row for each: name, seconds of the hook, of a step by the processor and by the clock, of a run besides."""
    batch = make_batch("actions", "rewards", "log_probs", "ref_log_probs")
    trainer, found, hooks = make_trainer(), {}, {}
    trainer.fit(batch, 3, steps_per_call=1)
    metrics = trainer.train_step(batch)
    with tempfile.TemporaryDirectory() as folder, terminal():
        for name, callback in contestants(Path(folder) / "hooks"):
            hooks[name] = hook(trainer.clone(), metrics, callback, blocks)
        candidates = [("bare", None), *contestants(Path(folder) / "fit")]
        trainers = {name: trainer.clone() for name, _ in candidates}
        for block in range(blocks):
            turn = block % len(candidates)
            for name, callback in candidates[turn:] + candidates[:turn]:
                found.setdefault(name, []).append(fit(trainers[name], batch, callback, steps))
    for name, _ in candidates:
        yield name, hooks.get(name, 0.0), *np.min(found[name], axis=0)


def drawing(seconds=5.0):
    """How often the bar is drawn in a second of training, and the share of the clock's time that it takes."""
    trainer, batch, bar = make_trainer(), make_batch("actions", "rewards", "log_probs", "ref_log_probs"), _Timed()
    trainer.train_step(batch)
    began = time.perf_counter()
    with terminal():
        trainer.fit(itertools.repeat(batch), 10**9, [bar, _Until(began + seconds)])
    return bar.times / seconds, bar.spent / seconds


class _Timed(ProgressBarCallback):
    times, spent = 0, 0.0

    def _draw(self):
        began = time.perf_counter()
        super()._draw()
        self.times, self.spent = self.times + 1, self.spent + time.perf_counter() - began


class _Until(Callback):
    def __init__(self, end):
        self.end = end

    def on_train_batch_end(self, trainer, metrics, step):
        trainer.should_stop = time.perf_counter() >= self.end


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--blocks", type=int, default=15)
    parser.add_argument("--steps", type=int, default=1000)
    arguments = parser.parse_args()
    os.environ.update(WANDB_SILENT="true")
    (_, _, processor, clock, _), *rows = measure(arguments.blocks, arguments.steps)
    print(f"A bare step: {processor * 1e6:.0f} µs of the processor, {clock * 1e6:.0f} µs by the clock.\n")
    print("| callback | hook alone, µs | of a step | in `fit`, ratio | once a run, ms |\n|---|---|---|---|---|")
    for name, alone, _, step, besides in rows:
        share = f"{100 * alone / processor:.2f} %"
        print(f"| {name} | {alone * 1e6:.1f} | {share} | {step / clock:.3f} | {besides * 1e3:.1f} |")
    times, spent = drawing()
    print(f"\nThe bar is drawn {times:.1f} times a second, which takes {100 * spent:.2f} % of the time.")


if __name__ == "__main__":
    main()
