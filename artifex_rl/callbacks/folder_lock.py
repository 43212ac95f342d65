"""One writer a folder: a lock that the operating system takes back when its process ends, however it ends."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import weakref
from datetime import UTC, datetime
from pathlib import Path


class FolderLock:
    """Holds `.lock` of a folder from `acquire` to `release`, or until the object or the process is gone.

    Nothing has to be cleaned up after a process that was killed: its lock is free, and the text in the file, which
    says whose it was, is written over. A child that is forked does not hold it.
    """

    def __init__(self, folder: Path):
        self.path = folder / ".lock"
        self._close: weakref.finalize | None = None

    @property
    def held(self) -> bool:
        """Whether this object holds the lock."""
        return self._close is not None and self._close.alive

    def acquire(self) -> None:
        """Take the lock, at once or not at all.

        Raises:
            BlockingIOError: another holds it; the message says who.
        """
        if self.held:
            return
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _sign(descriptor)
        except BlockingIOError:
            whose = os.pread(descriptor, 200, 0).decode(errors="replace") or "another process"
            os.close(descriptor)
            raise BlockingIOError(
                f"dirpath: {self.path.parent} is in use by {whose}{_ours(whose)}; needs a folder for each run"
            ) from None
        except BaseException:
            os.close(descriptor)
            raise
        self._close = weakref.finalize(self, _close, descriptor)
        _HELD[descriptor] = self._close

    def release(self) -> None:
        """Give the lock back, if it is held."""
        if self._close is not None:
            self._close()


def _sign(descriptor: int) -> None:
    """Write into the file who holds it. On a full disk it stays empty: the lock is the flock, this is a courtesy."""
    os.ftruncate(descriptor, 0)
    now = datetime.now(UTC).isoformat(" ", "seconds")
    with contextlib.suppress(OSError):
        os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}, since {now}".encode(), 0)


#: What a forked child has to close: a lock lasts as long as anybody has its file open.
_HELD: dict[int, weakref.finalize] = {}


def _close(descriptor: int) -> None:
    _HELD.pop(descriptor, None)
    fcntl.flock(descriptor, fcntl.LOCK_UN)  # at once: a child that was forked just now has not closed its copy yet
    os.close(descriptor)


def _close_in_child() -> None:
    for descriptor, close in list(_HELD.items()):
        close.detach()
        os.close(descriptor)  # without the unlocking, which would be its parent's, too
    _HELD.clear()


os.register_at_fork(after_in_child=_close_in_child)


def _ours(whose: str) -> str:
    if not whose.startswith(f"process {os.getpid()} on {socket.gethostname()},"):
        return ""
    return ", which is this one: another ModelCheckpoint writes there, whose on_train_end(trainer) was not called"
