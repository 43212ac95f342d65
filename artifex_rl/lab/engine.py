"""What a hand, or a call, does to a live training: starts it, stops it at once, moves its numbers, forks it."""

from __future__ import annotations

import atexit
import threading
import weakref
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from artifex_rl.lab.chunk_loop import ChunkLoop
from artifex_rl.lab.history import History
from artifex_rl.lab.live_figure import RUN_STYLES
from artifex_rl.lab.live_run import FORK, Point, Run
from artifex_rl.lab.sliders import check_setting, read_setting

_engines: weakref.WeakSet[Engine] = weakref.WeakSet()


class Engine(ChunkLoop):
    """Trains one or several runs of a trainer, in a thread or at a call; takes what `ChunkLoop` does."""

    def __init__(self, trainer: Any, chunks: Any, max_steps: int, listen: Callable[[bool], None]):
        super().__init__(trainer, chunks, max_steps, listen)
        self.closed = False
        self.failure: Exception | None = None  # what ended the last run
        self._owed: Exception | None = None  # the same, until somebody was told
        self._thread: threading.Thread | None = None
        self._first = (jax.tree.map(lambda leaf: leaf, trainer.state), trainer.config, trainer.key)
        self.runs = [self._new_run()]
        _engines.add(self)

    def _new_run(self) -> Run:
        trainer, state = self.trainer, _on_device(self.trainer.state)
        placed = self.chunks.place(trainer.config)
        return Run(Point(state, self.chunks.begin(state), trainer.config, placed, read_setting(trainer)), History())

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
            self._warm_up()
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
                self._heed(run)
                self._hand_back()

    def fork(self, changes: dict[str, Any]) -> Run:
        """A second run from the state of now; it gets the numbers, and those of later moves. Both train on."""
        with self.lock:
            if len(self.runs) == len(RUN_STYLES):
                raise ValueError(f"fork: got {len(self.runs)} runs already, needs fewer; drop() one first")
            source = self.runs[-1]
            self._heed(source)
            setting = check_setting(source.config, source.setting, changes, self.places)
            twin = Run(source.point.marked(source.history.steps, FORK, 0.0, "what if"), source.history.fork())
            twin.wanted = setting
            self._heed(twin)
            self.runs = [*self.runs, twin]
            self._version += 1
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
                self._heed(self.runs[0])
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
            placed, run.wanted = self.chunks.place(trainer.config), read_setting(trainer)
            run.point = Point(_on_device(here), run.point.carry, trainer.config, placed, run.wanted, run.marks)
        self.chunks.key = trainer.key
        self.failure = self._owed = None
        self.running = True
        self._ticket += 1
        return self._ticket

    def _background(self, ticket: int, steps: int | None, previous: threading.Thread | None) -> None:
        if previous is not None:
            previous.join()
        try:
            self._warm_up()
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


def _on_device(state: Any) -> Any:
    """With the step as an array, as every later state has it."""
    return state._replace(step=jnp.asarray(state.step))


@atexit.register
def _stop_all() -> None:
    """A thread inside of compiled code must not outlive the interpreter."""
    for engine in list(_engines):
        engine.close()
