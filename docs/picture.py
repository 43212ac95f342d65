"""The README's picture, made from the real widget: γ and then λ are dragged in a static page in Chromium.

    python docs/picture.py            # writes explorer.gif and explorer.png beside this file

Run it when the explorer looks different; it needs a Chromium, like the browser tests.
"""

from __future__ import annotations

import io
import math
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from browser import open_chromium
from conftest import NO_CHROMIUM, chromium_path
from PIL import Image, ImageColor

from artifex_rl.lab import AdvantageExplorer
from artifex_rl.lab.canvas import INK

HERE = Path(__file__).resolve().parent
WIDTH = 800  # CSS pixels, about what GitHub gives a README
MARGIN = 12
PER_SECOND = 100 / 7  # GIF counts in hundredths of a second
SCALE = 1.5  # screen pixels in the moving picture for one CSS pixel; the still one has 2
SLIDER = ["#0096ea", "#cce3f0"]  # Chromium's own blue of a thumb in the hand, and the ring around the pointer

# Every setting on this path has γ at TURN or λ at its first value. The page holds those frames at every stop, so that
# what is filmed is what a live explorer does, and not the coarser grid of a page without a kernel.
TURN = 0.9
PATH = [  # what the hand holds, where to, in seconds
    ("gamma", 0.6, 1.9),
    ("gamma", TURN, 1.1),
    (None, "gae_lambda", 0.6),
    ("gae_lambda", 0.0, 1.7),
    ("gae_lambda", 0.95, 1.4),
    (None, "gamma", 0.6),
    ("gamma", 0.99, 0.7),
]

POINTER = """() => {
  document.documentElement.style.background = "white";
  document.body.style.cssText += "; margin: 0; padding: MARGINpx; max-width: none";
  const pointer = document.createElement("div");
  pointer.style.cssText = "position: fixed; left: 0; top: 0; pointer-events: none; z-index: 9";
  pointer.innerHTML = `
    <svg width="60" height="60" viewBox="-24 -24 60 60" style="position: absolute; left: -24px; top: -24px">
      <circle r="17" fill="#0072b2" fill-opacity="0" />
      <path d="M0 0 V21 L5 16.5 L8.4 24.2 L12 22.6 L8.6 15 H15.4 Z" fill="#111" stroke="white" stroke-width="1.6" />
    </svg>`;
  document.body.append(pointer);
  const ring = pointer.querySelector("circle");
  addEventListener("mousemove", (event) => {
    pointer.style.transform = `translate(${event.clientX}px, ${event.clientY}px)`;
  }, true);
  addEventListener("mousedown", () => ring.setAttribute("fill-opacity", 0.2), true);
  addEventListener("mouseup", () => ring.setAttribute("fill-opacity", 0), true);
}"""


def ease(share: float) -> float:
    """Hands start and stop gently."""
    return 0.5 - 0.5 * math.cos(math.pi * share)


class Film:
    """The page, a hand, and what a camera sees."""

    def __init__(self, browser, file: Path, explorer: AdvantageExplorer, scale: float):
        self.page = browser.new_page(
            viewport={"width": WIDTH, "height": 600}, device_scale_factor=scale, color_scheme="light"
        )
        self.page.goto(file.as_uri())
        self.page.wait_for_function("() => document.querySelector('.artifex svg')?.dataset.knobs")
        self.page.evaluate(POINTER.replace("MARGIN", str(MARGIN)))
        self.page.get_by_role("button", name="Reset").click()
        self.controls = {control.name: (i, control) for i, control in enumerate(explorer.controls)}
        self.knobs = {control.name: control.value for control in explorer.controls}
        self.place = self.thumb("gamma", self.knobs["gamma"])
        self.page.mouse.move(*self.place)

    def thumb(self, name: str, value: float) -> tuple[float, float]:
        """Where a slider's thumb is at this value; its track ends half a thumb before its box does."""
        index, control = self.controls[name]
        box = self.page.locator("input[type=range]").nth(index).bounding_box()
        share = (value - control.low) / (control.high - control.low)
        return box["x"] + 8 + (box["width"] - 16) * share, box["y"] + box["height"] / 2 + 2

    def shoot(self) -> Image.Image:
        self.page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        last = self.page.locator(".summary").bounding_box()  # under it is room for values at the pointer, empty here
        clip = {"x": 0, "y": 0, "width": WIDTH, "height": math.ceil(last["y"] + last["height"]) + MARGIN}
        return Image.open(io.BytesIO(self.page.screenshot(clip=clip))).convert("RGB")

    def frames(self) -> Iterator[Image.Image]:
        held = None
        for name, target, seconds in PATH:
            start = self.place
            if name != held:
                if held:
                    self.page.mouse.up()
                held = name
                if held:
                    self.page.mouse.down()
            end = self.thumb(target, self.knobs[target]) if name is None else self.thumb(name, target)
            count = round(seconds * PER_SECOND)
            for i in range(1, count + 1):
                share = ease(i / count)
                self.place = tuple(a + (b - a) * share for a, b in zip(start, end, strict=True))
                self.page.mouse.move(*self.place)
                yield self.shoot()
            if name:
                self.knobs[name] = target
                shown = self.page.evaluate(
                    "() => JSON.parse(document.querySelector('svg[data-knobs]').dataset.knobs)"
                )
                assert shown == self.knobs, f"the hand meant {self.knobs}, the page shows {shown}"
        self.page.mouse.up()
        yield self.shoot()


def palette() -> Image.Image:
    """White, and from it to each ink the steps that smooth edges need. The same for all frames: what an algorithm
    chooses favours large areas, and thin lines lose their colour."""
    inks = ["#000000", *(style["color"] for style in INK.values()), *SLIDER]
    colours = [(255, 255, 255)]
    for ink in dict.fromkeys(inks):
        steps = 16 if ink == "#000000" else 5  # grey too, or the grid takes a tint
        for i in range(1, steps + 1):
            colours.append(tuple(round(255 + (part - 255) * i / steps) for part in ImageColor.getrgb(ink)))
    image = Image.new("P", (1, 1))
    image.putpalette([part for colour in colours for part in colour])
    return image


def save(frames: list[Image.Image], path: Path) -> None:
    colours = palette()
    indexed = [frame.quantize(palette=colours, dither=Image.Dither.NONE) for frame in frames]
    lengths = [round(1000 / PER_SECOND)] * (len(frames) - 1) + [800]  # a rest before it starts again
    indexed[0].save(path, save_all=True, append_images=indexed[1:], duration=lengths, loop=0, optimize=True)


def main() -> None:
    executable = chromium_path() or sys.exit(NO_CHROMIUM)
    with tempfile.TemporaryDirectory() as folder, open_chromium(executable) as browser:
        explorer = AdvantageExplorer()
        explorer.set(gamma=TURN)
        file = explorer.save_html(Path(folder) / "page.html")
        frames = list(Film(browser, file, explorer, SCALE).frames())
        height = max(frame.height for frame in frames)
        assert all(frame.height == height for frame in frames), "the sentence wraps in some frames: the page jumps"
        save(frames, HERE / "explorer.gif")
        still = Film(browser, file, explorer, 2.0).frames()
        for _ in range(round(0.3 * PATH[0][2] * PER_SECOND)):
            picture = next(still)
        picture.quantize(256, dither=Image.Dither.NONE).save(HERE / "explorer.png", optimize=True)
    for name in ("explorer.gif", "explorer.png"):
        path = HERE / name
        with Image.open(path) as image:
            print(
                f"{name}: {image.width} × {image.height}, {getattr(image, 'n_frames', 1)} frames, "
                f"{path.stat().st_size / 1e6:.2f} MB"
            )


if __name__ == "__main__":
    main()
