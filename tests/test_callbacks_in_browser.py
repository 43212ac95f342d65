"""ProgressBarCallback and the picture of a history in real JupyterLab in real Chromium."""

import os

import pytest
from browser import jupyterlab, open_chromium, open_notebook, run, wait_until_idle, write_notebook

pytestmark = [pytest.mark.browser, pytest.mark.slow]

TRAIN = f"""
import sys, time
sys.path.insert(0, {os.path.dirname(__file__)!r})
from small_runs import data, make
from artifex_rl.callbacks import HistoryCallback, ProgressBarCallback

class Slow:
    def on_train_batch_end(self, trainer, metrics, step):
        time.sleep(0.05)

history = HistoryCallback()
print("before")
make().fit(data(), 200, [Slow(), history, ProgressBarCallback()])
print("after")
"""


def test_the_line_moves_while_it_trains_and_is_clean_in_the_end_and_a_history_is_a_picture(chromium, tmp_path):
    with jupyterlab(tmp_path) as address, open_chromium(chromium) as browser:
        write_notebook(tmp_path / "course" / "bar.ipynb", TRAIN, "history.plot()")
        page = browser.new_page()
        open_notebook(page, address, "bar.ipynb")
        run(page, "notebook:run-all-cells")
        seen = []
        for _ in range(2):
            page.wait_for_function(
                """(seen) => {
                  const text = document.querySelector(".jp-OutputArea")?.innerText ?? "";
                  return /[0-9]+\\/200 \\[.*step\\/s, loss=/.test(text) && !seen.includes(text);
                }""",
                arg=seen,
                timeout=120_000,
            )
            seen.append(page.locator(".jp-OutputArea").first.inner_text())
        wait_until_idle(page)
        lines = page.locator(".jp-OutputArea").first.inner_text().split("\n")
        assert [line for line in lines if line] == ["before", "200 of 200 steps", "after"]
        assert page.locator(".jp-OutputArea img").count() == 1
