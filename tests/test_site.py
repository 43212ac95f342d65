"""The course site as a reader gets it: from the disk, with the network cut, on a large screen and on a phone."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from browser import assert_shows, drag, explorers, knobs, open_from_disk, slider

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))
PAGES = ["index", "knobs", *(f"notebooks/{name}" for name in NOTEBOOKS)]
OTHERS = ["algorithms/ppo", "glossary", "references", "workshop/index", "gallery/index", "search"]
OTHERS += ["api/index", "api/artifex_rl.rl.ppo.PPOTrainer", "source/rl/ppo"]
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}

pytestmark = [pytest.mark.slow, pytest.mark.browser]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Built as README says, where a warning is an error."""
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-j", "2", "-d", out / "doctrees"]
    built = subprocess.run([*command, ROOT / "docs", out / "site"], capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    return out / "site"


class Links(HTMLParser):
    """What a page points at, what it fetches, and what can be pointed at in it."""

    def __init__(self, text: str):
        super().__init__()
        self.links: list[str] = []
        self.fetched: list[str] = []
        self.anchors: set[str] = set()
        self.pictures: list[str | None] = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.anchors |= {attributes[name] for name in ("id", "name") if attributes.get(name)}
        if tag == "a" and attributes.get("href"):
            self.links.append(attributes["href"])
        if tag == "link" and attributes.get("rel") not in ("canonical", "index", "search", "next", "prev", "top"):
            self.fetched.append(attributes["href"])
        if tag in ("script", "img", "iframe", "video", "source") and attributes.get("src"):
            self.fetched.append(attributes["src"])
        if tag == "img":
            self.pictures.append(attributes.get("alt"))


@pytest.fixture(scope="module")
def read(site):
    return {path: Links(path.read_text("utf-8")) for path in site.rglob("*.html")}


def test_nothing_comes_from_elsewhere(read):
    fetched = {url for page in read.values() for url in page.fetched if not url.startswith("data:")}
    assert len(fetched) > 10
    assert not {url for url in fetched if urlsplit(url).scheme or url.startswith("//")}


def test_every_link_within_the_site_leads_somewhere(site, read):
    broken, followed = [], 0
    for path, page in read.items():
        for url in {*page.links, *page.fetched}:
            parts = urlsplit(url)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            followed += 1
            if not target.exists() or (
                parts.fragment and target in read and unquote(parts.fragment) not in read[target].anchors
            ):
                broken.append((path.relative_to(site), url))
    assert followed > 10_000 and not broken, Counter(str(page) for page, _ in broken).most_common(5) + broken[:20]


def test_every_picture_says_what_it_shows(read):
    pictures = [alt for path, page in read.items() if "_static" not in path.parts for alt in page.pictures]
    assert len(pictures) > 100 and all(alt and len(alt.split()) > 3 for alt in pictures)


def test_the_first_use_of_a_term_is_a_link_to_the_glossary_and_the_second_is_none(site):
    for name in ("notebooks/01_returns_and_advantages", "notebooks/03_ppo", "algorithms/ppo"):
        text = (site / f"{name}.html").read_text("utf-8")
        anchors = re.findall(r'<a class="[^"]*glossary-term[^"]*" href="\.\./glossary\.html#([^"]+)"', text)
        assert len(anchors) > 8 and len(set(anchors)) == len(anchors)


def test_a_page_for_every_public_name(site):
    import artifex_rl
    import artifex_rl.callbacks
    import artifex_rl.lab
    import artifex_rl.trainers

    for package in (artifex_rl, artifex_rl.lab, artifex_rl.callbacks, artifex_rl.trainers):
        for name in package.__all__:
            thing = getattr(package, name)
            if isinstance(getattr(thing, "__module__", None), str) and thing.__module__.startswith("artifex_rl"):
                page = site / "api" / f"{thing.__module__}.{thing.__name__}.html"
                assert page.exists(), name
    text = (site / "api" / "artifex_rl.rl.returns.compute_gae_advantages.html").read_text("utf-8")
    assert "source/rl/returns.html#line-" in text
    words = re.sub("<[^>]+>", "", text)
    assert "rewards: ArrayLike" in words and "(T,) or (T, N), the reward received" in words


@pytest.mark.parametrize("name", PAGES)
def test_every_explorer_is_alive(site, browser, name):
    """Every slider of every explorer, by key: the picture is that of the new setting."""
    with open_from_disk(browser, site / f"{name}.html") as page:
        page.wait_for_function("() => [...document.querySelectorAll('.artifex svg')].every((s) => s.dataset.knobs)")
        assert page.locator(".artifex-fallback").count() == 0
        found = explorers(page)
        assert found.count() >= 1
        for k in range(found.count()):
            explorer = found.nth(k)
            for index in range(explorer.locator("input[type=range]").count()):
                handle, before = slider(explorer, index), knobs(explorer)
                at_end = handle.evaluate("(slider) => slider.value === slider.max")
                handle.press("ArrowLeft" if at_end else "ArrowRight")
                page.wait_for_timeout(20)
                name = list(before)[index]  # the others may go to a stop of the grid beside where they stood
                assert knobs(explorer)[name] != before[name]


def test_what_is_dragged_is_what_the_library_computes(site, browser):
    from artifex_rl.lab import AdvantageExplorer

    expected = AdvantageExplorer()
    with open_from_disk(browser, site / "notebooks" / "01_returns_and_advantages.html") as page:
        explorer = explorers(page).first
        explorer.scroll_into_view_if_needed()
        page.wait_for_function("() => document.querySelector('.artifex svg').dataset.knobs")
        drag(page, slider(explorer, 0), 0.99, 0.5)
        drag(page, slider(explorer, 1), 0.95, 0.2)
        now = knobs(explorer)
        assert 0.4 < now["gamma"] < 0.6 and 0.1 < now["gae_lambda"] < 0.3
        assert_shows(explorer, expected, **now)


@pytest.mark.parametrize("name", ["index", "knobs", "notebooks/00_start_here", "notebooks/07_diffusion_and_grpo"])
def test_on_a_phone(site, browser, name):
    """The page is as wide as the screen, and a finger moves a slider."""
    with open_from_disk(browser, site / f"{name}.html", **PHONE) as page:
        page.wait_for_function("() => document.querySelector('.artifex svg').dataset.knobs")
        assert page.evaluate("() => document.documentElement.scrollWidth") <= 390
        explorer = explorers(page).first
        handle = slider(explorer, 0)
        handle.scroll_into_view_if_needed()
        before, box = knobs(explorer), handle.bounding_box()
        assert box["height"] >= 24 and box["x"] >= 0 and box["x"] + box["width"] <= 390
        low = handle.evaluate("(slider) => slider.value / slider.max") < 0.5
        page.touchscreen.tap(box["x"] + (0.95 if low else 0.05) * box["width"], box["y"] + box["height"] / 2)
        page.wait_for_timeout(50)
        assert knobs(explorer) != before


@pytest.mark.parametrize(
    ("name", "scheme"),
    [(name, "light") for name in [*PAGES, *OTHERS]] + [(name, "dark") for name in [*PAGES[:4], PAGES[9], *OTHERS]],
)
def test_axe_finds_no_serious_fault(site, browser, name, scheme):
    from axe_playwright_python.sync_playwright import Axe

    with open_from_disk(browser, site / f"{name}.html", color_scheme=scheme) as page:
        page.wait_for_timeout(500)  # formulas and explorers are drawn
        # Of a notebook's thousands of words of coloured code the pages of the library's source are an example.
        context = {"exclude": [[".cell_input pre"], ["mjx-container"]]} if name.startswith("notebooks") else None
        options = {"resultTypes": ["violations"], "preload": False}
        found = Axe().run(page, context=context, options=options).response["violations"]
    serious = {
        fault["id"]: [node["html"][:200] + " | " + node["failureSummary"][:200] for node in fault["nodes"][:3]]
        for fault in found
        if fault["impact"] in ("serious", "critical")
    }
    assert not serious, json.dumps(serious, indent=1)


def test_who_asks_what_gamma_does_is_told_within_two_clicks(site, browser):
    with open_from_disk(browser, site / "index.html") as page:
        page.locator(".sidebar-search").fill("gamma")
        page.keyboard.press("Enter")
        results = page.locator("#search-results li a")
        results.first.wait_for()
        titles = results.all_inner_texts()[:5]
        assert any("gamma: the discount factor" in title or "What does this knob do?" in title for title in titles), (
            titles
        )
        page.get_by_role("link", name=re.compile("gamma: the discount|What does this knob do")).first.click()
        page.wait_for_function("() => document.querySelector('.artifex svg')?.dataset.knobs")
        text = page.locator("section", has=page.get_by_role("heading", name=re.compile("^gamma"))).last.inner_text()
        assert "How much a reward counts that comes one step later" in text
