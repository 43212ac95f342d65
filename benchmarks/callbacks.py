"""What callbacks cost: a step of `fit` with each of them beside a bare one, as ratios of one run.

The GRPO trainer of `train_step.py`: batch 32, responses of 16 tokens, one step a call, every number to the host. The
bare loop and all callbacks take turns, in blocks; compared are everybody's fastest blocks, which the busy moments of
the machine have spared, by the processor's time of this process and by the clock. Who writes does so at every step,
unless the name says otherwise. What comes once a run is in a column of its own: to begin and to end, as with W&B's
process. To reach: at most 1.01 for the progress bar, drawn in a terminal.

    python benchmarks/callbacks.py [--blocks 30] [--steps 1000]
"""

import argparse
import contextlib
import os
import pty
import sys
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
    """The processor's time and the world's when the first step was done, and the last."""

    def on_train_begin(self, trainer):
        self.first = None

    def on_train_batch_end(self, trainer, metrics, step):
        self.last = now()
        self.first = self.last if self.first is None else self.first


def now():
    return np.array([time.process_time(), time.perf_counter()])


def run(trainer, batch, callback, steps):
    """Microseconds of a step, the processor's and the world's, and milliseconds of what a run has besides."""
    clock, began = Clock(), time.perf_counter()
    trainer.fit(batch, steps, [*([] if callback is None else [callback]), clock], steps_per_call=1)
    ended = time.perf_counter()
    step = (clock.last - clock.first) / (steps - 1)
    return *(step * 1e6), (ended - began - steps * step[1]) * 1e3


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
    """A row for each: name, microseconds of a step, the processor's and the world's, and milliseconds besides."""
    batch = make_batch("actions", "rewards", "log_probs", "ref_log_probs")
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        candidates = [("bare", None), *contestants(Path(folder))]
        trainer = make_trainer()
        trainer.fit(batch, 3, steps_per_call=1)
        trainers = {name: trainer.clone() for name, _ in candidates}
        with terminal():
            for block in range(blocks):
                turn = candidates[block % len(candidates) :] + candidates[: block % len(candidates)]
                for name, callback in turn:
                    found.setdefault(name, []).append(run(trainers[name], batch, callback, steps))
    for name, measured in found.items():
        yield name, *np.min(measured, axis=0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--blocks", type=int, default=30)
    parser.add_argument("--steps", type=int, default=1000)
    arguments = parser.parse_args()
    os.environ.update(WANDB_SILENT="true")
    rows = list(measure(arguments.blocks, arguments.steps))
    _, bare, bare_clock, _ = rows[0]
    print("| callback | adds, µs of processor | ratio | ratio by the clock | once a run, ms |\n|---|---|---|---|---|")
    for name, processor, clock, besides in rows:
        added = f"(a step: {bare:.0f})" if name == "bare" else f"{processor - bare:.1f}"
        print(f"| {name} | {added} | {processor / bare:.3f} | {clock / bare_clock:.3f} | {besides:.1f} |")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
