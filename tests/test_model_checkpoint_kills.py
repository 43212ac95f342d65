"""SIGKILL at a hundred random moments of training and saving: every restart goes on as if nothing had happened."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

KILLS, EVERY, STEPS = 100, 6, 2500


class Lives:
    """One run, life after life; see `lives.py`."""

    def __init__(self, place: Path):
        self.place, self.count = place, 0
        script, environment = Path(__file__).with_name("lives.py"), {**os.environ, "XLA_FLAGS": ""}
        pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.server = subprocess.Popen([sys.executable, "-W", "ignore", script], env=environment, **pipes)

    def start(self, folder: Path | None, steps: int) -> tuple[int, object]:
        """The process, and what it writes."""
        self.count += 1
        pipe = self.place / f"pipe-{self.count}"
        os.mkfifo(pipe)
        about = {"pipe": str(pipe), "folder": folder and str(folder), "cache": str(self.place / "cache")}
        print(json.dumps({**about, "steps": steps, "every": EVERY}), file=self.server.stdin, flush=True)
        pid = int(self.server.stdout.readline())
        return pid, open(pipe)


@pytest.fixture
def lives():
    """In memory if possible: what a disk does is no matter of how a process dies."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as place:
        lives = Lives(Path(place))
        yield lives
        lives.server.stdin.close()
        lives.server.wait()


def newest(folder: Path) -> int:
    return max((int(path.name[5:]) for path in folder.glob("step_*")), default=0)


def told(line: str) -> tuple[int, str]:
    step, digest = line.split()
    return int(step), digest


@pytest.mark.slow
def test_a_hundred_kills_leave_no_trace(lives):
    folder, chance = lives.place / "run", random.Random(0)
    _, output = lives.start(None, STEPS)
    truth = dict(told(line) for line in output if line != "done\n")
    assert len(truth) == len({*truth.values()}) == STEPS + 1

    where = {"starting": 0, "training": 0, "saving": 0}
    restored, took = set(), 0.02  # seconds of a save
    for kill in range(KILLS):
        expected = newest(folder)
        pid, output = lives.start(folder, STEPS)
        heard = []

        def listen(until, output=output, heard=heard):
            heard.append(line := output.readline())
            while not until(line):
                heard.append(line := output.readline())

        if kill % 10 == 0:  # while it starts, or restores
            time.sleep(chance.uniform(0, 0.3))
        else:
            listen(lambda line: line[0].isdigit())
            for _ in range(chance.randrange(3 * EVERY)):
                listen(lambda line: line[0].isdigit())
            if kill % 2:  # in the middle of a save
                listen(lambda line: line == "[\n")
                time.sleep(chance.uniform(0, took))
            else:
                time.sleep(chance.uniform(0, 0.002))
        os.kill(pid, signal.SIGKILL)
        heard += output.readlines()
        states = [told(line) for line in heard if line[0].isdigit() and line.endswith("\n")]
        marks = [line for line in heard if line[0] in "[]"]
        where["starting" if not states else "saving" if marks[-1:] == ["[\n"] else "training"] += 1
        if states:
            assert states[0] == (expected, truth[expected])
            assert all(truth[step] == digest for step, digest in states)
            restored.add(expected)
        output.close()
        took = max((float(line[1:]) for line in heard if line[0] == "]" and line.endswith("\n")), default=took)
    pid, output = lives.start(folder, newest(folder) + 40)
    *rest, done = output.readlines()
    states = [told(line) for line in rest if line[0].isdigit()]
    assert done == "done\n" and len(states) == 41 and all(truth[step] == digest for step, digest in states)
    assert where["saving"] >= 30 and where["training"] >= 20, where
    assert len(restored) >= 30
    assert [path.name for path in folder.iterdir() if not path.name.startswith("step_")] == [".lock"]
