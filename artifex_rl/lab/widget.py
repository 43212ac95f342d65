"""What the lab's widgets have in common: the page is heard while a cell runs."""

from __future__ import annotations

import anywidget


class LabWidget(anywidget.AnyWidget):
    """An anywidget whose page is answered by its own thread, JupyterLab's subshell, whoever spoke to it last.

    ipykernel ≥ 7.3 brings what the page says to the thread that last sent something, if it was a thread of Python's:
    to the main one, as it seems, which a running cell keeps busy until it ends.
    """

    def _send(self, msg, buffers=None):
        super()._send(msg, buffers)
        getattr(self.comm, "__dict__", {}).pop("_reply_subshell_id", None)
