"""JupyterLab and Chromium for tests: the real launcher, the real page."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nbformat
import nbformat.v4 as nb
import numpy as np
from playwright.sync_api import Locator, Page, sync_playwright

#: No sandbox (tests may run as root), and none of the browser's own traffic.
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
TOKEN = "test"


@contextmanager
def open_chromium(executable: str):
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def open_page(browser, width: int, height: int) -> Iterator[Page]:
    """A page that fails if a script of the project raises in it: JupyterLab loads a widget's from a blob."""
    page, errors = browser.new_page(viewport={"width": width, "height": height}), []
    page.on("pageerror", lambda error: errors.append(f"{error}\n{error.stack}"))
    try:
        yield page
    finally:
        page.close()
    assert not [error for error in errors if "artifex" in error or "blob:" in error]


@contextmanager
def open_from_disk(
    browser, file: Path, within: Path | None = None, may_ask: bool = False, **options
) -> Iterator[Page]:
    """A page opened from a file with the network cut. It must report no error, nor ask for anything elsewhere.

    Args:
        within: the folder that all it asks for is in; None for any place on the disk.
        may_ask: requests that leave the disk are refused and not counted, nor the errors that report them.
        options: of the browser's context.
    """
    context = browser.new_context(**({"viewport": {"width": 1280, "height": 900}} | options))
    context.set_offline(True)
    context.route(re.compile("^(http|ws)s?:"), lambda route: route.abort())
    asked, said = [], []
    page = context.new_page()
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
    page.goto(file.as_uri())
    try:
        yield page
    finally:
        context.close()
    assert asked[0] == file.as_uri()
    if may_ask:
        said = [line for line in said if "artifex" in line]
    else:
        inside = ("data:", "blob:", within.as_uri() if within else "file:")
        assert not [url for url in asked if not url.startswith(inside)]
    assert not said


@contextmanager
def jupyterlab(folder: Path) -> Iterator[str]:
    """The course's own launcher, `python -m artifex_rl.lab`, serving a copy of the course in `folder`/course.

    Yields the address. Its settings live in `folder`, so that nothing of the user's Jupyter is read or changed.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ARTIFEX_RL_EMBED")}
    for kind in ("CONFIG_DIR", "DATA_DIR", "RUNTIME_DIR"):
        environment[f"JUPYTER_{kind}"] = str(folder / kind.lower())
    environment["IPYTHONDIR"] = str(folder / "ipython")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = (folder / "jupyterlab.log").open("w")
    server = subprocess.Popen(
        [
            *(sys.executable, "-m", "artifex_rl.lab", "--no-browser", f"--port={port}", f"--dir={folder / 'course'}"),
            *(f"--IdentityProvider.token={TOKEN}", "--LabApp.expose_app_in_browser=True"),
        ],
        env=environment,
        stdout=log,
        stderr=subprocess.STDOUT,
    )
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(f"{address}/api?token={TOKEN}", timeout=1)
                break
            except OSError:
                if server.poll() is not None:
                    raise RuntimeError((folder / "jupyterlab.log").read_text()) from None
                time.sleep(0.1)
        yield address
    finally:
        server.terminate()
        server.wait(timeout=30)
        log.close()


def open_notebook(page: Page, address: str, name: str) -> None:
    page.goto(f"{address}/lab/tree/{name}?token={TOKEN}&reset")
    page.wait_for_function(
        """() => {
          const context = window.jupyterapp?.shell?.currentWidget?.context;
          return context?.isReady && context.sessionContext.session?.kernel?.connectionStatus === "connected";
        }""",
        timeout=60_000,
    )


def run(page: Page, command: str) -> None:
    page.evaluate("(command) => { window.jupyterapp.commands.execute(command); }", command)  # may open a dialog


def run_all(page: Page) -> None:
    """Run every cell, and return when the last one is done."""
    page.evaluate("() => window.jupyterapp.commands.execute('notebook:run-all-cells')")


def wait_until_idle(page: Page, timeout: int = 120_000) -> None:
    """Every code cell of a notebook that was stored without running has run."""
    page.wait_for_function(
        """() => {
          const model = window.jupyterapp.shell.currentWidget.content.model;
          const cells = Array.from(model.cells).filter(
            (cell) => cell.type === "code" && cell.sharedModel.getSource().trim());
          return cells.every((cell) => cell.executionCount !== null && cell.executionState !== "running");
        }""",
        timeout=timeout,
    )


def write_notebook(path: Path, *sources: str) -> None:
    cells = [nb.new_code_cell(source) for source in sources]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}  # else JupyterLab asks for one
    nbformat.write(nb.new_notebook(cells=cells, metadata={"kernelspec": kernel}), path)


def explorers(page: Page) -> Locator:
    return page.locator(".artifex")


def slider(explorer: Locator, index: int) -> Locator:
    return explorer.locator("input[type=range]").nth(index)


def knobs(explorer: Locator) -> dict[str, float]:
    """The setting of the frame that is on the page; nothing before the first one."""
    return json.loads(explorer.locator("svg").get_attribute("data-knobs") or "{}")


def drawn(explorer: Locator, python_explorer, name: str) -> tuple[np.ndarray, float]:
    """Data heights of a curve, read from the path that is on the page; and how much data one point is."""
    path = explorer.locator(f'svg [id$="-{name}"] path').first.get_attribute("d")
    points = np.array([pair.split() for pair in path.replace("M", "L").split("L")[1:]], float)
    curve = next(curve for curve in python_explorer._figure["curves"] if curve["name"] == name)
    slope, offset = curve["data"]["y"]
    return points[:, 1] * slope + offset, abs(slope)


def assert_shows(explorer: Locator, python_explorer, **expected: float) -> None:
    """The page reaches this setting, and every curve over a fixed x is, to half a unit, what the library computes."""
    page = explorer.page
    for _ in range(100):
        if knobs(explorer) == {**python_explorer.knobs, **expected}:
            break
        page.wait_for_timeout(50)
    assert knobs(explorer) == {**python_explorer.knobs, **expected}
    python_explorer.set(**expected)
    curves = python_explorer.curves()
    for curve in python_explorer._figure["curves"]:
        if curve["data"]:
            heights, one_point = drawn(explorer, python_explorer, curve["name"])
            np.testing.assert_allclose(heights, curves[curve["name"]], rtol=0, atol=0.03 * one_point)
    assert explorer.locator(".summary").inner_text() == python_explorer.summary()
    assert explorer.locator("svg").get_attribute("aria-label") == python_explorer.summary()


def drag(page: Page, handle: Locator, start: float, end: float, steps: int = 20) -> None:
    """Drag along a slider's track with the mouse, from one fraction of its width to another."""
    handle.scroll_into_view_if_needed()
    box = handle.bounding_box()
    x = [box["x"] + 8 + (box["width"] - 16) * fraction for fraction in (start, end)]
    y = box["y"] + box["height"] / 2
    page.mouse.move(x[0], y)
    page.mouse.down()
    for i in range(1, steps + 1):
        page.mouse.move(x[0] + (x[1] - x[0]) * i / steps, y)
    page.mouse.up()


def said_by_the_kernel(page, code):
    """What this code prints in the kernel of the open notebook, beside its cells."""
    return page.evaluate(
        """(code) => new Promise((resolve) => {
          const { kernel } = window.jupyterapp.shell.currentWidget.context.sessionContext.session;
          kernel.requestExecute({ code }).onIOPub = ({ content }) => { if (content.text) resolve(content.text); };
        })""",
        code,
    ).strip()


class Overlooked:
    """A kernel overlooks a message until the page sends another one, as ipython/ipykernel#1554 reports: here the
    server does, with those that `what` matches, from the moment when `armed` is set."""

    def __init__(self, page, what):
        self.armed, self.count, self.held = False, 0, []
        page.route_web_socket(re.compile("/channels"), lambda socket: self._connect(socket, re.compile(what)))

    def _connect(self, socket, what):
        server = socket.connect_to_server()

        def pass_on(message):
            due, self.held = self.held, []
            text = message if isinstance(message, str) else message.decode("utf-8", "ignore")
            if self.armed and not due and what.search(text):
                self.armed, self.count, self.held = False, self.count + 1, [message]
                return
            for each in (*due, message):
                server.send(each)

        socket.on_message(pass_on)
