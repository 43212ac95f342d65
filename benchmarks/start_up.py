"""What one person of a class costs: seconds to a kernel and to its first explorer, and memory.

The numbers behind the limits in docs/workshop/binder_and_jupyterhub.md. Every notebook runs as a learner runs it,
cell by cell in a fresh kernel and with no compilation kept from before; memory is what Linux says of its process.

    python benchmarks/start_up.py               # all notebooks, a quarter of an hour
    python benchmarks/start_up.py 00 01 04      # some of them
    python benchmarks/start_up.py --server      # JupyterLab alone
"""

import argparse
import secrets
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import NamedTuple

import nbformat
import psutil
from jupyter_client.manager import KernelManager

from artifex_rl.lab.course import find_course, find_notebook

VIEW = "application/vnd.jupyter.widget-view+json"
MEGABYTE = 2**20


class Visit(NamedTuple):
    """Seconds since the kernel was asked for, and megabytes of its process."""

    ready: float  # s, the kernel answers
    explorer: float  # s, the first widget is shown
    whole: float  # s, the last cell has run
    ready_memory: float  # MB, as soon as it answers
    explorer_memory: float  # MB, as soon as an explorer is shown
    peak_memory: float  # MB, the most it ever had
    end_memory: float  # MB, after the last cell


def visit(notebook: Path) -> Visit:
    """Run a notebook from the first cell to the last.

    Raises:
        RuntimeError: a cell raised that is not meant to, or no cell showed a widget.
    """
    start = time.perf_counter()
    manager = KernelManager(kernel_name="python3")
    manager.start_kernel(cwd=str(notebook.parent), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    client = manager.client()
    client.start_channels()
    shown: list[tuple[float, float]] = []

    def hear(message: dict) -> None:
        if VIEW in message["content"].get("data", {}) and not shown:
            shown.append((time.perf_counter() - start, _memory(pid, "VmRSS")))

    try:
        client.wait_for_ready(timeout=60)
        pid = manager.provisioner.pid
        ready, ready_memory = time.perf_counter() - start, _memory(pid, "VmRSS")
        for cell in nbformat.read(notebook, 4).cells:
            if cell.cell_type != "code":
                continue
            reply = client.execute_interactive(cell.source, timeout=300, output_hook=hear, allow_stdin=False)
            if reply["content"]["status"] != "ok" and "raises-exception" not in cell.metadata.get("tags", []):
                raise RuntimeError(f"{notebook.name}: {reply['content']['ename']}: {reply['content']['evalue']}")
        whole = time.perf_counter() - start
        if not shown:
            raise RuntimeError(f"{notebook.name}: no cell showed a widget")
        most, last = _memory(pid, "VmHWM"), _memory(pid, "VmRSS")
        return Visit(ready, shown[0][0], whole, ready_memory, shown[0][1], most, last)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def _memory(pid: int, field: str) -> float:
    """Megabytes: VmRSS is what the process has now, VmHWM the most that it ever had."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024 / MEGABYTE
    raise RuntimeError(f"/proc/{pid}/status has no {field}; this needs Linux")


def serve(idle: float = 10.0) -> tuple[float, float]:
    """Seconds until JupyterLab hands out its page, and the megabytes of its processes after some seconds at rest."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token = secrets.token_hex(16)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"]
        options = [f"--ServerApp.{name}" for name in (f"port={port}", f"root_dir={folder}")]
        options.append(f"--IdentityProvider.token={token}")
        start = time.perf_counter()
        server = subprocess.Popen([*command, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            while True:
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/lab?token={token}", timeout=5).read()
                    break
                except OSError:
                    if server.poll() is not None or time.perf_counter() - start > 60:
                        raise RuntimeError("JupyterLab did not start") from None
                    time.sleep(0.05)
            seconds = time.perf_counter() - start
            time.sleep(idle)
            process = psutil.Process(server.pid)
            processes = [process, *process.children(recursive=True)]
            return seconds, sum(one.memory_info().rss for one in processes) / MEGABYTE
        finally:
            server.terminate()
            server.wait(timeout=30)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebooks", nargs="*", help="00, 01, …; all by default")
    parser.add_argument("--server", action="store_true", help="JupyterLab alone")
    options = parser.parse_args()
    seconds, megabytes = serve()
    print(f"JupyterLab: its page after {seconds:.1f} s, {megabytes:.0f} MB at rest\n", flush=True)
    if options.server:
        return
    course, _ = find_course()
    files = [find_notebook(course, name) for name in options.notebooks] or sorted(course.glob("*.ipynb"))
    print("| notebook | kernel ready, s | first explorer, s | all cells, s |", end="")
    print(" ready, MB | with an explorer, MB | peak, MB | at the end, MB |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    for file in files:
        numbers = visit(file)
        cells = [f"{value:.1f}" for value in numbers[:2]] + [f"{value:.0f}" for value in numbers[2:]]
        print(f"| {file.stem[:2]} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
