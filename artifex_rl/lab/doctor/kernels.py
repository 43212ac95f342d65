"""Checks of Jupyter: a kernel that draws an explorer, one that answers while it is busy, and a server."""

from __future__ import annotations

import json
import os
import re
import secrets
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Empty

from artifex_rl.lab.doctor.finding import Finding, pip_command, python_command
from artifex_rl.lab.doctor.machine import specified

KERNEL = "python3"
VIEW = "application/vnd.jupyter.widget-view+json"
#: Seconds that a kernel or a server may take before it counts as dead, and after which a class would wait for it.
DEAD, SLOW = 30, 15
CELL = "from artifex_rl.lab import AdvantageExplorer\nAdvantageExplorer()"
#: JupyterLab's extensions without which no explorer is drawn.
EXTENSIONS = {"anywidget": "anywidget", "@jupyter-widgets/jupyterlab-manager": "jupyterlab_widgets"}
PORTS = range(8888, 8939)  # Jupyter tries its own, and then fifty more


@contextmanager
def running_kernel(timeout: float = DEAD) -> Iterator:
    """A blocking client of a fresh kernel, started as Jupyter starts it.

    Raises:
        jupyter_client.kernelspec.NoSuchKernel: none is installed.
        RuntimeError: it did not answer in time, or died.
    """
    from jupyter_client.manager import KernelManager

    manager = KernelManager(kernel_name=KERNEL)
    manager.start_kernel(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=timeout)
        yield client
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
        manager.cleanup_resources()


def run_cell(client, source: str, timeout: float = DEAD) -> dict:
    """The data of the cell's result, by MIME type; nothing if it has none.

    Raises:
        RuntimeError: the cell raised, or took longer than `timeout` seconds.
    """
    data: dict = {}

    def read(message: dict) -> None:
        content = message["content"]
        if message["msg_type"] in ("execute_result", "display_data"):
            data.update(content["data"])

    try:
        reply = client.execute_interactive(source, timeout=timeout, output_hook=read, allow_stdin=False)["content"]
    except TimeoutError:
        raise RuntimeError(f"no answer within {timeout:.0f} s") from None
    if reply["status"] != "ok":
        raise RuntimeError(f"{reply['ename']}: {reply['evalue']}")
    return data


def register_command() -> str:
    return python_command("-m", "ipykernel", "install", "--sys-prefix", "--name", KERNEL)


def check_kernel() -> Finding:
    """As a notebook does it: start, run the first cell of the course, get a widget back."""
    from jupyter_client.kernelspec import NoSuchKernel

    needed = f"this Python's kernel, an explorer within {SLOW} s"
    start = time.perf_counter()
    try:
        with running_kernel() as client:
            ready = time.perf_counter() - start
            run_cell(client, "import sys")
            prefix = run_cell(client, "sys.prefix").get("text/plain", "").strip("'\"")
            if Path(prefix).resolve() != Path(sys.prefix).resolve():
                return Finding("failed", f"“{KERNEL}” runs the Python of {prefix}", needed, register_command())
            data = run_cell(client, CELL)
    except NoSuchKernel:
        return Finding("failed", f"no kernel is called “{KERNEL}”", needed, register_command())
    except RuntimeError as error:
        return Finding("failed", str(error), needed, f"read what it says: {python_command('-c', CELL)}")
    seconds = time.perf_counter() - start
    if VIEW not in data:
        kinds = ", ".join(sorted(data)) or "nothing"
        return Finding(
            "failed",
            f"the explorer came back as {kinds}, without a widget",
            needed,
            f"unset ARTIFEX_RL_EMBED; {pip_command('anywidget', 'ipywidgets')}",
        )
    found = f"ready after {ready:.1f} s, an explorer after {seconds:.1f} s"
    if seconds > SLOW:
        return Finding("warning", found, needed, "run the first cell before the class comes; close other programs")
    return Finding("ok", found, needed)


def check_subshells() -> Finding:
    """Sliders of live panels are answered beside a cell that runs, if the kernel has subshells (JEP 91)."""
    from importlib.metadata import version

    found = f"ipykernel {version('ipykernel')}, jupyterlab {version('jupyterlab')}"
    needed = "answers while a cell runs, for live panels"
    try:
        with running_kernel() as client:
            client.execute("import time; time.sleep(60)")
            answered = _answers_beside(client, timeout=5)
    except RuntimeError as error:
        return Finding("failed", str(error), needed, "see the check “kernel”")
    if not answered:
        return Finding(
            "warning",
            f"{found}: sliders of a live panel wait until the cell ends",
            needed,
            pip_command(*specified(["ipykernel", "jupyterlab"])),
        )
    return Finding("ok", f"{found}: answers beside a cell that runs", needed)


def _answers_beside(client, timeout: float) -> bool:
    """Whether a subshell can be had, and computes while the main shell is asleep."""
    until = time.monotonic() + timeout

    def reply(channel, message) -> dict:
        while time.monotonic() < until:
            try:
                answer = channel.get_msg(timeout=max(until - time.monotonic(), 0.01))
            except Empty:
                break
            if answer["parent_header"].get("msg_id") == message["header"]["msg_id"]:
                return answer["content"]
        return {}

    message = client.session.msg("create_subshell_request", {})
    client.control_channel.send(message)
    subshell = reply(client.control_channel, message).get("subshell_id")
    if not subshell:
        return False
    message = client.session.msg("execute_request", {"code": "1 + 1", "silent": True})
    message["header"]["subshell_id"] = subshell
    client.shell_channel.send(message)
    return reply(client.shell_channel, message).get("status") == "ok"


def free_port(ports: range = PORTS) -> int | None:
    """The first of these ports that can be opened on this machine."""
    for port in ports:
        with socket.socket() as one:
            if os.name != "nt":  # there it would let two programs have one port
                one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                one.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    return None


def check_server() -> Finding:
    """JupyterLab itself, in an empty folder: it opens a port, serves its page, and knows how to draw widgets."""
    needed = f"a port, JupyterLab within {SLOW} s, {' and '.join(EXTENSIONS)} in it"
    port = free_port()
    if port is None:
        return Finding(
            "failed",
            f"none of the ports {PORTS.start} to {PORTS.stop - 1} can be opened",
            needed,
            "python -m artifex_rl.lab --port=9999, or end other servers: jupyter server list",
        )
    start = time.perf_counter()
    try:
        page = _serve(port)
    except RuntimeError as error:
        return Finding("failed", str(error), needed, f"read what it says: {python_command('-m', 'jupyterlab')}")
    seconds = time.perf_counter() - start
    config = json.loads(re.search(r'(?s)id="jupyter-config-data"[^>]*>(.*?)</script>', page)[1])
    there = {extension["name"] for extension in config["federated_extensions"]}
    absent = [name for name in EXTENSIONS if name not in there]
    if absent:
        return Finding(
            "failed",
            f"JupyterLab lacks {' and '.join(absent)}: sliders would not be drawn",
            needed,
            pip_command("--force-reinstall", *(EXTENSIONS[name] for name in absent)),
        )
    found = f"port {port}, JupyterLab {config['appVersion']} after {seconds:.1f} s, its extensions found"
    if seconds > SLOW:
        return Finding("warning", found, needed, "start it before the class comes; close other programs")
    return Finding("ok", found, needed)


def _serve(port: int) -> str:
    """Start JupyterLab on a port, fetch its page, and end it.

    Raises:
        RuntimeError: it ended by itself, or did not answer in time.
    """
    token = secrets.token_hex(16)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        log = Path(folder, "log")
        command = [
            *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--ServerApp.port={port}"),
            *("--ServerApp.ip=127.0.0.1", "--ServerApp.port_retries=0", f"--ServerApp.root_dir={folder}"),
            *("--ServerApp.base_url=/", f"--IdentityProvider.token={token}"),
        ]
        with log.open("w") as file:
            server = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
        try:
            until = time.monotonic() + DEAD
            direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a proxy knows no 127.0.0.1
            while time.monotonic() < until and server.poll() is None:
                try:
                    with direct.open(f"http://127.0.0.1:{port}/lab?token={token}", timeout=5) as answer:
                        return answer.read().decode()
                except urllib.error.HTTPError as error:
                    raise RuntimeError(f"JupyterLab answers {error.code} {error.reason}") from None
                except OSError:
                    time.sleep(0.1)
            said = log.read_text(errors="replace").strip().splitlines()[-1:]
            ended = "JupyterLab ended" if server.poll() is not None else f"JupyterLab did not answer in {DEAD} s"
            raise RuntimeError(": ".join([ended, *said]))
        finally:
            server.terminate()
            try:
                server.wait(timeout=10)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()
