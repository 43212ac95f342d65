"""Metrics for TensorBoard."""

from __future__ import annotations

import os
import socket
import struct
import time
from typing import Any

from artifex_rl.callbacks.logger import MetricLogger
from artifex_rl.callbacks.row_file import write_whole
from artifex_rl.data.extras import require


class TensorBoardCallback(MetricLogger):
    """Writes every metric to a folder for `tensorboard --logdir`, in the format of tensorboardX.

    Each run of training begins a file and says at which step: what TensorBoard has of later steps, from a run that
    was killed, it then forgets. Each event is on disk when its step is done. The training itself writes it, and not
    a thread of tensorboardX, which would be waited for without end once the disk is full; here that is one warning.

    Args:
        log_dir: the folder; files are added to it.
        every_n_steps: which steps; validations are always written.

    Raises:
        ImportError: tensorboardX is not installed; the message has the command that installs it.
        ValueError: `every_n_steps` is less than 1.
    """

    def __init__(self, log_dir: str | os.PathLike = "logs/tensorboard", every_n_steps: int = 1):
        super().__init__(every_n_steps)
        self._proto = require("tensorboardX.proto.event_pb2", extra="tensorboard")
        self._crc32c = require("tensorboardX.crc32c", extra="tensorboard").crc32c
        self.log_dir = os.fspath(log_dir)
        self._file: int | None = None
        self._size = 0

    def open(self, trainer: Any, step: int) -> None:
        os.makedirs(self.log_dir, exist_ok=True)
        # Two runs may begin in the same second: the name says which process, and which of its runs.
        name = f"events.out.tfevents.{time.time():.0f}.{socket.gethostname()}.{os.getpid()}.{time.time_ns()}"
        path = os.path.join(self.log_dir, name)
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o666)
        self._size = 0
        self._add(self._proto.Event(file_version="brain.Event:2"))
        start = self._proto.SessionLog(status=self._proto.SessionLog.START)
        self._add(self._proto.Event(step=step, session_log=start))

    def write(self, step: int, metrics: dict[str, float]) -> None:
        event = self._proto.Event(step=step)
        for name, value in metrics.items():
            event.summary.value.add(tag=name, simple_value=value)
        self._add(event)

    def close(self, failed: bool) -> None:
        file, self._file = self._file, None
        if file is not None:
            os.close(file)

    def rewind(self, step: int) -> bool:
        return True  # the session log says so to TensorBoard

    def _add(self, event: Any) -> None:
        """Append an event as a TFRecord: its length and itself, each with a checksum."""
        event.wall_time = time.time()
        body = event.SerializeToString()
        length = struct.pack("<Q", len(body))
        record = b"".join((length, self._checksum(length), body, self._checksum(body)))
        write_whole(self._file, record, self._size)
        self._size += len(record)

    def _checksum(self, data: bytes) -> bytes:
        checksum = self._crc32c(data)
        return struct.pack("<I", ((checksum >> 15 | checksum << 17) + 0xA282EAD8) & 0xFFFFFFFF)
