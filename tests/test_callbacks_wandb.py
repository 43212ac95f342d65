"""WandbLoggerCallback: real runs of wandb, offline, read back from disk; and a network that is not there."""

import json
import resource
import shutil
import socket
import sys
import time
import types
import warnings

import pytest
import wandb
from small_runs import by_hand, data, make
from wandb_records import offline_runs

from artifex_rl.callbacks import Callback, WandbLoggerCallback, WandbLoggerConfig, wandb_logger


@pytest.fixture(autouse=True)
def nobody(tmp_path, monkeypatch):
    """A user whom W&B has never seen, and no W&B that has been told of another."""
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_BASE_URL", "WANDB_IDENTITY_TOKEN_FILE", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_SILENT", "true")
    wandb.teardown()
    yield
    wandb.teardown()


def logger(**settings):
    return WandbLoggerCallback(WandbLoggerConfig("course", **settings))


def test_an_offline_run_holds_what_was_logged(tmp_path):
    callback, trainer = (
        logger(
            mode="offline",
            entity="class",
            name="grpo-experiment",
            tags=["a", "b"],
            notes="What happens?",
            config={"algorithm": "GRPO", "beta": 0.01},
            log_every_n_steps=3,
        ),
        make(),
    )
    seen = trainer.fit(data(), 8, [callback], validation=data(4), validate_every=5)
    (run,) = offline_runs(tmp_path)
    assert (run["run"].project, run["run"].entity, run["run"].display_name) == ("course", "class", "grpo-experiment")
    assert list(run["run"].tags) == ["a", "b"] and run["run"].notes == "What happens?"
    assert run["config"]["algorithm"] == "GRPO" and run["config"]["beta"] == 0.01
    assert [row["_step"] for row in run["rows"]] == [0, 3, 4, 6]
    assert [row["loss"] for row in run["rows"] if "loss" in row] == seen["loss"][::3].tolist()
    assert [row["_step"] for row in run["rows"] if "val_loss" in row] == [4]
    assert run["exit_code"] == 0 and callback.run is None and callback.run_id == run["run"].run_id


def test_steps_go_up_after_a_restoration_in_loops_by_hand_and_for_another_run(tmp_path):
    class Restores(Callback):
        def on_train_begin(self, trainer):
            trainer.state = stood
            again.load_state_dict(json.loads(json.dumps(kept)))

    first, again, trainer = logger(mode="offline"), logger(mode="offline"), make()
    trainer.fit(data(), 3, [first])
    stood, kept = trainer.state, first.state_dict()
    trainer.fit(data(), 2, [first])  # which is lost: the machine is switched off
    make().fit(data(), 6, [again, Restores()])
    by_hand(make(), 2, [again])  # another trainer, from the beginning: another run
    runs = offline_runs(tmp_path)
    assert [[row["_step"] for row in run["rows"]] for run in runs] == [[0, 1, 2], [3, 4], [3, 4, 5], [0, 1]]
    ids = [run["run"].run_id for run in runs]
    assert ids[0] == ids[1] == ids[2] != ids[3]
    again.on_train_begin(trainer)
    by_hand(trainer, 2, [again])  # which counts from 0, and its trainer stands at 5
    assert [row["_step"] for row in offline_runs(tmp_path)[4]["rows"]] == [5, 6]


def test_steps_that_are_made_once_more_are_not_logged_once_more(tmp_path):
    callback, trainer = logger(mode="offline"), make()
    trainer.fit(data(), 2)
    early = trainer.clone()
    trainer.fit(data(), 4, [callback])
    early.fit(data(), 6, [callback])
    assert [[row["_step"] for row in run["rows"]] for run in offline_runs(tmp_path)] == [[2, 3, 4, 5], [6, 7]]


def test_a_run_that_fails_is_marked(tmp_path):
    class Fails(Callback):
        def on_train_batch_end(self, trainer, metrics, step):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make().fit(data(), 8, [logger(mode="offline"), Fails()])
    (run,) = offline_runs(tmp_path)
    assert run["exit_code"] == 1 and len(run["rows"]) == 1


# Which mode


def test_without_a_key_it_is_offline_and_says_so_once(tmp_path):
    callback, trainer = logger(), make()
    with pytest.warns(UserWarning) as caught:
        trainer.fit(data(), 2, [callback])
        trainer.fit(data(), 2, [callback])
    assert [str(w.message).split(".")[0] for w in caught] == [
        "WandbLoggerCallback: offline, because there is no API key (`wandb login` stores one)"
    ]
    assert caught[0].filename == __file__ and callback.mode == "offline" and trainer.step == 4
    assert len(offline_runs(tmp_path)) == 2


@pytest.mark.parametrize("listens", [False, True])
def test_where_no_server_answers_it_is_offline_within_seconds(tmp_path, monkeypatch, listens):
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        if listens:
            server.listen()  # and never says a word
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
        monkeypatch.setattr(wandb_logger, "REACH", 1.0)
        callback, before = logger(mode="online"), time.monotonic()
        with pytest.warns(UserWarning, match=r"offline, because http://127\.0\.0\.1:\d+ does not answer") as caught:
            make().fit(data(), 3, [callback])
        assert time.monotonic() - before < 15
    assert len(caught) == 1
    (run,) = offline_runs(tmp_path)
    assert len(run["rows"]) == 3


@pytest.mark.parametrize(
    ("environment", "mode", "expected"),
    [
        ("offline", None, "offline"),
        ("dryrun", None, "offline"),
        ("disabled", None, "disabled"),
        ("disabled", "offline", "offline"),  # what is said in the code is meant
        ("offline", "disabled", "disabled"),
    ],
)
def test_the_environment_wins_over_the_default_and_the_code_over_the_environment(
    tmp_path, monkeypatch, environment, mode, expected
):
    monkeypatch.setenv("WANDB_MODE", environment)
    callback = logger(mode=mode)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make().fit(data(), 2, [callback])
    assert callback.mode == expected and len(offline_runs(tmp_path)) == (expected == "offline")


def test_the_key_is_found_where_wandb_looks_for_it(tmp_path, monkeypatch):
    settings = wandb.Settings(base_url="https://example.org")
    assert not wandb_logger._has_key(settings)
    (tmp_path / ".netrc").write_text("machine other.org login user password secret\n")
    assert not wandb_logger._has_key(settings)
    (tmp_path / ".netrc").write_text("machine example.org login user password secret\n")
    assert wandb_logger._has_key(settings)
    monkeypatch.setenv("HOME", "/nowhere")
    assert not wandb_logger._has_key(settings)
    monkeypatch.setenv("WANDB_API_KEY", "1" * 40)
    assert wandb_logger._has_key(settings)


# What goes wrong


def test_what_wandb_fails_at_costs_no_training(monkeypatch):
    callback, trainer = logger(mode="offline"), make()

    class Dies(Callback):
        def on_train_batch_end(self, trainer, metrics, step):
            if step == 2:
                wandb.teardown()  # its process is gone

    with pytest.warns(UserWarning) as caught:
        trainer.fit(data(), 6, [callback, Dies()])
    assert trainer.step == 6
    assert [str(w.message).partition(":")[0] for w in caught] == ["WandbLoggerCallback"]
    monkeypatch.setattr(wandb, "init", lambda **settings: 1 / 0)
    with pytest.warns(UserWarning, match=r"cannot open: division by zero\. Training goes on"):
        trainer.fit(data(), 2, [logger(mode="offline")])
    assert trainer.step == 8


def test_a_full_disk_costs_no_training(monkeypatch):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    callback, trainer = logger(mode="offline"), make()
    monkeypatch.setattr(shutil, "disk_usage", lambda path: types.SimpleNamespace(free=0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))  # for the process of W&B, too
    try:
        with pytest.warns(UserWarning, match="WandbLoggerCallback: the disk of .* is full"):
            trainer.fit(data(), 300, [callback])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert trainer.step == 300


def test_a_missing_package_gives_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ImportError, match=r"pip install 'artifex_rl\[wandb\]'"):
        WandbLoggerCallback(WandbLoggerConfig("course"))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"project": ""}, "project: got ''"),
        ({"mode": "on"}, "mode: got 'on'"),
        ({"tags": "tag"}, "tags: got 'tag', needs a list"),
        ({"log_every_n_steps": 0}, "log_every_n_steps: got 0"),
    ],
)
def test_settings_are_checked(settings, words):
    with pytest.raises(ValueError, match=words):
        WandbLoggerConfig(**{"project": "course", **settings})
