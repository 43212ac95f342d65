"""A run that is interrupted and goes on from a checkpoint, with all that writes beside it: as if nothing had been."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from small_runs import data, make
from test_callbacks_tensorboard import series
from wandb_records import offline_runs

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
    TensorBoardCallback,
    WandbLoggerCallback,
    WandbLoggerConfig,
)

STEPS, EVERY, FAILS = 24, 5, 13


class Fails(Callback):
    def on_train_batch_end(self, trainer, metrics, step):
        if step == FAILS:
            raise ConnectionError("the power went")


def callbacks_of(folder, checkpoint_first):
    checkpoint = ModelCheckpoint(
        CheckpointConfig(dirpath=folder / "checkpoints", monitor="loss", every_n_steps=EVERY, resume="auto")
    )
    others = [
        WandbLoggerCallback(WandbLoggerConfig("together", mode="offline", dir=folder)),
        TensorBoardCallback(folder / "tensorboard"),
        HistoryCallback(folder / "run.jsonl", resume=True),
        HistoryCallback(folder / "run.csv", resume=True),
        EarlyStopping("val_loss", patience=3, min_delta=1e9),
        KLStop(1e9, window=20, monitor="loss"),
        JAXProfiler(ProfilingConfig(folder / "profile", 2, 4)),
        ProgressBarCallback(),
    ]
    return [checkpoint, *others] if checkpoint_first else [*others, checkpoint]


def fit(folder, checkpoint_first, more=()):
    trainer, used = make(), callbacks_of(folder, checkpoint_first)
    try:
        trainer.fit(data(12), STEPS, [*used, *more], batch_size=4, validation=data(4), validate_every=EVERY)
    finally:
        by_kind = {type(callback): callback for callback in used}
    return trainer, by_kind


@pytest.mark.slow
@pytest.mark.parametrize("checkpoint_first", [True, False])
def test_an_interrupted_run_leaves_the_files_of_one_that_was_not(tmp_path, monkeypatch, capsys, checkpoint_first):
    monkeypatch.setenv("WANDB_SILENT", "true")
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    for folder in (whole, cut):
        folder.mkdir()
    expected, of_whole = fit(whole, checkpoint_first)
    with pytest.raises(ConnectionError):
        fit(cut, checkpoint_first, [Fails()])
    capsys.readouterr()
    trainer, of_cut = fit(cut, checkpoint_first)

    assert trainer.step == expected.step == 20  # by EarlyStopping: the fourth of the validations 5, 10, 15, 20
    assert of_cut[EarlyStopping].reason == of_whole[EarlyStopping].reason
    assert of_cut[KLStop].mean == of_whole[KLStop].mean
    assert (trainer.model.kernel[...] == expected.model.kernel[...]).all()
    for name in ("run.jsonl", "run.csv"):
        assert (cut / name).read_bytes() == (whole / name).read_bytes()
    for tag in ("loss", "val_loss"):
        assert series(cut / "tensorboard", tag) == series(whole / "tensorboard", tag)
    (one,), (first, second) = offline_runs(whole), offline_runs(cut)
    assert first["run"].run_id == second["run"].run_id and first["exit_code"] == 1
    rows = [*first["rows"], *second["rows"]]
    steps = [row["_step"] for row in rows]
    restored_at = second["rows"][0]["_step"]
    assert steps == [*range(FAILS + 1), *range(restored_at, 20)]
    keep = [row for row in first["rows"] if row["_step"] < restored_at] + second["rows"]
    for before, after in zip(one["rows"], keep, strict=True):
        assert (before["_step"], before["loss"]) == (after["_step"], after["loss"])
    assert of_cut[JAXProfiler].trace is None and of_cut[JAXProfiler].done  # the first part has written it
    assert capsys.readouterr().err.startswith("stopped after 20 of 24 steps")


TRAINS = """
import sys, time
from pathlib import Path
sys.path.insert(0, "tests")
from small_runs import data, make
from artifex_rl.callbacks import Callback, CheckpointConfig, HistoryCallback, ModelCheckpoint, TensorBoardCallback

folder = Path(sys.argv[1])

class Tells(Callback):
    def on_train_batch_end(self, trainer, metrics, step):
        print(step, flush=True)

make().fit(
    data(12),
    300,
    [
        HistoryCallback(folder / "run.jsonl", resume=True),
        HistoryCallback(folder / "run.csv", resume=True),
        TensorBoardCallback(folder / "tensorboard"),
        ModelCheckpoint(CheckpointConfig(dirpath=folder / "checkpoints", every_n_steps=20, resume="auto")),
        Tells(),
    ],
    batch_size=4,
    validation=data(4),
)
"""


@pytest.mark.slow
def test_sigkill_at_random_moments_leaves_the_files_of_a_run_that_was_never_killed(tmp_path):
    whole, killed, chance = tmp_path / "whole", tmp_path / "killed", random.Random(0)

    def train(folder):
        environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "cache")}
        command = [sys.executable, "-W", "ignore", "-c", TRAINS, folder]
        return subprocess.Popen(command, cwd=Path(__file__).parents[1], env=environment, stdout=subprocess.PIPE)

    assert train(whole).wait() == 0
    for _ in range(6):
        process = train(killed)
        process.stdout.readline()
        time.sleep(chance.uniform(0, 0.25))
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    assert train(killed).wait() == 0
    for name in ("run.jsonl", "run.csv"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes()
    for tag in ("loss", "val_loss"):
        assert series(killed / "tensorboard", tag) == series(whole / "tensorboard", tag)
