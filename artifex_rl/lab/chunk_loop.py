"""How the chunks of a live training follow each other: sent off, waited for, and taken over by the runs.

When a chunk is nearly done the next one is sent off behind it: the processor need not wait for Python. Where a run
stands is never changed in place: a finished chunk puts another point there, under a lock. Chunks that are under way
when the training is paused are dropped; their steps are made again, with the same keys, after the pause.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from artifex_rl.lab.live_run import Point, Run
from artifex_rl.lab.sliders import find_places, with_fields, with_number

#: Seconds that a chunk should take: a frame for each is 21 a second, and a slider waits no longer.
CHUNK_SECONDS = 0.046
#: The share of a chunk's time after which the next one is sent off.
NEARLY_DONE = 0.75


@dataclasses.dataclass(frozen=True)
class Chunk:
    """Steps of all runs that were sent off together, and where each run stands before and after them."""

    version: int  # of the list of runs
    length: int
    sent: float  # when
    starts: list[Point]
    ends: list[Point]
    tables: list[Any]  # metrics of the steps, `(length or more, K)`: whoever reads them waits for the steps


class ChunkLoop:
    """Trains one or several runs of a trainer, all by the same steps, until the ticket that it was given is void.

    Args:
        trainer: gets the state and the config of the first run whenever the training rests.
        chunks: how steps are made; see `artifex_rl.lab.chunks`.
        max_steps: where a run ends.
        listen: `listen(final)`, called while a chunk is under way, and with True when the training has come to rest.
    """

    runs: list[Run]

    def __init__(self, trainer: Any, chunks: Any, max_steps: int, listen: Callable[[bool], None]):
        self.trainer, self.chunks, self.max_steps, self._listen = trainer, chunks, max_steps, listen
        self.lock = threading.RLock()
        self._woken = threading.Condition(self.lock)
        self.speed = 0.0  # steps a second; 0: as fast as it goes
        self.running = False
        self.warm = False  # whether a chunk was ever made: the first one compiles
        self.places = find_places(trainer)
        self.symbols: dict[str, str] = {}
        self._ticket = 0  # a new one for each start and each stop: who holds an old one keeps nothing
        self._version = 0  # of the list of runs
        self._length = 1  # steps of the next chunk
        self._step_seconds = 0.0  # what a step took of late; 0: not known yet
        self._landed = float("-inf")  # when the last chunk came to its end

    @property
    def steps(self) -> int:
        return self.runs[0].history.steps

    def _rest(self) -> None:
        self._ticket += 1
        self.running = False
        self._woken.notify_all()
        for run in self.runs:
            self._heed(run)
        self._hand_back()
        self._listen(True)

    def _hand_back(self) -> None:
        run = self.runs[0]
        self.trainer.state = run.state
        if self.trainer.config is not run.config:
            self.trainer.config = run.config

    def _warm_up(self) -> None:
        with self.lock:
            point = self.runs[0].point
        self.chunks.warm_up(point.state, point.carry, point.placed)

    def _heed(self, run: Run) -> None:
        run.point = self._moved(run, run.point, run.history.steps)

    def _moved(self, run: Run, point: Point, steps: int) -> Point:
        """The point with the numbers that are wanted by now, and a mark for each that has moved, if the run has gone
        anywhere since it began."""
        moved = {name: value for name, value in run.wanted.items() if value != point.setting[name]}
        if not moved:
            return point
        fields = {name: value for name, value in moved.items() if name not in self.places}
        if fields:
            config = with_fields(point.config, fields)
            point = dataclasses.replace(point, config=config, placed=self.chunks.place(config))
        for name in moved.keys() & self.places.keys():
            point = dataclasses.replace(point, state=with_number(point.state, self.places[name], moved[name]))
        if steps > run.history.start:
            for name, value in moved.items():
                point = point.marked(steps, name, value, f"{self.symbols.get(name, name)} {value:.3g}")
        return dataclasses.replace(point, setting=run.wanted)

    def _train(self, ticket: int, steps: int | None, paced: bool) -> None:
        end = self.max_steps if steps is None else min(self.steps + steps, self.max_steps)
        chunk = follower = None
        try:
            while True:
                chunk = follower or self._send(ticket, end, paced, chunk)
                if chunk is None:
                    return
                self._listen(False)
                follower = self._send_behind(ticket, end, paced, chunk)
                self._land(ticket, chunk)
        finally:  # what was dropped has come to its end, too, before this thread does
            jax.block_until_ready([each.tables for each in (chunk, follower) if each is not None])

    def _send(self, ticket: int, end: int, paced: bool, last: Chunk | None) -> Chunk | None:
        """Send off a chunk from where the runs stand, as soon as the speed allows it; None at the end of the way."""
        with self.lock:
            while paced and self.speed and last is not None and ticket == self._ticket:
                left = last.sent + last.length / self.speed - time.perf_counter()
                if left <= 0:
                    break
                self._woken.wait(left)
            if ticket != self._ticket:
                return None
            if self.steps >= end:
                self._rest()
                return None
            plan = self._plan([run.point for run in self.runs], self.steps, end, paced)
        return self._advance(*plan)

    def _send_behind(self, ticket: int, end: int, paced: bool, before: Chunk) -> Chunk | None:
        """Send off the chunk after one that is under way, when that is nearly done; None if it has to wait for it."""
        with self.lock:
            if not (self.chunks.sends_off and self._step_seconds) or (paced and self.speed):
                return None
            nearly = max(before.sent, self._landed) + NEARLY_DONE * before.length * self._step_seconds
            while ticket == self._ticket and (left := nearly - time.perf_counter()) > 0:
                self._woken.wait(left)
            steps = self.steps + before.length
            if ticket != self._ticket or before.version != self._version or steps >= end:
                return None
            plan = self._plan(before.ends, steps, end, paced)
        return self._advance(*plan)

    def _plan(self, points: list[Point], steps: int, end: int, paced: bool) -> tuple[int, int, list[Point]]:
        length = min(self._length, end - steps)
        if paced and self.speed:
            length = min(length, max(1, round(self.speed * CHUNK_SECONDS)))
        starts = [self._moved(run, point, steps) for run, point in zip(self.runs, points, strict=True)]
        return self._version, length, starts

    def _advance(self, version: int, length: int, starts: list[Point]) -> Chunk:
        sent, ends, tables = time.perf_counter(), [], []
        for start in starts:
            state, carry, table = self.chunks.advance(start.state, start.carry, start.placed, length)
            ends.append(dataclasses.replace(start, state=state, carry=carry))
            tables.append(table)
        return Chunk(version, length, sent, starts, ends, tables)

    def _land(self, ticket: int, chunk: Chunk) -> None:
        """Wait for a chunk; then the runs stand where it ends."""
        late = self.chunks.sends_off and all(table.is_ready() for table in chunk.tables)
        rows = [np.asarray(table)[: chunk.length] for table in chunk.tables]
        now = time.perf_counter()
        seconds = (now - max(chunk.sent, self._landed)) / chunk.length
        if late:  # Python was busy elsewhere: the steps took less
            seconds = min(seconds, self._step_seconds or seconds)
        if not late or self._step_seconds:
            self._step_seconds = seconds
        self._landed, self.warm = now, True
        most = min(4 * chunk.length, self.chunks.capacity)
        self._length = int(np.clip(round(CHUNK_SECONDS / seconds), 1, most))
        good, problem = self._check(rows)
        if problem is not None:  # the steps before it count, however the chunks were cut
            rows = [row[:good] for row in rows]
            chunk = self._advance(chunk.version, good, chunk.starts) if good else chunk
        with self.lock:
            if ticket != self._ticket or chunk.version != self._version:
                return
            for run, point, row in zip(self.runs, chunk.ends, rows, strict=True) if good else ():
                run.point = point
                run.history.add(self.chunks.names, row)
        if problem is not None:
            raise problem

    def _check(self, rows: list[np.ndarray]) -> tuple[int, Exception | None]:
        """How many steps from the first on have a finite loss, in all runs, and the error of the one after."""
        column = self.chunks.names.index("loss")
        losses = np.stack([row[:, column] for row in rows])
        bad = np.flatnonzero(~np.isfinite(losses).all(axis=0))
        if not len(bad):
            return losses.shape[1], None
        step, value = self.steps + int(bad[0]), losses[:, bad[0]]
        return int(bad[0]), FloatingPointError(f"loss: got {value[~np.isfinite(value)][0]} at step {step}")
