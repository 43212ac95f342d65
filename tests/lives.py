"""Lives of one training run, each a process that can be killed: `python lives.py` reads of each from its input.

The server has imported everything, and no more: JAX starts in each fork for itself. A life writes lines to a pipe:
the step and the digest of everything when it goes on and after each step; "[" when a checkpoint begins to be written;
"]" and how many seconds it took when it is there.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time

import jax
import numpy as np
import optax
from checkpointed import Counter, Line, LineTrainer, digest, line_data, nnx

from artifex_rl.callbacks import Callback, CheckpointConfig, ModelCheckpoint
from artifex_rl.callbacks.checkpoint_folder import CheckpointFolder


class Dice(Counter):
    """Draws from the host's random numbers, too, as a reward might."""

    def on_train_batch_end(self, trainer, metrics, step):
        super().on_train_batch_end(trainer, metrics, step)
        self.mixed += np.random.random() + random.random()


class Report(Callback):
    def __init__(self, say, dice):
        self.say, self.dice = say, dice

    def on_train_begin(self, trainer):
        self.say(f"{trainer.step} {digest(trainer, self.dice)}")

    on_checkpoint = on_train_begin


def live(pipe: str, folder: str | None, cache: str, steps: int, every: int) -> None:
    """Train to that step, from what is in the folder."""
    out = os.open(pipe, os.O_WRONLY)

    def say(text):
        os.write(out, f"{text}\n".encode())

    def write(*arguments, really=CheckpointFolder.write):
        say("[")
        began = time.monotonic()
        saved = really(*arguments)
        say(f"]{time.monotonic() - began}")
        return saved

    CheckpointFolder.write = write
    jax.config.update("jax_compilation_cache_dir", cache)
    np.random.seed(3)
    random.seed(4)
    model, dice = Line(), Dice()
    trainer = LineTrainer(model, nnx.Optimizer(model, optax.adam(1e-2), wrt=nnx.Param), key=7)
    callbacks = [dice, Report(say, dice)]
    if folder is not None:
        rule = CheckpointConfig(folder, monitor="score", mode="max", every_n_steps=every, resume="auto")
        callbacks.insert(0, ModelCheckpoint(rule))
    trainer.fit(line_data(), steps=steps, batch_size=4, callbacks=callbacks)
    say("done")


def serve() -> None:
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the dead
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            live(**json.loads(line))
            os._exit(0)
        print(pid, flush=True)


if __name__ == "__main__":
    serve()
