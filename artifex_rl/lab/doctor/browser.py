"""Checks of the browser: ours by driving it, a learner's by a page that tries itself and says what came of it."""

from __future__ import annotations

import base64
import os
import shutil
import tempfile
import webbrowser
import zlib
from pathlib import Path

from artifex_rl.lab.doctor.finding import Finding, python_command

HERE = Path(__file__).parent
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome", "msedge")
FLAGS = ("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking")
#: Milliseconds that the page may take until it has a verdict.
PATIENCE = 15_000

HEAD = """
<style>
  .ok {{ color: light-dark(#00664b, #5fd3ae); }} .failed {{ color: light-dark(#a63c00, #ff9e66); font-weight: 600; }}
  #verdict {{ font-size: 1.2rem; font-weight: 600; }} #probe {{ position: absolute; opacity: 0; }}
</style>
<h1>Can this browser run the course?</h1>
<p id="verdict" role="status">{waiting}</p>
<ul id="checks"></ul>
<svg id="probe" viewBox="0 0 100 100" width="50" height="50" aria-hidden="true"></svg>
"""
WAITING = (
    "The page is trying. If this sentence stays, scripts do not run here: this browser, or a setting of it, blocks "
    "them, and no slider of the course would move."
)


def write_page(path: str | os.PathLike) -> Path:
    """Write one HTML page that tries, in whatever browser opens it, all that the widgets need, and says so in words.

    It holds an explorer that it drags itself, and fetches nothing.

    Args:
        path: where to; an existing file is replaced.

    Raises:
        OSError: it cannot be written there.
    """
    from artifex_rl.lab import AdvantageExplorer
    from artifex_rl.lab.page import page

    script = (HERE / "page.js").read_text("utf-8")
    packed = base64.b64encode(zlib.compress("γ and λ".encode())).decode()
    script = script.replace("DEFLATED", packed)
    body = f"{HEAD.format(waiting=WAITING)}{AdvantageExplorer().html()}\n<script>{script}</script>"
    path = Path(path)
    path.write_text(page(body, "Can this browser run the course?"), encoding="utf-8")
    return path


def find_chromium() -> str | None:
    """Where a browser is that playwright can drive: $CHROMIUM, else the first of the usual names on PATH."""
    names = (os.environ.get("CHROMIUM"), *NAMES)
    return next(filter(None, (shutil.which(name) for name in names if name)), None)


def check_browser() -> Finding:
    """With playwright and a Chromium here, the page is opened and believed; else the learner is told how to."""
    needed = "Chrome or Edge 97, Firefox 113, Safari 16.4, or later"
    remedy = f"write the page that tries it, and open it there: {page_command()}"
    chromium = find_chromium()
    try:
        from playwright.sync_api import Error, sync_playwright
    except ImportError:
        chromium = None
    if chromium is None:
        try:
            name = webbrowser.get().name
        except webbrowser.Error:
            return Finding("warning", "no browser on this machine, as on a server", needed, remedy)
        return Finding("ok", f"{name}, not tried. To try it: {page_command()}", needed)

    with tempfile.TemporaryDirectory() as folder:
        page = write_page(Path(folder, "browser.html"))
        try:
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=chromium, args=list(FLAGS))
                try:
                    version, (verdict, words) = browser.version, _read_verdict(browser, page)
                finally:
                    browser.close()
        except Error as error:
            first = str(error).strip().splitlines()[0]
            return Finding("warning", f"{chromium} could not be driven ({first})", needed, remedy)
    found = f"Chromium {version}: {words}"
    if verdict != "ok":
        return Finding("failed", found, needed, "install a newer browser; sliders do not move in this one")
    return Finding("ok", found, needed)


def page_command() -> str:
    return python_command("-m", "artifex_rl.lab.doctor", "--page", "browser.html")


def _read_verdict(browser, file: Path) -> tuple[str, str]:
    """What the page says, and what it says after a real drag with the mouse: the curve must have moved."""
    context = browser.new_context(offline=True)
    page = context.new_page()
    page.goto(file.as_uri())
    page.wait_for_function("() => document.body.dataset.verdict", timeout=PATIENCE)
    verdict, words = page.locator("body").get_attribute("data-verdict"), page.locator("#verdict").inner_text()
    if verdict != "ok":
        return verdict, words
    path = page.locator('.artifex svg [id$="-advantages"] path').first
    before, box = path.get_attribute("d"), page.locator(".artifex input[type=range]").first.bounding_box()
    y = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + 0.9 * box["width"], y)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.4 * box["width"], y, steps=5)
    page.mouse.up()
    if path.get_attribute("d") == before:
        return "failed", "the page starts, and its curve does not follow the mouse"
    return "ok", "dragged a slider, and the curve followed"
