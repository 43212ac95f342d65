"""TensorBoardCallback: its event files, read back record by record as TensorBoard reads them."""

import resource
import struct
import sys

import numpy as np
import pytest
from small_runs import data, make
from tensorboardX.crc32c import crc32c
from tensorboardX.proto.event_pb2 import Event, SessionLog

from artifex_rl.callbacks import Callback, TensorBoardCallback


def masked(data):
    """TFRecord's masked checksum."""
    checksum = crc32c(data)
    return ((checksum >> 15 | checksum << 17) + 0xA282EAD8) & 0xFFFFFFFF


def read_events(path):
    """The events of a file, both checksums of each verified."""
    content, at, events = path.read_bytes(), 0, []
    while at < len(content):
        head = content[at : at + 8]
        (length,) = struct.unpack("<Q", head)
        body = content[at + 12 : at + 12 + length]
        assert struct.unpack("<I", content[at + 8 : at + 12])[0] == masked(head)
        assert struct.unpack("<I", content[at + 12 + length : at + 16 + length])[0] == masked(body)
        events.append(Event.FromString(body))
        at += 16 + length
    return events


def series(folder, tag):
    """What TensorBoard shows of a tag: what a later session begins with makes what follows be forgotten."""
    shown = {}
    for path in sorted(folder.glob("*.tfevents.*"), key=lambda path: int(path.suffix[1:])):
        first, *events = read_events(path)
        assert first.file_version == "brain.Event:2"
        for event in events:
            if event.session_log.status == SessionLog.START:
                shown = {step: value for step, value in shown.items() if step < event.step}
            for value in event.summary.value:
                if value.tag == tag:
                    shown[event.step] = value.simple_value
    return shown


def test_the_files_hold_what_was_logged_and_a_restored_run_goes_on(tmp_path):
    trainer, callback = make(), TensorBoardCallback(tmp_path / "logs")
    seen = trainer.fit(data(), 4, [callback], validation=data(4), validate_every=2)["loss"].tolist()
    early = trainer.clone()
    trainer.fit(data(), 3, [callback])
    assert series(tmp_path / "logs", "val_loss").keys() == {1, 3}
    assert series(tmp_path / "logs", "loss").keys() == set(range(7))
    seen += early.fit(data(), 2, [TensorBoardCallback(tmp_path / "logs")])["loss"].tolist()  # another process, say
    shown = series(tmp_path / "logs", "loss")
    assert list(shown) == list(range(6))
    np.testing.assert_allclose(list(shown.values()), seen, rtol=1e-7)  # written as float32
    early.fit(data(), 6, [TensorBoardCallback(tmp_path / "some", every_n_steps=4)])
    assert list(series(tmp_path / "some", "error")) == [8]


def test_what_was_seen_is_on_disk_after_an_error(tmp_path):
    class Fails(Callback):
        def on_train_batch_end(self, trainer, metrics, step):
            if step == 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make().fit(data(), 5, [TensorBoardCallback(tmp_path), Fails()])
    assert list(series(tmp_path, "loss")) == [0, 1, 2]


def test_a_full_disk_is_one_warning_and_no_hang(tmp_path):
    limits, trainer = resource.getrlimit(resource.RLIMIT_FSIZE), make()
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, limits[1]))
    try:
        with pytest.warns(UserWarning) as caught:
            trainer.fit(data(), 500, [TensorBoardCallback(tmp_path)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert len(caught) == 1 and "TensorBoardCallback: cannot write" in str(caught[0].message)
    assert trainer.step == 500


def test_a_missing_package_gives_the_command(monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "tensorboardX"]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=r"pip install 'artifex_rl\[tensorboard\]'"):
        TensorBoardCallback()
