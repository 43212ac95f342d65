"""A slider over a choice: its stops have names, in Python and in the page."""

import re

import jax.numpy as jnp
import numpy as np
import pytest
from browser import open_chromium, slider
from matplotlib.figure import Figure

from artifex_rl.lab import Control, Explorer

SCALE = Control("scale", 0, 2, 1, 1, names=("none", "group", "batch"))


def make():
    def figure(curves, limits):
        fig = Figure(figsize=(4, 3))
        axes = fig.subplots()
        axes.plot(np.arange(5), curves["y"], gid="y")
        axes.set(ylim=limits["y"])
        return fig

    def describe(knobs, curves):
        return f"The scale is {SCALE.format(knobs['scale'])}."

    return Explorer([SCALE], lambda scale: {"y": scale * jnp.arange(5.0)}, figure, describe)


def test_a_stop_may_be_set_by_its_name():
    explorer = make()
    assert explorer.scale == 1 and explorer.fingerprint().startswith("scale=group\n")
    explorer.set(scale="batch")
    assert explorer.scale == 2 and explorer.summary() == "The scale is batch."
    explorer.scale = "none"
    assert explorer.scale == 0


@pytest.mark.parametrize("value", ["Batch", "", 3, None])
def test_a_name_that_no_stop_has_is_refused(value):
    explorer = make()
    with pytest.raises(ValueError, match=r"^scale: got .*needs"):
        explorer.set(scale=value)
    assert explorer.scale == 1


def test_a_quantity_has_no_names():
    with pytest.raises(ValueError, match="needs a number from 0 to 1"):
        Control("gamma", 0, 1, 0.1, 0.5).snap("0.5")


@pytest.mark.parametrize("names", [("a", "b"), ("a", "b", "c", "d"), ("a", "b", "b")])
def test_each_stop_has_its_own_name(names):
    with pytest.raises(ValueError, match=re.escape(f"scale.names: got {names}, needs 3 different ones")):
        Control("scale", 0, 2, 1, 1, names=names)


@pytest.mark.browser
def test_the_page_shows_and_reads_out_the_names(chromium, tmp_path):
    with open_chromium(chromium) as browser:
        page = browser.new_page()
        page.goto(make().save_html(tmp_path / "page.html").as_uri())
        page.wait_for_function("() => document.querySelector('.artifex svg')?.dataset.knobs")
        handle, output = slider(page.locator(".artifex"), 0), page.locator(".artifex output")
        handle.focus()
        for key, name in (("Home", "none"), ("ArrowRight", "group"), ("End", "batch")):
            page.keyboard.press(key)
            assert output.inner_text() == handle.get_attribute("aria-valuetext") == name
            assert page.locator(".artifex .summary").inner_text() == f"The scale is {name}."
