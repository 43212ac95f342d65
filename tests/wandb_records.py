"""Reads what an offline run of W&B left on disk: a log of LevelDB's format, of protocol buffers."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path

import wandb
from wandb.proto import wandb_internal_pb2

BLOCK = 32768
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def read_records(path: Path) -> list:
    """All records of a `.wandb` file, their checksums verified."""
    data = path.read_bytes()
    assert data[:4] == b":W&B"
    records, parts, at = [], b"", 7
    while at < len(data):
        if BLOCK - at % BLOCK < 7:  # too little for a header: padding
            at += BLOCK - at % BLOCK
            continue
        checksum, length, kind = struct.unpack("<IHB", data[at : at + 7])
        if kind == 0:  # the rest of the block is empty
            at += BLOCK - at % BLOCK
            continue
        body = data[at + 7 : at + 7 + length]
        assert zlib.crc32(bytes([kind]) + body) == checksum
        at += 7 + length
        parts += body
        if kind in (FULL, LAST):
            records.append(wandb_internal_pb2.Record.FromString(parts))
            parts = b""
    return records


def read_run(folder: Path) -> dict:
    """A run: its settings, its rows of history (a dictionary each), and the exit code."""
    (path,) = folder.glob("*.wandb")
    run, rows, exit_code = None, [], None
    for record in read_records(path):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            run = record.run
        elif kind == "history":
            row = {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
            rows.append(row | {"_step": record.history.step.num})
        elif kind == "exit":
            exit_code = record.exit.exit_code
    config = {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in run.config.update}
    return {"run": run, "config": config, "rows": rows, "exit_code": exit_code}


def offline_runs(folder: Path) -> list[dict]:
    """The offline runs in a folder `wandb`, in the order in which they began; whatever still writes is ended."""
    wandb.teardown()
    found = [read_run(path) for path in (folder / "wandb").glob("offline-run-*")]
    return sorted(found, key=lambda run: run["run"].start_time.ToNanoseconds())
