"""How soon the picture follows the hand: an explorer beside `ipywidgets.interact`, on the same figure.

In real JupyterLab in real Chromium, one after the other in one run: the explorer with a live kernel; interact with
inline matplotlib; notebook 00 as it is opened, nothing run; a static page, no kernel at all.

    python benchmarks/widget_latency.py [--presses 70] [--seconds 3]

A key press is timed from the key's own event to the first frame painted with another picture. In the drag the mouse
moves sixty times a second, whether the page keeps up or not; counted are the slider's events, and the frames in which
another picture was painted. Last, a slider is released and the other one is clicked at once, when no strip for it is
in the page yet.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from browser import jupyterlab, open_chromium, open_notebook, run, wait_until_idle, write_notebook
from conftest import NO_CHROMIUM, chromium_path
from playwright.sync_api import Locator, Page

from artifex_rl.lab import AdvantageExplorer

MOST_P95 = 20  # ms from key to picture
LEAST_RATE = 40  # frames per second in the drag
MOST_AFTER = 50  # ms: three frames; later than that, something was queued

EXPLORER = "from artifex_rl.lab import AdvantageExplorer\nAdvantageExplorer()"

# What a teacher would write without the explorer: the same curves, the same two axes, the same stops.
INTERACT = """\
%matplotlib inline
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from ipywidgets import FloatSlider, interact
from artifex_rl import compute_gae_advantages
from artifex_rl.data import load_cartpole_rollout

rollout = load_cartpole_rollout()
steps, ahead = len(rollout.rewards), 100
impulse = jnp.zeros(ahead + 1).at[-1].set(1.0)


@jax.jit
def curves(gamma, gae_lambda):
    def advantages(trace):
        return compute_gae_advantages(
            rollout.rewards, rollout.values, rollout.dones, gamma, trace,
            truncations=rollout.truncations, next_values=rollout.next_values,
        )

    fade = compute_gae_advantages(impulse, jnp.zeros_like(impulse), impulse.astype(bool), gamma, gae_lambda)
    return advantages(1.0), advantages(0.0), advantages(gae_lambda), fade[::-1]


def draw(gamma, gae_lambda):
    monte_carlo, td_errors, advantages, fade = curves(gamma, gae_lambda)
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.6, 3.6), width_ratios=(3, 1), layout="constrained")
    left.plot(monte_carlo, label="Monte Carlo, λ=1")
    left.plot(td_errors, label="TD error, λ=0")
    left.plot(advantages, label="advantage", lw=2.4)
    left.set(xlim=(0, steps - 1), ylim=LIMITS, xlabel="time step")
    left.set_title("Was the action better than the critic expected?")
    left.legend(loc="upper left", ncols=3)
    left.grid(True)
    right.plot(np.arange(ahead + 1), fade)
    right.set(xlim=(0, ahead), ylim=(0, 1.03), xlabel="k, steps ahead")
    right.grid(True)
    plt.show()


interact(
    draw,
    gamma=FloatSlider(value=0.99, min=0, max=1, step=0.01),
    gae_lambda=FloatSlider(value=0.95, min=0, max=1, step=0.01),
);
"""

# Watches one figure from inside the page. A frame counts once however many events it answers.
PROBE = """(root, picture) => {
  const path = root.querySelector('[id$="-advantages"] path');
  const read = () => (picture ? root.querySelector("img")?.src : path.getAttribute("d"));
  const probe = (window.probe = { shown: read(), key: 0, delays: [], inputs: 0, frames: [], down: 0, up: 0 });
  const painted = (then) => requestAnimationFrame((frame) => {
    const channel = new MessageChannel(); // its message is handled once this frame has been produced
    channel.port1.onmessage = () => then(frame, performance.now());
    channel.port2.postMessage(0);
  });
  new MutationObserver(() => {
    const shows = read();
    if (!shows || shows === probe.shown) return;
    probe.shown = shows;
    painted((frame, time) => {
      if (probe.frames.at(-1)?.frame !== frame) probe.frames.push({ frame, time });
      if (probe.key) probe.delays.push(time - probe.key);
      probe.key = 0;
    });
  }).observe(root, { subtree: true, childList: true, attributes: true, attributeFilter: ["d", "src"] });

  const listen = (kind, listener) => window.addEventListener(kind, listener, true);
  listen("keydown", (event) => { probe.key = event.timeStamp; });
  listen("pointerdown", (event) => { probe.down = event.timeStamp; });
  listen("pointerup", (event) => { probe.up = event.timeStamp; });
  listen("input", () => { probe.inputs++; });
  for (const handle of root.querySelectorAll(".noUi-handle")) { // these fire no DOM event when their value changes
    let value = handle.getAttribute("aria-valuetext");
    new MutationObserver(() => {
      if (handle.getAttribute("aria-valuetext") !== value) probe.inputs++;
      value = handle.getAttribute("aria-valuetext");
    }).observe(handle, { attributes: true, attributeFilter: ["aria-valuetext"] });
  }
}"""


@dataclass
class Result:
    """All times in milliseconds."""

    name: str
    delays: list[float]
    events: int
    frames: int
    rate: float
    after: float
    others: list[float]

    def row(self) -> str:
        p50, p95 = statistics.median(self.delays), percentile(self.delays, 95)
        others = f"{statistics.median(self.others):.0f} / {max(self.others):.0f}"
        return (
            f"| {self.name} | {p50:.1f} | {p95:.1f} | {self.events} | {self.frames} | {self.rate:.1f} "
            f"| {self.after:.0f} | {others} |"
        )

    def verdict(self) -> str:
        """Against the targets, in words."""
        p95 = percentile(self.delays, 95)
        checks = {
            f"p95 {p95:.1f} ms (at most {MOST_P95})": p95 <= MOST_P95,
            f"{self.rate:.1f} frames a second, {self.frames} frames for {self.events} events "
            f"(at least {LEAST_RATE}, or every event)": self.rate >= LEAST_RATE or self.frames >= self.events,
            f"last frame {self.after:.0f} ms after release (at most {MOST_AFTER})": self.after <= MOST_AFTER,
        }
        return f"- {self.name}: " + "; ".join(f"{text} {'✓' if met else '✗ MISSED'}" for text, met in checks.items())


def percentile(values: list[float], percent: int) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


class Hand:
    """Works the two sliders of one figure; the probe in the page keeps the times."""

    def __init__(self, page: Page, root: Locator, picture: bool):
        root.scroll_into_view_if_needed()
        self.page, self.picture = page, picture
        root.evaluate(PROBE, picture)
        self.tracks = root.locator(".noUi-base" if picture else "input[type=range]")
        self.handles = root.locator(".noUi-handle") if picture else self.tracks

    def at(self, index: int, fraction: float) -> tuple[float, float]:
        """Where on the screen a slider's track has this fraction."""
        box = self.tracks.nth(index).bounding_box()
        thumb = 0 if self.picture else 8  # a native thumb stays within the track
        return box["x"] + thumb + (box["width"] - 2 * thumb) * fraction, box["y"] + box["height"] / 2

    def stands(self, index: int) -> float:
        """Where the slider's thumb is, as a fraction of its track."""
        handle = self.handles.nth(index)
        return float(handle.get_attribute("aria-valuetext") if self.picture else handle.input_value()) / (
            1 if self.picture else float(handle.get_attribute("max"))
        )

    def click(self, index: int, fraction: float) -> None:
        self.page.mouse.move(*self.at(index, fraction))
        self.page.mouse.down()
        self.page.mouse.up()

    def wait_until_quiet(self, seconds: float) -> None:
        """No new picture for this long."""
        while True:
            self.page.wait_for_timeout(1000 * seconds)
            if self.page.evaluate("performance.now() - (probe.frames.at(-1)?.time ?? 0)") >= 1000 * seconds:
                return

    def press(self, presses: int) -> list[float]:
        """Delays of key presses, each after the one before has been answered."""
        self.handles.first.focus()
        for i in range(-4, presses):  # the first four warm up
            if i == 0:
                self.page.evaluate("probe.delays.length = 0")
            self.page.keyboard.press("ArrowLeft" if i < presses // 2 else "ArrowRight")
            for _ in range(500):
                # Not in step with the screen: a hand presses at any moment between two frames.
                self.page.wait_for_timeout(41 + 7 * (i % 5))
                if not self.page.evaluate("probe.key"):
                    break
            else:
                raise TimeoutError(f"key press {i} changed nothing in the picture")
        delays = self.page.evaluate("probe.delays")
        assert len(delays) == presses, (len(delays), presses)
        return delays

    def move(self, index: int, fraction: Callable[[float], float], seconds: float) -> None:
        """Take a slider by its thumb, move the mouse sixty times a second, release."""
        self.page.mouse.move(*self.at(index, self.stands(index)))
        self.page.mouse.down()
        places = [self.at(index, fraction(i / 60)) for i in range(1, round(60 * seconds) + 1)]
        self.page._sync(self._trace(places))
        self.page.mouse.up()

    async def _trace(self, places: list[tuple[float, float]]) -> None:
        # Playwright's own calls wait until the page has handled each move, so that a slow page would slow the hand
        # down; these wait at the end. Its public way to that is the asynchronous face, which the helpers do not have.
        mouse, start, moves = self.page.mouse._impl_obj, time.perf_counter(), []
        for i, place in enumerate(places):
            await asyncio.sleep(max(0.0, start + i / 60 - time.perf_counter()))
            moves.append(asyncio.ensure_future(mouse.move(*place, steps=1)))
        await asyncio.gather(*moves)

    def drag(self, seconds: float) -> dict[str, float]:
        """A drag to and fro, more than one stop a move, so that every move is a new value."""
        self.wait_until_quiet(1)
        self.click(0, 0.9)
        self.wait_until_quiet(1.5)
        self.page.evaluate("probe.inputs = probe.frames.length = 0")
        self.move(0, lambda t: 0.9 - 0.8 * abs((t + 1) % 2 - 1), seconds)
        self.wait_until_quiet(2)
        seen = self.page.evaluate("({ ...probe, shown: null })")
        times = [frame["time"] for frame in seen["frames"]]
        held = (seen["up"] - seen["down"]) / 1000
        return {
            "events": seen["inputs"],
            "frames": len(times),
            "rate": sum(t <= seen["up"] + 17 for t in times) / held,  # the frame of the last event is drawn after it
            "after": max(0.0, times[-1] - seen["up"]),
        }

    def take_the_other(self, repeats: int = 12) -> list[float]:
        """Milliseconds from the click on the other slider to the last new picture: the one for that click."""
        delays = []
        for i in range(repeats):
            first, second = i % 2, 1 - i % 2
            start, end = self.stands(first), 0.25 if self.stands(first) > 0.5 else 0.75
            there = (0.2 if self.stands(second) > 0.5 else 0.7) + 0.01 * i
            self.move(first, lambda t, start=start, end=end: start + (end - start) * t / 0.2, 0.2)
            self.click(second, there)
            self.page.wait_for_function("probe.frames.at(-1)?.time > probe.down", polling=100)
            self.wait_until_quiet(1.5)
            delays.append(self.page.evaluate("probe.frames.at(-1).time - probe.down"))
        return delays


def measure(name: str, page: Page, root: Locator, presses: int, seconds: float, picture: bool = False) -> Result:
    print(f"  {name}", file=sys.stderr, flush=True)
    root.wait_for(timeout=60_000)
    page.wait_for_timeout(3000)  # whatever the page still loads
    hand = Hand(page, root, picture)
    return Result(name, hand.press(presses), **hand.drag(seconds), others=hand.take_the_other())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--presses", type=int, default=70)
    parser.add_argument("--seconds", type=float, default=3.0)
    options = parser.parse_args()
    executable = chromium_path() or sys.exit(NO_CHROMIUM)
    load = os.getloadavg()[0]
    size = (options.presses, options.seconds)

    with tempfile.TemporaryDirectory() as name, open_chromium(executable) as browser:
        folder = Path(name)
        explorer = AdvantageExplorer()
        static = explorer.save_html(folder / "page.html")
        low, high = (
            min(c.min() for c in explorer.curves().values()),
            max(c.max() for c in explorer.curves().values()),
        )

        def fresh() -> Page:
            return browser.new_page(viewport={"width": 1280, "height": 900})

        with jupyterlab(folder) as address:
            write_notebook(folder / "course" / "explorer.ipynb", EXPLORER)
            write_notebook(
                folder / "course" / "interact.ipynb", INTERACT.replace("LIMITS", f"({low:.0f}, {high:.0f})")
            )

            def live(notebook: str) -> Page:
                page = fresh()
                open_notebook(page, address, notebook)
                run(page, "notebook:run-all-cells")
                wait_until_idle(page)
                return page

            page = live("explorer.ipynb")
            results = [measure("explorer, live kernel", page, page.locator(".artifex"), *size)]
            page.close()
            page = live("interact.ipynb")
            root = page.locator(".widget-interact")
            results.append(measure("`interact` + inline matplotlib", page, root, *size, picture=True))
            page.close()
            page = fresh()
            open_notebook(page, address, "00_start_here.ipynb")
            root = page.locator(".artifex").first
            results.append(measure("explorer, notebook opened, nothing run", page, root, *size))
            page.close()
        page = fresh()
        page.goto(static.as_uri())
        results.append(measure("explorer, static page", page, page.locator(".artifex"), *size))
        chromium = browser.version

    print(
        "| AdvantageExplorer's figure | key to picture, p50 ms | p95 ms "
        f"| events in a {options.seconds:g}-second drag | frames drawn | frames/s | last frame after release, ms "
        "| other slider at once, median / worst ms |\n|---|---|---|---|---|---|---|---|"
    )
    for result in results:
        print(result.row())
    versions = ", ".join(f"{name} {version(name)}" for name in ("jupyterlab", "ipykernel", "ipywidgets"))
    print(
        f"\n{options.presses} key presses; {os.cpu_count()} cores shared by server, kernel and browser, load "
        f"{load:.1f} at the start;\nChromium {chromium}, headless, no GPU; {versions}; Python "
        f"{sys.version.split()[0]}.\n"
    )
    for result in results:
        if result.name.startswith("explorer"):
            print(result.verdict())


if __name__ == "__main__":
    main()
