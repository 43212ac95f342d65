"""HistoryCallback: every row that was seen is in the file once, whatever happened to the process, disk or file."""

import csv
import fcntl
import json
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import time
import warnings

import numpy as np
import pytest
from IPython.core.formatters import DisplayFormatter
from matplotlib.figure import Figure
from small_runs import by_hand, data, make

from artifex_rl.callbacks import HistoryCallback
from artifex_rl.callbacks.row_file import RowFile

BOTH = pytest.mark.parametrize("name", ["run.jsonl", "run.csv"])


def table(path):
    """The rows of a file as another program would read them."""
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text().splitlines()]
    with open(path, newline="") as file:
        return [{name: float(cell) for name, cell in row.items() if cell} for row in csv.DictReader(file)]


@BOTH
def test_the_file_holds_every_metric_to_the_bit(tmp_path, name):
    path = tmp_path / "a" / name
    history = HistoryCallback(path)
    seen = make().fit(data(), 5, [history], validation=data(4), validate_every=2)
    rows = table(path)
    assert [row["step"] for row in rows] == [0, 1, 1, 2, 3, 3, 4]
    assert [row["loss"] for row in rows if "loss" in row] == seen["loss"].tolist()
    assert [set(row) for row in rows if "val_loss" in row] == [{"step", "val_loss", "val_error"}] * 2
    assert history.series()["val_loss"].tolist() == [row["val_loss"] for row in rows if "val_loss" in row]
    np.testing.assert_array_equal(history.steps("val_loss"), [1, 3])
    again = HistoryCallback(path, resume=True)
    again.on_train_begin(make())
    again.on_train_end(make())
    assert {k: v.tolist() for k, v in again.series().items()} == {k: v.tolist() for k, v in history.series().items()}


@BOTH
def test_a_file_cut_at_any_byte_becomes_that_of_the_whole_run_again(tmp_path, name):
    path, trainer = tmp_path / name, make()
    trainer.fit(data(), 2)
    stood = trainer.clone()
    validation = {"validation": data(4), "validate_every": 2}
    whole = HistoryCallback(path)
    trainer.fit(data(), 3, [whole], **validation)
    complete = path.read_bytes()
    for cut in range(0, len(complete) + 1, 7):
        path.write_bytes(complete[:cut])
        history = HistoryCallback(path, resume=True)
        stood.clone().fit(data(), 3, [history], **validation)
        assert path.read_bytes() == complete
        assert {k: v.tolist() for k, v in history.series().items()} == {
            k: v.tolist() for k, v in whole.series().items()
        }


def test_what_a_kill_leaves_may_have_been_padded_with_zeros(tmp_path):
    path = tmp_path / "run.jsonl"
    make().fit(data(), 3, [HistoryCallback(path)])
    complete = path.read_bytes()
    path.write_bytes(complete + b"\0" * 40)
    trainer = make()
    trainer.fit(data(), 3)
    trainer.fit(data(), 1, [HistoryCallback(path)])
    assert path.read_bytes().startswith(complete) and [row["step"] for row in table(path)] == [0, 1, 2, 3]


@BOTH
def test_earlier_rows_are_not_replaced_unless_told(tmp_path, name):
    path, trainer = tmp_path / name, make()
    trainer.fit(data(), 3, [HistoryCallback(path)])
    before, other = path.read_bytes(), make()
    with pytest.raises(FileExistsError, match=r"steps up to 2, and step 0 is next.*resume=True") as caught:
        other.fit(data(), 1, [HistoryCallback(path)])
    assert caught.value.__notes__ == ["raised by HistoryCallback.on_train_begin"]
    assert other.step == 0 and path.read_bytes() == before
    trainer.fit(data(), 1, [HistoryCallback(path)])  # steps that follow are no question
    assert [row["step"] for row in table(path)] == [0, 1, 2, 3]
    by_hand(trainer, 1, [HistoryCallback(path)])  # which counts from 0, and its trainer does not
    assert [row["step"] for row in table(path)] == [0, 1, 2, 3, 4]
    with pytest.raises(FileExistsError):
        by_hand(other, 1, [HistoryCallback(path)])
    other.fit(data(), 2, [HistoryCallback(path, resume=True)])
    assert [row["step"] for row in table(path)] == [0, 1]


def test_something_else_is_not_touched(tmp_path):
    for name, text in (("a.jsonl", '{"step": 1}\nhello\n'), ("b.csv", "name,mark\nada,1\n"), ("c.jsonl", "[1]\n")):
        (tmp_path / name).write_text(text)
        with pytest.raises(ValueError, match=rf"line \d of .*{name}.*another path"):
            make().fit(data(), 1, [HistoryCallback(tmp_path / name, resume=True)])
        assert (tmp_path / name).read_text() == text
    with pytest.raises(ValueError, match=r"path: got 'run.txt', needs .*\.jsonl or \.csv"):
        HistoryCallback(tmp_path / "run.txt")
    with pytest.raises(ValueError, match="every_n_steps: got 0"):
        HistoryCallback(every_n_steps=0)


def test_numbers_that_are_none_come_back_and_other_readers_read_them(tmp_path):
    values = {"nan": float("nan"), "up": float("inf"), "down": -float("inf"), "tiny": 5e-324, 'a "b", c': 0.1}
    for name in ("run.jsonl", "run.csv"):
        rows = RowFile(tmp_path / name)
        rows.open()
        rows.append(3, values)
        rows.close()
        ((step, read),) = RowFile(tmp_path / name).open()
        assert step == 3 and str(read) == str(values)
    text = (tmp_path / "run.jsonl").read_text()
    json.loads(text, parse_constant=lambda constant: pytest.fail(f"{constant} is no JSON"))


def test_a_history_goes_on_in_pieces_in_loops_by_hand_and_after_a_restoration():
    history, trainer = HistoryCallback(), make()
    trainer.fit(data(), 2, [history])
    early = trainer.clone()
    by_hand(trainer, 2, [history])
    trainer.fit(data(), 2, [history], steps_per_call=2)
    np.testing.assert_array_equal(history.steps(), range(6))
    loss = history.series()["loss"]
    early.fit(data(), 1, [history])  # two steps lie behind it: what came later did not happen
    np.testing.assert_array_equal(history.steps(), range(3))
    np.testing.assert_array_equal(history.series()["loss"], loss[:3])
    early.fit(data(), 2, [history], steps_per_call=2)
    again = make()
    again.fit(data(), 3)
    again.fit(data(), 2, [history], steps_per_call=2)  # the same two steps, in one call
    np.testing.assert_array_equal(history.steps(), range(5))
    by_hand(make(), 1, [history])  # a cell that was run once more
    np.testing.assert_array_equal(history.steps(), [0])


def test_only_every_nth_step_and_only_numbers(tmp_path):
    history = HistoryCallback(every_n_steps=3)
    make().fit(data(), 8, [history], validation=lambda trainer: {"judge": trainer.step}, validate_every=4)
    np.testing.assert_array_equal(history.steps(), [0, 3, 6])
    np.testing.assert_array_equal(history.steps("val_judge"), [3, 7])
    np.testing.assert_array_equal(history.series()["val_judge"], [4, 8])
    history.on_train_begin(make())
    with pytest.raises(ValueError, match=r"metrics\['rows'\]: got shape \(2,\), needs a number"):
        history.on_train_batch_end(make(), {"loss": 1.0, "rows": np.ones(2)}, 9)
    with pytest.raises(ValueError, match="one called 'step'"):
        saved = HistoryCallback(tmp_path / "run.csv")
        saved.on_train_begin(make())
        saved.on_train_batch_end(make(), {"loss": 1.0, "step": 1.0}, 0)


# Disks and other processes


@pytest.fixture
def small_disk():
    """`small_disk(bytes)`: no file may grow beyond; a write that would is refused by the kernel."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@BOTH
def test_a_full_disk_costs_no_training_and_no_row_once_it_has_room_again(tmp_path, name, small_disk):
    path, history = tmp_path / name, HistoryCallback(tmp_path / name)

    class MakesRoom:
        def on_train_batch_end(self, trainer, metrics, step):
            if step == 20:
                small_disk(limits)

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    make().fit(data(), 3, [HistoryCallback(tmp_path / f"full_{name}")])
    small_disk(int(1.2 * (tmp_path / f"full_{name}").stat().st_size))
    with pytest.warns(UserWarning) as caught:
        seen = make().fit(data(), 40, [history, MakesRoom()])
    assert len(caught) == 1 and "HistoryCallback: cannot write" in str(caught[0].message)
    assert caught[0].filename == __file__
    assert [row["loss"] for row in table(path)] == seen["loss"].tolist() == history.series()["loss"].tolist()


@BOTH
def test_a_disk_that_stays_full_leaves_whole_lines(tmp_path, name, small_disk):
    path, history = tmp_path / name, HistoryCallback(tmp_path / name)
    small_disk(400)
    trainer = make()
    with pytest.warns(UserWarning) as caught:
        seen = trainer.fit(data(), 30, [history], validation=data(4), validate_every=20)
    assert all(word in str(w.message) for w, word in zip(caught, ("cannot write", "lacks the last"), strict=True))
    assert path.read_bytes().endswith(b"\n") and len(path.read_bytes()) <= 400
    rows = table(path)
    assert 0 < len(rows) < 30
    assert [row["loss"] for row in rows] == seen["loss"][: len(rows)].tolist()
    assert len(history.series()["loss"]) == 30
    small_disk(resource.RLIM_INFINITY)
    trainer.fit(data(), 1, [history])
    assert len(table(path)) == 32  # with those of before, and a validation


def test_a_file_is_written_by_one_run_at_a_time(tmp_path):
    first, second = HistoryCallback(tmp_path / "run.jsonl"), HistoryCallback(tmp_path / "run.jsonl", resume=True)
    trainer, other = make(), make()
    first.on_train_begin(trainer)
    with pytest.raises(RuntimeError, match=r"run\.jsonl is being written by another run"):
        other.fit(data(), 1, [second])
    assert other.step == 0
    first.on_train_end(trainer)
    other.fit(data(), 1, [second])
    assert len(table(tmp_path / "run.jsonl")) == 1


def test_a_file_that_was_replaced_while_it_was_waited_for_is_opened_anew(tmp_path, monkeypatch):
    path, rows = tmp_path / "run.csv", RowFile(tmp_path / "run.csv")
    path.write_text("step,loss\n0,1.0\n")
    lock = fcntl.flock

    def replaces_it(file, how):
        monkeypatch.setattr(fcntl, "flock", lock)
        (tmp_path / "new").write_text("step,loss,error\n0,1.0,\n1,1.0,2.0\n")
        os.replace(tmp_path / "new", path)
        lock(file, how)

    monkeypatch.setattr(fcntl, "flock", replaces_it)
    assert len(rows.open()) == 2
    rows.append(2, {"error": 3.0})
    rows.close()
    assert path.read_text().splitlines()[-1] == "2,,3.0"


def _compete(path, who, barrier, results):
    rows = RowFile(path)
    barrier.wait()
    written = 0
    while written < 30:
        try:
            found = rows.open()
        except RuntimeError:
            time.sleep(0.001)
            continue
        rows.append((rows._steps[-1] if len(rows._steps) else -1) + 1, {f"metric_of_{who}": written})
        written += 1
        rows.close()
    results.put(found is not None)


@BOTH
def test_processes_that_take_turns_lose_no_row_even_while_the_table_gets_columns(tmp_path, name):
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(3), context.Queue()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # JAX has threads; the children use none of it
        workers = [
            context.Process(target=_compete, args=(tmp_path / name, who, barrier, results)) for who in range(3)
        ]
        for worker in workers:
            worker.start()
    for worker in workers:
        worker.join(60)
    rows = table(tmp_path / name)
    assert [row["step"] for row in rows] == list(range(90))
    for who in range(3):
        mine = f"metric_of_{who}"
        assert [row[mine] for row in rows if mine in row] == list(range(30))


KILLED = """
import os, signal, sys
sys.path.insert(0, "tests")
from small_runs import data, make
from artifex_rl.callbacks import Callback, HistoryCallback

class Dies(Callback):
    def on_train_batch_end(self, trainer, metrics, step):
        if step == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)

make().fit(data(), 20, [HistoryCallback(sys.argv[1], resume=True), Dies()])
"""


@pytest.mark.slow
def test_what_was_seen_before_sigkill_is_in_the_file(tmp_path):
    path = tmp_path / "run.jsonl"
    root = os.path.dirname(os.path.dirname(__file__))
    for last in (7, 3, 99):
        run = subprocess.run([sys.executable, "-c", KILLED, path, str(last)], cwd=root)
        assert run.returncode == (0 if last == 99 else -signal.SIGKILL)
        assert [row["step"] for row in table(path)] == list(range(min(last + 1, 20)))


# The picture


def test_the_picture_has_axes_for_each_metric_and_its_validation():
    history = HistoryCallback()
    make().fit(data(), 60, [history], validation=data(4), validate_every=10)
    figure = history.plot()
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["error", "loss", "grad_norm"]
    loss = figure.axes[1]
    raw, smooth, validated, _ = loss.lines
    np.testing.assert_array_equal(raw.get_ydata(), history.series()["loss"])
    np.testing.assert_array_equal(validated.get_xdata(), [9, 19, 29, 39, 49, 59])
    # The average of a bias-corrected exponential window, in closed form.
    weights = 0.9 ** np.arange(60)[::-1]
    assert smooth.get_ydata()[-1] == pytest.approx(weights @ history.series()["loss"] / weights.sum(), rel=1e-6)
    assert len(history.plot(["loss"]).axes) == 1 and isinstance(figure, Figure)
    png = DisplayFormatter().format(figure)[0]["image/png"]  # what a notebook shows
    assert png.startswith(b"\x89PNG") and png == history.plot()._repr_png_()
    with pytest.raises(ValueError, match=r"names: got \['reward'\], needs some of \['error', 'loss', 'grad_norm'\]"):
        history.plot(["reward"])
