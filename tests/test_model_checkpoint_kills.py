"""SIGKILL at a hundred random moments of training and saving: every restart goes on as if nothing had happened."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import sys
import time
from pathlib import Path

import pytest
from checkpointed import Counter, digest, line_data, make_line

from artifex_rl.callbacks import Callback, CheckpointConfig, ModelCheckpoint
from artifex_rl.callbacks.checkpoint_folder import CheckpointFolder

KILLS, STEPS, EVERY = 100, 6000, 8


class Dice(Counter):
    """Draws from the host's random numbers, too, as a reward might."""

    def on_train_batch_end(self, trainer, metrics, step):
        import numpy as np

        super().on_train_batch_end(trainer, metrics, step)
        self.mixed += np.random.random() + random.random()


class Report(Callback):
    """Sends the step and the digest of everything, when training goes on and after every step."""

    def __init__(self, pipe, dice):
        self.pipe, self.dice = pipe, dice

    def on_train_begin(self, trainer):
        self.pipe.send((trainer.step, digest(trainer, self.dice)))

    def on_checkpoint(self, trainer):
        self.pipe.send((trainer.step, digest(trainer, self.dice)))


def life(folder: str | None, cache: str, pipe, saving, steps: int) -> None:
    """A process: trains, and resumes from the folder; `saving` is 1 while a checkpoint is being written."""
    import jax
    import numpy as np

    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_compilation_cache_dir", cache)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)

    write = CheckpointFolder.write

    def marked(*arguments):
        saving.value = 1
        try:
            return write(*arguments)
        finally:
            saving.value = 0

    CheckpointFolder.write = marked
    np.random.seed(3)
    random.seed(4)
    trainer, dice = make_line(), Dice()
    callbacks = [dice, Report(pipe, dice)]
    if folder is not None:
        settings = CheckpointConfig(folder, monitor="score", mode="max", every_n_steps=EVERY, resume="auto")
        callbacks.insert(0, ModelCheckpoint(settings))
    trainer.fit(line_data(), steps=steps, batch_size=4, callbacks=callbacks)
    pipe.send(None)


@pytest.fixture(scope="module")
def processes():
    """A server that has imported everything, and whose forks start JAX each for itself."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def start(processes, *arguments):
    mine, its = processes.Pipe(duplex=False)
    saving = processes.Value("i", 0, lock=False)
    process = processes.Process(target=life, args=(*arguments[:2], its, saving, *arguments[2:]))
    process.start()
    its.close()
    return process, mine, saving


def messages(pipe) -> list:
    """What has been sent, up to the end of the process or of its run."""
    found = []
    try:
        while (message := pipe.recv()) is not None:
            found.append(message)
    except EOFError:
        pass
    return found


def newest(folder: Path) -> int:
    return max((int(path.name[5:]) for path in folder.glob("step_*")), default=0)


@pytest.mark.slow
def test_a_hundred_kills_leave_no_trace(tmp_path, processes):
    folder, cache, chance = tmp_path / "run", str(tmp_path / "cache"), random.Random(0)
    process, pipe, _ = start(processes, None, cache, STEPS)
    truth = dict(messages(pipe))
    process.join()
    assert len(truth) == STEPS + 1

    in_a_save, steps_seen, restored = 0, set(), []
    for kill in range(KILLS):
        expected = newest(folder)
        process, pipe, saving = start(processes, str(folder), cache, STEPS)
        first = pipe.recv()
        assert first[0] == expected and first == (expected, truth[expected])
        restored.append(expected)
        for _ in range(chance.randrange(EVERY)):
            pipe.recv()
        if kill % 2:  # somewhere in the middle of a save
            while not saving.value:
                time.sleep(0.0002)
            time.sleep(chance.uniform(0, 0.06))
        else:
            time.sleep(chance.uniform(0, 0.25))
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        in_a_save += saving.value
        for step, found in messages(pipe):
            assert found == truth[step]
            steps_seen.add(step)
    process, pipe, _ = start(processes, str(folder), cache, newest(folder) + 40)
    rest = messages(pipe)
    process.join()
    assert process.exitcode == 0
    assert all(found == truth[step] for step, found in rest) and len(rest) == 41
    print(in_a_save, len(steps_seen), restored[-1], len(set(restored)), file=sys.stderr)
    assert in_a_save >= KILLS // 5 and KILLS - in_a_save >= KILLS // 10
    assert len(set(restored)) > KILLS // 4
    assert sorted(path.name for path in folder.iterdir() if not path.name.startswith("step_")) == [".lock"]
