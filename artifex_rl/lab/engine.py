"""What drives a live training: runs that advance in chunks, in a thread or at a call, and can be stopped at once.

State and settings of a run are never changed in place: a finished chunk swaps them whole, under a lock. A chunk that
is under way when the training is paused is dropped; its steps are made again, with the same keys, after the pause.
"""

from __future__ import annotations

import atexit
import dataclasses
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from artifex_rl.lab.history import History
from artifex_rl.lab.live_figure import RUN_STYLES, Mark
from artifex_rl.lab.sliders import check_setting, find_places, read_setting, with_number

#: Seconds that a chunk should take: a frame for each is 24 a second, and a slider waits no longer.
CHUNK_SECONDS = 0.042

#: The name of the mark where a fork begins; no number is called that.
FORK = "what if"

_engines: weakref.WeakSet[Engine] = weakref.WeakSet()


class Run:
    """One line of training, from the start or from a fork."""

    def __init__(self, state: Any, carry: Any, config: Any, placed: Any, setting: dict[str, float], history: History):
        self.state, self.carry, self.config, self.placed = state, carry, config, placed
        self.setting = self.wanted = setting  # what it trains with, and what it will from the next chunk on
        self.history = history
        self.marks: tuple[Mark, ...] = ()


class Engine:
    """Trains one or several runs of a trainer, all by the same steps.

    Args:
        trainer: gets the state and the config of the first run whenever the training rests.
        chunks: how steps are made; see `artifex_rl.lab.chunks`.
        max_steps: where a run ends.
        listen: `listen(final)`, called while a chunk is under way, and with True when the training has come to rest.
    """

    def __init__(self, trainer: Any, chunks: Any, max_steps: int, listen: Callable[[bool], None]):
        self.trainer, self.chunks, self.max_steps, self._listen = trainer, chunks, max_steps, listen
        self.lock = threading.RLock()
        self._woken = threading.Condition(self.lock)
        self.speed = 0.0
        self.running = self.closed = False
        self.warm = False  # whether a chunk was ever made: the first one compiles
        self.failure: Exception | None = None  # what ended the last run
        self._owed: Exception | None = None  # the same, until somebody was told
        self._ticket = 0  # a new one for each start and each stop: who holds an old one keeps nothing
        self._version = 0  # of the list of runs
        self._length = 1
        self._thread: threading.Thread | None = None
        self.places = find_places(trainer)
        self._first = (jax.tree.map(lambda leaf: leaf, trainer.state), trainer.config, trainer.key)
        self.symbols: dict[str, str] = {}
        self.runs = [self._new_run()]
        _engines.add(self)

    def _new_run(self) -> Run:
        trainer, state = self.trainer, _on_device(self.trainer.state)
        placed = self.chunks.place(trainer.config)
        return Run(state, self.chunks.begin(state), trainer.config, placed, read_setting(trainer), History())

    @property
    def steps(self) -> int:
        return self.runs[0].history.steps

    # What a hand does ---------------------------------------------------------------------------------------------

    def start(self, steps: int | None = None) -> None:
        """Train in a thread, until `pause` or for some steps."""
        with self.lock:
            if self.running or self.closed:
                return
            ticket, previous = self._begin(), self._thread
            name = f"live training of {type(self.trainer).__name__}"
            self._thread = threading.Thread(
                target=self._background, args=(ticket, steps, previous), name=name, daemon=True
            )
            self._thread.start()

    def run(self, steps: int) -> None:
        """Train here and now. It returns early if somebody pauses."""
        self.pause()
        self.join()
        with self.lock:
            if self.closed:
                raise RuntimeError("panel: it is closed; run the cell that made it again")
            ticket = self._begin()
        try:
            self.chunks.warm_up(*self._starts()[0])
            self._train(ticket, steps, paced=False)
        except BaseException as error:
            self._fail(ticket, error, pending=False)
            raise
        self.raise_pending()  # of whoever was listening

    def pause(self) -> None:
        """Stop now. What is under way is dropped."""
        with self.lock:
            if self.running:
                self._rest()

    def pace(self, speed: float) -> None:
        """Steps a second from now on; 0 is as fast as it goes."""
        with self.lock:
            self.speed = speed
            self._woken.notify_all()

    def set(self, changes: dict[str, Any]) -> None:
        """Other numbers for the last run, from the next chunk on."""
        with self.lock:
            run = self.runs[-1]
            run.wanted = check_setting(run.config, run.wanted, changes, self.places)
            if not self.running:
                self._apply(run)
                self._hand_back()

    def fork(self, changes: dict[str, Any]) -> Run:
        """A second run from the state of now; it gets the numbers, and those of later moves. Both train on."""
        with self.lock:
            if len(self.runs) == len(RUN_STYLES):
                raise ValueError(f"fork: got {len(self.runs)} runs already, needs fewer; drop() one first")
            source = self.runs[-1]
            self._apply(source)
            setting = check_setting(source.config, source.setting, changes, self.places)
            twin = Run(
                source.state, source.carry, source.config, source.placed, source.setting, source.history.fork()
            )
            twin.wanted = setting
            twin.marks = (*source.marks, Mark(source.history.steps, FORK, 0.0, "what if"))
            self.runs = [*self.runs, twin]
            self._version += 1
            self._apply(twin)
            return twin

    def drop(self) -> None:
        """Forget the last fork."""
        with self.lock:
            if len(self.runs) > 1:
                self.runs = self.runs[:-1]
                self._version += 1

    def reset(self, keep_setting: bool = False) -> None:
        """The first state, to the bit, and nothing seen yet."""
        with self.lock:
            self.pause()
            setting = self.runs[-1].wanted
            state, self.trainer.config, self.trainer.key = self._first
            self.trainer.state = state
            self.failure = self._owed = None
            self.chunks.key = self.trainer.key
            self.runs = [self._new_run()]
            if keep_setting:
                self.runs[0].wanted = setting
                self._apply(self.runs[0])
            self._hand_back()

    def close(self) -> None:
        """Stop for good, and wait for the thread."""
        self.pause()
        self.closed = True
        self.join()

    def join(self, timeout: float = 60.0) -> None:
        """Wait for what was under way at the last pause, unless this is the very thread."""
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)

    def fail(self, error: Exception) -> None:
        """Something that listens is broken: the training comes to rest, and the next call raises this."""
        with self.lock:
            self.failure = self._owed = error
            if self.running:
                self._rest()

    def raise_pending(self) -> None:
        """The error that ended the thread, once."""
        with self.lock:
            error, self._owed = self._owed, None
        if error is not None:
            raise error

    # How it is done -----------------------------------------------------------------------------------------------

    def _begin(self) -> int:
        """A new ticket. What was assigned to the trainer during the rest counts."""
        trainer, run = self.trainer, self.runs[0]
        here, there = trainer.state, run.state
        same = all(a is b for a, b in zip(here.variables, there.variables, strict=True))
        if not same or int(here.step) != int(there.step) or trainer.config is not run.config:
            run.state, run.config, run.placed = _on_device(here), trainer.config, self.chunks.place(trainer.config)
            run.setting = run.wanted = read_setting(trainer)
        self.chunks.key = trainer.key
        self.failure = self._owed = None
        self.running = True
        self._ticket += 1
        return self._ticket

    def _rest(self) -> None:
        self._ticket += 1
        self.running = False
        self._woken.notify_all()
        self._hand_back()
        self._listen(True)

    def _hand_back(self) -> None:
        run = self.runs[0]
        self.trainer.state = run.state
        if self.trainer.config is not run.config:
            self.trainer.config = run.config

    def _background(self, ticket: int, steps: int | None, previous: threading.Thread | None) -> None:
        if previous is not None:
            previous.join()
        try:
            self.chunks.warm_up(*self._starts()[0])
            self._train(ticket, steps, paced=True)
        except BaseException as error:
            self._fail(ticket, error, pending=True)

    def _fail(self, ticket: int, error: BaseException, pending: bool) -> None:
        with self.lock:
            if ticket != self._ticket:  # what was dropped cannot fail: it is made again
                return
            if isinstance(error, Exception):  # an interrupt is a pause
                self.failure, self._owed = error, error if pending else None
            self._rest()

    def _starts(self) -> list[tuple[Any, Any, Any]]:
        with self.lock:
            return [self._apply(run) for run in self.runs]

    def _apply(self, run: Run) -> tuple[Any, Any, Any]:
        """Moves that were made since the last chunk, marked if the run has gone anywhere since it began."""
        if run.wanted != run.setting:
            moved = {name: value for name, value in run.wanted.items() if value != run.setting[name]}
            fields = {name: value for name, value in moved.items() if name not in self.places}
            if fields:
                run.config = dataclasses.replace(run.config, **fields)
                run.placed = self.chunks.place(run.config)
            for name in moved.keys() & self.places.keys():
                run.state = with_number(run.state, self.places[name], moved[name])
            steps, history = run.history.steps, run.history
            if steps > history.start:
                run.marks += tuple(
                    Mark(steps, name, value, f"{self.symbols.get(name, name)} {value:.3g}")
                    for name, value in moved.items()
                )
        run.setting = run.wanted
        return run.state, run.carry, run.placed

    def _train(self, ticket: int, steps: int | None, paced: bool) -> None:
        end = self.max_steps if steps is None else min(self.steps + steps, self.max_steps)
        began, length = float("-inf"), 0
        while True:
            with self.lock:
                while paced and self.speed and ticket == self._ticket:
                    left = began + length / self.speed - time.perf_counter()
                    if left <= 0:
                        break
                    self._woken.wait(left)
                if ticket != self._ticket:
                    return
                if self.steps >= end:
                    self._rest()
                    return
                length = min(self._length, end - self.steps)
                if paced and self.speed:
                    length = min(length, max(1, round(self.speed * CHUNK_SECONDS)))
                runs, version, starts = self.runs, self._version, self._starts()
            began = time.perf_counter()
            ended = [self.chunks.advance(*start, length) for start in starts]
            self._listen(False)
            rows = [np.asarray(table)[:length] for _, _, table in ended]  # waits for the steps
            took, self.warm = time.perf_counter() - began, True
            self._length = int(
                np.clip(round(length * CHUNK_SECONDS / took), 1, min(4 * length, self.chunks.capacity))
            )
            good, problem = self._check(runs, rows)
            if problem is not None:  # the steps before it count, however the chunks were cut
                ended = [self.chunks.advance(*start, good) for start in starts] if good else []
                rows = [row[:good] for row in rows]
            with self.lock:
                if ticket != self._ticket:
                    return
                if version != self._version:
                    continue
                for run, (state, carry, _), row in zip(runs, ended, rows, strict=False):
                    run.state, run.carry = state, carry
                    run.history.add(self.chunks.names, row)
            if problem is not None:
                raise problem

    def _check(self, runs: list[Run], rows: list[np.ndarray]) -> tuple[int, Exception | None]:
        """How many steps from the first on have a finite loss, in all runs, and the error of the one after."""
        column = self.chunks.names.index("loss")
        losses = np.stack([row[:, column] for row in rows])
        bad = np.flatnonzero(~np.isfinite(losses).all(axis=0))
        if not len(bad):
            return losses.shape[1], None
        step, value = self.steps + int(bad[0]), losses[:, bad[0]]
        return int(bad[0]), FloatingPointError(f"loss: got {value[~np.isfinite(value)][0]} at step {step}")


def _on_device(state: Any) -> Any:
    """With the step as an array, as every later state has it."""
    return state._replace(step=jnp.asarray(state.step))


@atexit.register
def _stop_all() -> None:
    """A thread inside of compiled code must not outlive the interpreter."""
    for engine in list(_engines):
        engine.close()
