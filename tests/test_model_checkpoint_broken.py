"""Checkpoints that are not what they were, or are meant to do harm; folders of two processes; disks that are full."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import resource
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from checkpointed import Counter, digest, line_data, make_line

from artifex_rl.callbacks import CheckpointConfig, ModelCheckpoint, folder_lock
from artifex_rl.callbacks.checkpoint_folder import CheckpointFolder, _digest, _files
from artifex_rl.callbacks.folder_lock import FolderLock


def settings(folder, **options):
    return CheckpointConfig(folder, **{"save_top_k": -1, "every_n_steps": 2, "resume": "auto", **options})


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A folder with checkpoints of steps 2, 4 and 6."""
    folder = tmp_path_factory.mktemp("written") / "run"
    make_line().fit(line_data(4), steps=6, callbacks=[Counter(), ModelCheckpoint(settings(folder))])
    return folder


@pytest.fixture
def run(written, tmp_path):
    return shutil.copytree(written, tmp_path / "run")


def data_file(checkpoint: Path) -> Path:
    return max(checkpoint.rglob("d/*"), key=lambda path: path.stat().st_size)


def truncate(checkpoint):
    os.truncate(data_file(checkpoint), 10)
    return "has 10 bytes, needs"


def flip(checkpoint):
    path = data_file(checkpoint)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    return "has other bytes than were written"


def lose(checkpoint):
    data_file(checkpoint).unlink()
    return "is missing"


def add(checkpoint):
    (checkpoint / "state" / "more").write_text("")
    return "state/more does not belong to it"


def link(checkpoint):
    path = data_file(checkpoint)
    path.unlink()
    path.symlink_to("/dev/zero")
    return "is a link, or a pipe"


def pipe(checkpoint):
    (checkpoint / "manifest.json").unlink()
    os.mkfifo(checkpoint / "manifest.json")
    return "manifest.json is no file"


def edit_manifest(checkpoint):
    manifest = json.loads((checkpoint / "manifest.json").read_text())
    manifest["metrics"]["loss"] = 0.0
    (checkpoint / "manifest.json").write_text(json.dumps(manifest))
    return "manifest.json is not as it was written"


def garble_manifest(checkpoint):
    (checkpoint / "manifest.json").write_text('{"format": ')
    return "manifest.json cannot be read"


def empty(checkpoint):
    shutil.rmtree(checkpoint)
    checkpoint.mkdir()
    return "it has no manifest.json"


def be_a_file(checkpoint):
    shutil.rmtree(checkpoint)
    checkpoint.write_text("")
    return "cannot be read"


def be_saved_by_hand(checkpoint):
    trainer = make_line()
    trainer.fit(line_data(4), steps=6)
    trainer.save(checkpoint, overwrite=True)
    return "is no checkpoint of ModelCheckpoint: it has no manifest.json"


def be_of_another_model(checkpoint):
    shutil.rmtree(checkpoint)
    other = make_line(width=5)
    other.step = 6
    CheckpointFolder(checkpoint.parent).write(other, {}, {})
    return "the model or optimizer is another"


def be_of_another_step(checkpoint):
    shutil.rmtree(checkpoint)
    shutil.copytree(checkpoint.with_name("step_00000002"), checkpoint)
    return "manifest.json is of step 2"


DAMAGES = [
    truncate, flip, lose, add, link, pipe, edit_manifest, garble_manifest, empty, be_a_file, be_saved_by_hand,
    be_of_another_model, be_of_another_step,
]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_broken_is_named_and_the_one_before_it_is_taken(run, damage):
    words = damage(run / "step_00000006")
    trainer, counter, checkpoint = make_line(), Counter(), ModelCheckpoint(settings(run))
    trainer.callbacks = [counter, checkpoint]
    with pytest.warns(UserWarning, match="step_00000006") as caught:
        checkpoint.on_train_begin(trainer)
    (message,) = [str(one.message) for one in caught]
    assert words in message and "the run goes on from step 4" in message and "broken-step_00000006" in message
    assert trainer.step == 4 and counter.seen == 4
    checkpoint.on_train_end(trainer)
    assert [one.step for one in checkpoint.saved] == [2, 4] and (run / "broken-step_00000006").exists()

    truth, other = make_line(), Counter()
    truth.fit(line_data(4), steps=4, callbacks=[other])
    assert digest(trainer, counter) == digest(truth, other)
    trainer.callbacks = ()
    trainer.fit(line_data(4), steps=2, callbacks=[checkpoint])
    assert (run / "step_00000006").is_dir()


def test_if_none_is_whole_nothing_changes_and_all_are_named(run):
    for step in (2, 4, 6):
        truncate(run / f"step_{step:08d}")
    trainer, before = make_line(), sorted(run.rglob("*"))
    untouched = digest(trainer)
    with pytest.raises(ValueError, match="none of 3 checkpoints") as caught:
        trainer.fit(line_data(4), steps=8, callbacks=[ModelCheckpoint(settings(run))])
    assert all(f"step_0000000{step}" in str(caught.value) for step in (2, 4, 6))
    assert digest(trainer) == untouched and sorted(run.rglob("*")) == before


def test_what_is_older_than_the_trainer_is_not_gone_back_to(run):
    trainer = make_line()
    trainer.fit(line_data(4), steps=7)
    with pytest.raises(ValueError, match="is older than the trainer, which stands at step 7"):
        trainer.fit(line_data(4), steps=1, callbacks=[ModelCheckpoint(settings(run))])


def test_a_callback_that_cannot_go_on_is_named(run):
    class Counter(globals()["Counter"]):
        def load_state_dict(self, state):
            raise KeyError("seen")

    trainer = make_line()
    untouched = digest(trainer)
    with pytest.raises(ValueError, match="Counter cannot go on from its state: KeyError: 'seen'"):
        trainer.fit(line_data(4), steps=8, callbacks=[Counter(), ModelCheckpoint(settings(run))])
    assert digest(trainer) == untouched


def test_a_broken_best_is_not_restored(run):
    checkpoint, trainer = ModelCheckpoint(settings(run)), make_line()
    checkpoint.on_train_begin(trainer)
    checkpoint.on_train_end(trainer)
    flip(checkpoint.best.path)
    untouched = digest(trainer)
    with pytest.raises(ValueError, match=f"{checkpoint.best.path.name} is broken"):
        checkpoint.restore(trainer)
    assert digest(trainer) == untouched


# What is meant to do harm: its author knows the format, and signs what he has changed


class Bomb:
    """Unpickled, it leaves a file."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return os.system, (f"touch {self.trace}",)


def sign(checkpoint: Path) -> None:
    manifest = json.loads((checkpoint / "manifest.json").read_text())
    manifest.pop("sha256")
    manifest["files"] = _files(checkpoint, but="manifest.json")
    (checkpoint / "manifest.json").write_text(json.dumps({**manifest, "sha256": _digest(manifest)}))


def change_json(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


HOSTILE = {
    "every file a pickle": lambda c, bomb: [
        path.write_bytes(bomb) for path in c.rglob("*") if path.is_file() and path.name != "manifest.json"
    ],
    "a pickled array": lambda c, bomb: data_file(c).write_bytes(bomb),
    "a pickle beside the arrays": lambda c, bomb: (c / "state" / "checkpoint").write_bytes(bomb),
    "another handler": lambda c, bomb: change_json(
        c / "_CHECKPOINT_METADATA", lambda j: j["item_handlers"].update(state="os.system", about="subprocess.Popen")
    ),
    "types that are none": lambda c, bomb: change_json(
        c / "state" / "_METADATA",
        lambda j: [v["value_metadata"].update(value_type="os.system") for v in j["tree_metadata"].values()],
    ),
    "a config of code": lambda c, bomb: change_json(
        c / "about" / "metadata", lambda j: j.update(config={"noise": "__import__('os').system('true')"})
    ),
    "a config of other fields": lambda c, bomb: change_json(
        c / "about" / "metadata", lambda j: j.update(config={"__class__": "os.system"})
    ),
    "no description": lambda c, bomb: (c / "about" / "metadata").write_text("[]"),
    "random states of another kind": lambda c, bomb: change_json(
        c / "more.json", lambda j: j.update(random={"numpy": ["os.system", [1], 0, 0, 0.0], "python": [3, [1], None]})
    ),
    "brackets without end": lambda c, bomb: (c / "more.json").write_text("[" * 200_000),
    "callbacks that are none": lambda c, bomb: change_json(c / "more.json", lambda j: j.update(callbacks=7)),
}


@pytest.mark.parametrize("attack", HOSTILE)
def test_no_code_of_a_checkpoint_runs(run, tmp_path, attack):
    newest, trace = run / "step_00000006", tmp_path / "trace"
    bomb = pickle.dumps(Bomb(trace))
    HOSTILE[attack](newest, bomb)
    sign(newest)
    trainer, counter, checkpoint = make_line(), Counter(), ModelCheckpoint(settings(run))
    trainer.callbacks = [counter, checkpoint]
    harmless = attack == "another handler"  # nobody looks at it
    try:
        if harmless:
            checkpoint.on_train_begin(trainer)
        else:
            with pytest.warns(UserWarning, match="step_00000006"):
                checkpoint.on_train_begin(trainer)
    finally:
        checkpoint.on_train_end(trainer)
    assert not trace.exists()
    assert trainer.step == (6 if harmless else 4) and trainer.config.noise == 0.1
    pickle.loads(bomb)
    assert trace.exists()  # it would have worked


def test_an_array_that_claims_to_be_huge_takes_no_memory(run):
    """Its shape is compared before it is read: 2^40 numbers that nobody wrote would be made of its fill value."""
    import tensorstore as ts

    newest = run / "step_00000006"
    kvstore = {"driver": "ocdbt", "base": f"file://{newest / 'state'}/", "path": "variable_00000/"}
    spec = {"driver": "zarr", "kvstore": kvstore, "metadata": {"shape": [2**40], "chunks": [2**20], "dtype": "<f4"}}
    ts.open(spec, create=True, delete_existing=True).result()
    sign(newest)
    trainer, checkpoint = make_line(), ModelCheckpoint(settings(run))
    with pytest.warns(UserWarning, match="its arrays are not what it says that they are"):
        checkpoint.on_train_begin(trainer)
    checkpoint.on_train_end(trainer)
    assert trainer.step == 4


# Two writers


def test_a_folder_has_one_writer(run):
    first, second, trainer = ModelCheckpoint(settings(run)), ModelCheckpoint(settings(run)), make_line()
    first.on_train_begin(trainer)
    other = make_line()
    with pytest.raises(BlockingIOError, match=f"in use by process {os.getpid()} .* which is this one"):
        second.on_train_begin(other)
    assert other.step == 0
    first.on_train_end(trainer)
    second.on_train_begin(other)
    second.on_train_end(other)
    assert other.step == 6


HOLDER = """
import sys, time
from pathlib import Path
from artifex_rl.callbacks.folder_lock import FolderLock
lock = FolderLock(Path(sys.argv[1]))
lock.acquire()
print("held", flush=True)
time.sleep(600)
"""


def test_another_process_is_named_and_a_dead_one_is_taken_over_from(tmp_path):
    with subprocess.Popen([sys.executable, "-c", HOLDER, tmp_path], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        lock = FolderLock(tmp_path)
        with pytest.raises(BlockingIOError, match=f"{tmp_path} is in use by process {process.pid} on"):
            lock.acquire()
        process.send_signal(signal.SIGKILL)
    lock.acquire()
    assert f"process {os.getpid()} " in (tmp_path / ".lock").read_text()
    lock.release()


@pytest.mark.filterwarnings("ignore:os.fork")
def test_a_forked_child_does_not_hold_the_lock_of_its_parent(tmp_path):
    lock = FolderLock(tmp_path)
    lock.acquire()
    mine, its = multiprocessing.Pipe()
    child = os.fork()
    if child == 0:
        its.recv()
        os._exit(0)
    try:
        with pytest.raises(BlockingIOError):
            FolderLock(tmp_path).acquire()
        lock.release()
        after = FolderLock(tmp_path)
        after.acquire()  # though the child lives
        del after  # which gives it back
        FolderLock(tmp_path).acquire()
    finally:
        mine.send(None)
        os.waitpid(child, 0)


@pytest.mark.filterwarnings("ignore:os.fork")
def test_a_lock_that_is_given_back_is_free_though_a_child_has_not_closed_its_copy(tmp_path, monkeypatch):
    """Between a fork and the first step of the child, it has the file open, too; any thread may fork at any time."""
    lock = FolderLock(tmp_path)
    lock.acquire()
    mine, its = multiprocessing.Pipe()
    with monkeypatch.context() as patch:
        patch.setattr(folder_lock, "_HELD", {})  # so that this child never comes to it
        child = os.fork()
        if child == 0:
            its.recv()
            os._exit(0)
    try:
        lock.release()
        FolderLock(tmp_path).acquire()
    finally:
        mine.send(None)
        os.waitpid(child, 0)


# Disks that are full


def test_a_lock_needs_no_room_on_the_disk(tmp_path):
    """On a disk that is full to its last byte a run can be gone on with, and is locked all the same."""
    lock, limits = FolderLock(tmp_path), resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
        lock.acquire()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    with pytest.raises(BlockingIOError, match="is in use by another process; needs a folder for each run"):
        FolderLock(tmp_path).acquire()


def test_a_full_disk_is_a_warning_and_what_is_older_stays_whole(tmp_path):
    """The limit of a file's size, of this process: a write beyond it fails, as on a full disk."""
    run, trainer, counter = tmp_path / "run", make_line(), Counter()
    checkpoint = ModelCheckpoint(settings(run, save_top_k=1, save_last=True))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    class Fill(Counter):
        def on_train_batch_end(self, trainer, metrics, step):
            full = 3 <= step < 7  # steps 4 and 6 cannot be written
            resource.setrlimit(resource.RLIMIT_FSIZE, (200 if full else limits[0], limits[1]))

    try:
        with pytest.warns(UserWarning) as caught:
            trainer.fit(line_data(4), steps=9, callbacks=[Fill(), counter, checkpoint])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    first, last = (str(one.message) for one in caught)
    assert (
        "checkpoint of step 4 could not be written: OSError: [Errno 27] File too large" in first
        and "1 older" in first
        and "goes on" in first
    )
    assert "2 checkpoints could not be written, the last of step 6" in last
    assert counter.seen == 9 and checkpoint.last.step == 9
    assert not [path for path in run.iterdir() if path.name.startswith(".") and path.name != ".lock"]
    for saved in checkpoint.saved:
        checkpoint.restore(make_line(), saved)


@pytest.mark.slow
def test_a_small_disk_that_fills_up(tmp_path):
    """A real file system of 400 kB, in a namespace of our own; training goes on, and is resumed with no byte free.

    Orbax's threads say on stderr what they could not write; what is looked for there is what this script raises.
    """
    script = textwrap.dedent(
        f"""
        import contextlib, logging, sys, warnings
        logging.disable(logging.CRITICAL)
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from checkpointed import line_data, make_line
        from artifex_rl.callbacks import CheckpointConfig, ModelCheckpoint
        rule = CheckpointConfig({str(tmp_path / "disk" / "run")!r}, save_top_k=-1, every_n_steps=1, resume="auto")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            trainer, checkpoint = make_line(), ModelCheckpoint(rule)
            trainer.fit(line_data(4), steps=30, callbacks=[checkpoint])
        saved = [one.step for one in checkpoint.saved]
        assert trainer.step == 30 and 0 < len(saved) < 30, saved
        assert any("could not be written" in str(one.message) for one in caught)
        with contextlib.suppress(OSError), open({str(tmp_path / "disk" / "filler")!r}, "wb", buffering=0) as filler:
            while True:
                filler.write(bytes(1024))
        again = make_line()
        ModelCheckpoint(rule).on_train_begin(again)
        assert again.step == saved[-1], (again.step, saved)
        print("whole", len(saved))
        """
    )
    (tmp_path / "disk").mkdir()
    mount = f'mount -t tmpfs -o size=400k none {tmp_path / "disk"} && exec {sys.executable} -c "$SCRIPT"'
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount]
    done = subprocess.run(command, env={**os.environ, "SCRIPT": script}, capture_output=True, text=True)
    if "unshare" in done.stderr or "mount:" in done.stderr:
        pytest.skip(f"needs a mount namespace: {done.stderr.strip()}")
    assert done.returncode == 0 and done.stdout.startswith("whole"), done.stderr[-2000:]


def test_arrays_are_written_as_they_are(run):
    """No pickle is written, either: each file is JSON, text, or the arrays' own format."""
    for path in (run / "step_00000006").rglob("*"):
        if path.is_file() and path.parent.name != "d" and path.name != "manifest.ocdbt":
            text = path.read_text()
            assert text.startswith("Checkpoint commit") or isinstance(json.loads(text), dict)
    assert np.isfinite(json.loads((run / "step_00000006" / "manifest.json").read_text())["metrics"]["loss"])
