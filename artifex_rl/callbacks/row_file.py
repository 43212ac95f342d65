"""Rows of metrics in a file that survives: whole lines only, one process at a time, and none lost to a full disk."""

from __future__ import annotations

import contextlib
import csv
import errno
import io
import json
import os
from array import array
from bisect import bisect_left
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: two processes are then kept apart by nothing but whole lines
    fcntl = None

Row = tuple[int, dict[str, float]]


class RowFile:
    """A file of rows, a step and its metrics each: lines of JSON (`.jsonl`), or a table with a header (`.csv`).

    Each row is one write of one line, so that a kill leaves whole lines, but for the last perhaps. Steps go upwards.

    Args:
        path: where; its folder is made if need be.

    Raises:
        ValueError: the name ends otherwise.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        if self.path.suffix not in (".jsonl", ".csv"):
            raise ValueError(f"path: got {self.path.name!r}, needs a name that ends in .jsonl or .csv")
        self.is_table = self.path.suffix == ".csv"
        self._file: int | None = None
        self._closed: tuple[int, int] | None = None
        self._pending: list[Row] = []  # could not be written yet
        self._retry = 1  # so many must be there before it is tried again

    def open(self) -> list[Row] | None:
        """Open and lock the file, cut off a last line that was not finished, and return its rows.

        None if they are those that were in it when it was closed.

        Raises:
            OSError: it cannot be opened.
            RuntimeError: somebody else is writing it.
            ValueError: it holds something else. Nothing has changed.
        """
        with contextlib.suppress(OSError):  # what could not be written still waits
            self.close()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._lock()
        if self._identity() == self._closed:
            return None
        try:
            self._pending, self._retry = [], 1
            return self._read()
        except BaseException:
            self.close()
            raise

    def append(self, step: int, metrics: dict[str, float]) -> None:
        """Write a row.

        Raises:
            OSError: the disk is full, say. The row is kept, and written with a later one.
            ValueError: a metric is called "step".
        """
        if "step" in metrics:
            raise ValueError("metrics: got one called 'step', needs another name: so is the column of the steps")
        self._pending.append((step, metrics))
        if len(self._pending) >= self._retry:
            self.flush()

    def flush(self) -> None:
        """Write what is kept; an OSError if that fails once more."""
        if not self._pending:
            return
        try:
            if self.is_table and (new := {name for _, row in self._pending for name in row} - self._columns.keys()):
                self._widen([name for _, row in self._pending for name in row if name in new])
            lines = [self._line(*row) for row in self._pending]
            write_whole(self._file, b"".join(lines), self._size)
        except OSError:
            self._retry = 2 * len(self._pending)
            raise
        for (step, _), line in zip(self._pending, lines, strict=True):
            self._steps.append(step)
            self._starts.append(self._size)
            self._size += len(line)
        self._pending, self._retry = [], 1

    def cut(self, step: int) -> None:
        """Take out the rows of this step and of later ones."""
        self._pending = [row for row in self._pending if row[0] < step]
        first = bisect_left(self._steps, step)
        if first < len(self._steps):
            self._size = self._starts[first]
            os.ftruncate(self._file, self._size)
            del self._steps[first:], self._starts[first:]

    def close(self) -> None:
        """Write what is kept, if that is possible, and let others have the file."""
        if self._file is None:
            return
        try:
            self.flush()
        finally:
            self._closed = self._identity()
            os.close(self._file)
            self._file = None

    def __del__(self):
        if getattr(self, "_file", None) is not None:  # a loop by hand was interrupted: others may have the file
            os.close(self._file)

    def _identity(self) -> tuple[int, int]:
        now = os.fstat(self._file)
        return now.st_ino, now.st_size

    def _lock(self) -> int:
        while True:
            file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
            try:
                if fcntl is not None:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.samestat(os.fstat(file), os.stat(self.path)):
                    return file
            except BlockingIOError:
                os.close(file)
                raise RuntimeError(
                    f"path: {self.path} is being written by another run; needs a path of its own"
                ) from None
            except FileNotFoundError:
                pass
            except OSError:  # a file system without locks
                return file
            os.close(file)  # it was replaced in the meantime: look again

    def _read(self) -> list[Row]:
        with open(self.path, "rb") as file:
            data = file.read()
        whole = data.rfind(b"\n") + 1
        lines = data[:whole].splitlines(keepends=True)
        self._columns, self._steps, self._starts = {}, array("q"), array("q")
        self._size = 0
        rows = []
        for number, line in enumerate(lines, start=1):
            try:
                if self.is_table and number == 1:
                    first, *names = next(csv.reader([line.decode()]))
                    if first != "step":
                        raise ValueError(first)
                    self._columns = dict.fromkeys(names)
                else:
                    step, metrics = self._parse(line.decode())
                    rows.append((step, metrics))
                    self._steps.append(step)
                    self._starts.append(self._size)
            except (ValueError, TypeError, KeyError, AttributeError, StopIteration) as error:
                raise ValueError(
                    f"path: line {number} of {self.path} is {line[:40]!r}, no row of a history; needs another path"
                ) from error
            self._size += len(line)
        if whole < len(data):
            os.ftruncate(self._file, whole)
        return rows

    def _parse(self, line: str) -> Row:
        if not self.is_table:
            row = json.loads(line)
            return int(row.pop("step")), {k: float("nan") if v is None else float(v) for k, v in row.items()}
        step, *cells = next(csv.reader([line]))
        pairs = zip(self._columns, cells, strict=True)
        return int(step), {name: float(cell) for name, cell in pairs if cell}

    def _line(self, step: int, metrics: dict[str, float]) -> bytes:
        if self.is_table:
            return _table_line([step, *(repr(metrics[name]) if name in metrics else "" for name in self._columns)])
        cells = [f'"step": {step}', *(f"{json.dumps(name)}: {_number(value)}" for name, value in metrics.items())]
        return f"{{{', '.join(cells)}}}\n".encode()

    def _widen(self, names: list[str]) -> None:
        """Give the table columns that it lacks: a new file, in the place of the old one when it is complete."""
        rows, before = self._read(), self._columns
        self._columns = before | dict.fromkeys(names)
        lines = [_table_line(["step", *self._columns]), *(self._line(*row) for row in rows)]
        self._columns = before
        new = self.path.with_name(f"{self.path.name}.new")
        file = os.open(new, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_TRUNC, 0o666)
        try:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX)
            write_whole(file, b"".join(lines), 0)
            os.replace(new, self.path)
        except BaseException:
            os.close(file)
            new.unlink(missing_ok=True)
            raise
        os.close(self._file)
        self._file = file
        self._read()


def write_whole(file: int, data: bytes, size: int) -> None:
    """Write all at the end of a file of so many bytes, or nothing, and raise an OSError."""
    written = os.write(file, data)
    if written < len(data):
        os.ftruncate(file, size)
        raise OSError(errno.ENOSPC, f"only {written} of {len(data)} bytes could be written")


def _table_line(cells: list) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue().encode()


def _number(value: float) -> str:
    """As JSON: NaN is null, and infinity a number too large for a float, which every reader takes for infinity."""
    if value != value:
        return "null"
    return repr(value) if abs(value) != float("inf") else "1e999" if value > 0 else "-1e999"
