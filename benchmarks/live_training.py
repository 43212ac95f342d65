"""What a live panel costs the training, and how often it redraws: a real page beside a bare loop of the same chunks.

In real JupyterLab in real Chromium, PPO on CartPole trains by turns in the panel, with the page open, and in a bare
loop: the same compiled chunks of the same length, whose results are waited for and thrown away. Meanwhile the page
counts the frames in which another picture was painted. Then Pause is pressed a few times, from the page.

    python benchmarks/live_training.py [--rounds 6] [--seconds 4]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from browser import jupyterlab, open_chromium, open_notebook, run, wait_until_idle, write_notebook
from conftest import NO_CHROMIUM, chromium_path
from playwright.sync_api import Page

LEAST_RATE = 20  # frames a second
MOST_RATE = 30
MOST_COST = 5.0  # percent of the training's speed
MOST_PAUSE = 100  # ms from click to a panel at rest

PANEL = """\
import json, statistics, time
import numpy as np
import optax
from flax import nnx
from artifex_rl import PPOTrainer
from artifex_rl.envs import CartPole
from artifex_rl.lab import Environment, LiveTraining
from artifex_rl.models import ActorCritic

model = ActorCritic(4, (64, 64), 2, rngs=nnx.Rngs(0))
optimizer = nnx.Optimizer(model, optax.inject_hyperparams(optax.adam)(learning_rate=2.5e-4), wrt=nnx.Param)
panel = LiveTraining(PPOTrainer(model, optimizer), Environment(CartPole(), num_steps=128, num_envs=4))
panel"""

COMPARE = """\
engine = panel._engine

def live(seconds):
    panel.start()
    time.sleep(0.3)
    steps, began, busy = panel.steps, time.perf_counter(), time.process_time()
    time.sleep(seconds)
    steps, took, busy = panel.steps - steps, time.perf_counter() - began, time.process_time() - busy
    panel.pause()
    return steps / took, 1000 * busy / steps

def bare(seconds):
    start, length, steps = panel.runs[0].point, engine._length, 0
    state, carry = start.state, start.carry
    began, busy = time.perf_counter(), time.process_time()
    while time.perf_counter() - began < seconds:
        state, carry, table = engine.chunks.advance(state, carry, start.placed, length)
        np.asarray(table)
        steps += length
    return steps / (time.perf_counter() - began), 1000 * (time.process_time() - busy) / steps

panel.run(5)  # compiles
live(2), bare(1)
pairs = []
for i in range(ROUNDS):
    both = [live, bare] if i % 2 else [bare, live]
    rates = {each.__name__: each(SECONDS) for each in both}
    pairs.append((rates["live"], rates["bare"]))
print(json.dumps({"pairs": pairs, "length": engine._length}))"""

# Counts the frames in which another picture was painted, while the panel says that it trains.
PROBE = """(root) => {
  const probe = (window.probe = { frames: [], running: [], clicked: 0, pauses: [] });
  let known = root.dataset.running, seen = 0;
  new MutationObserver(() => {
    const time = document.timeline.currentTime; // of the frame that is about to be painted
    if (time !== seen) probe.frames.push(time);
    seen = time;
  }).observe(root.querySelector("svg"), { attributes: true, attributeFilter: ["data-step"] });
  new MutationObserver(() => {
    if (root.dataset.running === known) return;
    known = root.dataset.running;
    probe.running.push([performance.now(), known === "true"]);
    if (known === "false" && probe.clicked) probe.pauses.push(performance.now() - probe.clicked);
    probe.clicked = 0;
  }).observe(root, { attributes: true, attributeFilter: ["data-running"] });
  root.querySelector("button.main").addEventListener("click", (event) => { probe.clicked = event.timeStamp; }, true);
}"""


def frame_rates(probe: dict) -> list[float]:
    """Frames a second of each stretch of training that lasted, without its first and last half second."""
    rates, began = [], None
    for time, running in probe["running"]:
        if running:
            began = time
        elif began is not None and time - began > 2000:
            inside = [frame for frame in probe["frames"] if began + 500 <= frame <= time - 500]
            rates.append(1000 * len(inside) / (time - began - 1000))
    return rates


def press_pause(page: Page, times: int) -> list[float]:
    """Milliseconds from the click on Pause until the panel in the page is at rest."""
    button = page.locator(".artifex.live button.main")
    for i in range(times):
        button.click()
        page.wait_for_function("document.querySelector('.artifex.live').dataset.running === 'true'")
        page.wait_for_timeout(600 + 37 * i)
        button.click()
        page.wait_for_function("document.querySelector('.artifex.live').dataset.running === 'false'")
        page.wait_for_timeout(300)
    return page.evaluate("probe.pauses")[-times:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=4.0)
    options = parser.parse_args()
    executable = chromium_path() or sys.exit(NO_CHROMIUM)
    load = os.getloadavg()[0]

    with tempfile.TemporaryDirectory() as name, open_chromium(executable) as browser:
        folder = Path(name)
        with jupyterlab(folder) as address:
            compare = COMPARE.replace("ROUNDS", str(options.rounds)).replace("SECONDS", str(options.seconds))
            write_notebook(folder / "course" / "panel.ipynb", PANEL)
            page = browser.new_page(viewport={"width": 1280, "height": 1000})
            open_notebook(page, address, "panel.ipynb")
            run(page, "notebook:run-all-cells")
            wait_until_idle(page)
            root = page.locator(".artifex.live")
            root.wait_for(timeout=60_000)
            root.scroll_into_view_if_needed()
            page.wait_for_timeout(2000)
            root.evaluate(PROBE)
            page.evaluate(
                """(source) => { // not from a cell: the panel stays in view
                  const { kernel } = window.jupyterapp.shell.currentWidget.context.sessionContext.session;
                  kernel.requestExecute({ code: source, store_history: false }).onIOPub = ({ content }) => {
                    if (content.text ?? content.evalue) window.result = content.text ?? content.evalue;
                  };
                }""",
                compare,
            )
            page.wait_for_function("window.result", timeout=600_000)
            result = json.loads(page.evaluate("window.result"))
            rates = frame_rates(page.evaluate("probe"))
            pauses = press_pause(page, 12)
        chromium = browser.version

    costs = [100 * (1 - live[0] / bare[0]) for live, bare in result["pairs"]]
    cost, rate, pause = statistics.median(costs), statistics.median(rates), max(pauses)
    print(
        "| round | bare loop, steps/s | panel, steps/s | cost | bare loop, CPU ms a step | panel, CPU ms a step |\n"
        "|---|---|---|---|---|---|"
    )
    for i, ((live, bare), each) in enumerate(zip(result["pairs"], costs, strict=True)):
        print(f"| {i + 1} | {bare[0]:.1f} | {live[0]:.1f} | {each:.1f} % | {bare[1]:.2f} | {live[1]:.2f} |")
    print(f"\nFrames a second, by stretch of training: {', '.join(f'{each:.1f}' for each in rates)}")
    versions = ", ".join(f"{name} {version(name)}" for name in ("jupyterlab", "ipykernel", "ipywidgets", "jax"))
    print(
        f"\nChunks of {result['length']} steps of PPO, 512 environment steps each; {os.cpu_count()} cores shared by "
        f"server, kernel and browser, load {load:.1f} at the start;\n"
        f"Chromium {chromium}, headless, no GPU; {versions}; Python {sys.version.split()[0]}.\n"
    )
    for text, met in {
        f"median cost {cost:.1f} % (at most {MOST_COST:g})": cost <= MOST_COST,
        f"median {rate:.1f} frames a second (at least {LEAST_RATE}, at most {MOST_RATE})": LEAST_RATE
        <= rate
        <= MOST_RATE,
        f"at rest {pause:.0f} ms after Pause at the latest, median {statistics.median(pauses):.0f} "
        f"(at most {MOST_PAUSE})": pause <= MOST_PAUSE,
    }.items():
        print(f"- {text} {'✓' if met else '✗ MISSED'}")


if __name__ == "__main__":
    main()
