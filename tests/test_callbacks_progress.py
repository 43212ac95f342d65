"""ProgressBarCallback: what is left on a terminal, in a log and in a saved notebook, and what drawing costs."""

import contextlib
import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import threading
import time

import nbformat
import pytest
from nbclient import NotebookClient
from small_runs import by_hand, data, make

from artifex_rl.callbacks import ProgressBarCallback, progress_bar


@contextlib.contextmanager
def terminal():
    """A terminal of 30 rows and 100 columns as sys.stderr; the list holds in the end what was written, in lines."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
    written, lines = bytearray(), []

    def read():
        with contextlib.suppress(OSError):  # closed
            while chunk := os.read(ours, 4096):
                written.extend(chunk)

    reader = threading.Thread(target=read)
    reader.start()
    with open(theirs, "w") as stream, contextlib.redirect_stderr(stream):
        yield lines
    reader.join(10)
    os.close(ours)
    lines += [line for line in re.split(r"[\r\n]+", written.decode()) if line.strip()]


class Slow:
    def on_train_batch_end(self, trainer, metrics, step):
        time.sleep(0.02)


def test_a_terminal_has_one_bar_with_rate_time_left_and_metrics():
    bar = ProgressBarCallback(["error", "val_loss"])
    with terminal() as lines:
        make().fit(data(), 30, [Slow(), bar], validation=data(), validate_every=5)
    *drawn, last = lines
    assert len(drawn) > 3
    assert re.search(r"^100%\|█+\| 30/30 \[00:0\d<00:00, +\d[\d.]*step/s, error=\d.*, val_loss=\d", last)
    assert re.search(r"\d+/30 \[00:0\d<00:0\d", drawn[2]) and all(len(line) <= 100 for line in drawn)


def test_a_run_that_stops_or_whose_end_is_not_known_leaves_its_bar_where_it_was():
    class Stops:
        def on_train_batch_end(self, trainer, metrics, step):
            trainer.should_stop = step == 9

    with terminal() as lines:
        make().fit(data(), 20, [Stops(), ProgressBarCallback([])])
        make().fit((data() for _ in range(7)), callbacks=[ProgressBarCallback([])])
    assert any(re.search(r"^ 50%\|█+[▉-▏]? +\| 10/20 \[", line) for line in lines)
    assert re.search(r"^7step \[00:0\d, ", lines[-1])


def test_a_log_has_a_line_a_minute_and_one_at_the_end(capsys, monkeypatch):
    bar, trainer = ProgressBarCallback(), make()
    trainer.fit(data(), 4, [bar])
    (line,) = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"4 of 4 steps in \d\.\d s \([\d.e+]+ steps a second\), loss \d+\.\d+", line)
    assert line == bar.summary()
    clock, bar = Clock(0.0), ProgressBarCallback(["error"], total=12)
    monkeypatch.setattr(progress_bar.time, "perf_counter", clock)
    bar.on_train_begin(trainer)
    for step in range(12):
        clock.now += 20
        bar.on_train_batch_end(trainer, {"error": 0.5}, step)
    bar.on_train_end(trainer)
    *minutes, end = capsys.readouterr().err.splitlines()
    assert [line.split("|")[2] for line in minutes] == [
        f" {steps}/12 [0{steps // 3}:00<0{4 - steps // 3}:00, 20.00s/step, error=0.5]" for steps in (3, 6, 9, 12)
    ]
    assert end == "12 of 12 steps in 240.0 s (0.05 steps a second), error 0.5"


def test_an_error_takes_the_bar_down_and_is_named(capsys):
    class Fails:
        def on_train_batch_end(self, trainer, metrics, step):
            if step == 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make().fit(data(), 9, [ProgressBarCallback([]), Fails()])
    assert capsys.readouterr().err.startswith("KeyboardInterrupt after 3 of 9 steps")


def test_a_loop_by_hand_may_say_how_many_steps_there_are(capsys):
    by_hand(make(), 5, [ProgressBarCallback([], total=8)])
    by_hand(make(), 5, [ProgressBarCallback([])])
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("stopped after 5 of 8 steps") and second.startswith("5 steps in")
    for wrong, words in ((("total", 0), "total: got 0"), (("metrics", "loss"), "needs a list of names")):
        with pytest.raises(ValueError, match=words):
            ProgressBarCallback(**dict([wrong]))


class Clock:
    """A clock that goes on by so many seconds whenever it is read."""

    def __init__(self, tick):
        self.now, self.tick = 0.0, tick

    def __call__(self):
        self.now += self.tick
        return self.now


@pytest.mark.parametrize("cost", [1e-4, 0.05])
def test_drawing_takes_a_hundredth_of_the_time_at_most(cost, monkeypatch):
    class View:
        pause, times = progress_bar.PAUSE, 0

        def columns(self):
            return 80

        def draw(self, line):
            clock.now += cost
            self.times += 1

        def close(self, line, standing, summary): ...

    clock, view, trainer, bar = Clock(1e-4), View(), make(), ProgressBarCallback()
    monkeypatch.setattr(progress_bar.time, "perf_counter", clock)
    monkeypatch.setattr(progress_bar, "_Log", lambda: view)
    bar.on_train_begin(trainer)
    for step in range(100_000):  # of 0.1 ms: ten seconds
        bar.on_train_batch_end(trainer, {"loss": 1.0}, step)
    spent = view.times * cost
    assert spent <= 0.01 * clock.now + cost
    assert view.times == pytest.approx(min(clock.now / progress_bar.PAUSE, 0.01 * clock.now / cost), rel=0.1, abs=1.1)


CELL = """
import sys, time
sys.path.insert(0, {tests!r})
from small_runs import data, make
from artifex_rl.callbacks import ProgressBarCallback

class Slow:
    def on_train_batch_end(self, trainer, metrics, step):
        time.sleep(0.02)

make().fit(data(), 30, [Slow(), ProgressBarCallback()])
print("done")
"""


@pytest.mark.slow
def test_a_saved_notebook_has_one_line_that_every_run_of_it_has(tmp_path):
    updates = []

    class Watching(NotebookClient):
        def process_message(self, msg, cell, cell_index):
            if msg["msg_type"] == "update_display_data":
                updates.append(msg["content"]["data"].get("text/plain", ""))
            return super().process_message(msg, cell, cell_index)

    cell = nbformat.v4.new_code_cell(CELL.format(tests=os.path.dirname(__file__)))
    notebook = nbformat.v4.new_notebook(cells=[cell])
    Watching(notebook, timeout=120).execute()
    empty, line, text = notebook.cells[0].outputs
    assert empty["data"] == {} and line["data"] == {"text/plain": "30 of 30 steps"} and text["text"] == "done\n"
    assert any(re.search(r"\d+/30 \[.*step/s, loss=", update) for update in updates)
    nbformat.write(notebook, tmp_path / "saved.ipynb")
    nbval = [sys.executable, "-m", "pytest", "--nbval", "--nbval-current-env", "-p", "no:cacheprovider", "-q"]
    run = subprocess.run([*nbval, "saved.ipynb"], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0 and "1 passed" in run.stdout, run.stdout
