"""The page of an algorithm says what the code is: knobs and their ranges, metrics, lines; and its example runs."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import jax
import numpy as np
import optax
import pytest
from flax import nnx

import artifex_rl
from artifex_rl import models, trainers
from artifex_rl.rl.batches import one_step_batch

ROOT = Path(__file__).parent.parent
PAGES = {path.stem: path.read_text("utf-8") for path in sorted((ROOT / "docs" / "algorithms").glob("*.md"))}
SECTIONS = (
    "What it minimises",
    "Run it",
    "Knobs",
    "Implementation details",
    "Metrics",
    "Common mistakes",
    "Further reading",
)
#: The config whose fields are the knobs of a page, and how many details it has at least.
CONFIGS = {
    "reinforce": (artifex_rl.REINFORCEConfig, 15),
    "ppo": (artifex_rl.PPOConfig, 25),
    "grpo": (artifex_rl.GRPOConfig, 15),
    "dpo": (artifex_rl.DPOConfig, 15),
    "vae": (trainers.VAEConfig, 10),
    "gan": (trainers.GANConfig, 10),
    "diffusion": (trainers.DiffusionConfig, 10),
    "flow": (trainers.FlowConfig, 10),
    "energy": (trainers.EnergyConfig, 10),
    "autoregressive": (trainers.AutoregressiveConfig, 10),
}
each = pytest.mark.parametrize("page", CONFIGS)
RANGE = re.compile(r"(?P<open>[\[(])(?P<low>[\d.]+), (?P<high>[\d.]+)(?P<close>[\])])|(?P<sign>[>≥]) (?P<end>[\d.]+)")


def section(page: str, title: str) -> str:
    """The text of a section, without its title."""
    return re.split(rf"^## {re.escape(title)}$", PAGES[page], flags=re.MULTILINE)[1].split("\n## ")[0]


def rows(page: str, title: str) -> dict[str, list[str]]:
    """The cells of the tables of a section, by what the first one names in backticks."""
    found = re.findall(r"^\| `(\w+)` \|(.*)\|$", section(page, title), re.MULTILINE)
    names = [name for name, _ in found]
    assert len(names) == len({*names}), f"{page}: a row twice in {title}"
    return {name: [cell.strip() for cell in rest.split(" | ")] for name, rest in found}


def test_every_page_is_held_against_its_config():
    assert {*PAGES} == {"index", *CONFIGS}


@each
def test_a_page_has_every_section_in_order(page):
    titles = re.findall(r"^## (.+)$", PAGES[page], re.MULTILINE)
    assert tuple(titles) == SECTIONS
    assert "$$" in section(page, "What it minimises")
    assert "{cite:t}" in section(page, "Further reading")
    assert re.search(r"\]\(\.\./notebooks/\d\d_\w+\.ipynb\)", PAGES[page].split("\n## ")[0])


@each
def test_the_knobs_are_those_of_the_config(page):
    config = CONFIGS[page][0]
    defaults = {field.name: field.default for field in dataclasses.fields(config)}
    written = {name: cells[0] for name, cells in rows(page, "Knobs").items()}
    assert written == {name: f'"{x}"' if isinstance(x, str) else str(x) for name, x in defaults.items()}
    assert f"Knob of `{config.__name__}`" in section(page, "Knobs")
    for name, cells in rows(page, "Knobs").items():
        assert len(cells) == 5 and all(cells), f"{name}: a cell is empty"


@each
def test_what_a_range_allows_the_config_takes_and_nothing_beyond(page):
    config = CONFIGS[page][0]
    counts = ("num_epochs",)  # traced, and still whole
    real = {f.name: f.metadata["traced"] and f.name not in counts for f in dataclasses.fields(config)}

    def takes(name, value):
        try:
            config(**{name: value})
        except ValueError:
            return False
        return True

    for name, (default, allowed, *_) in rows(page, "Knobs").items():
        assert takes(name, None) == ("or None" in allowed), name
        if default in ("True", "False"):
            assert allowed == "a flag" and takes(name, True) and takes(name, False)
            continue
        if default.startswith('"'):
            choices = re.findall(r'"(\w+)"', allowed)
            with pytest.raises(ValueError) as refused:
                config(**{name: "?"})
            assert choices == re.findall(r"'(\w+)'", str(refused.value).partition("needs")[2]), name
            continue
        if allowed.startswith("any number"):
            assert takes(name, -1e6) and takes(name, 1e6), name
            continue
        match, step = RANGE.search(allowed), 1e-6 if real[name] else 1
        assert match, f"{name}: {allowed}"
        number = type(step)
        if match["sign"]:
            end = number(match["end"])
            assert takes(name, end) == (match["sign"] == "≥") and takes(name, end + step), name
            assert not takes(name, end - step) and takes(name, end + 1000), name
        else:
            low, high = number(match["low"]), number(match["high"])
            assert takes(name, low) == (match["open"] == "[") and not takes(name, low - step), name
            assert takes(name, high) == (match["close"] == "]") and not takes(name, high + step), name


@each
def test_every_detail_has_its_line_and_its_source(page):
    text = section(page, "Implementation details")
    details = re.findall(r"^(\d+)\. (.*(?:\n(?:   .*)?)*)", text, re.MULTILINE)
    assert [int(number) for number, _ in details] == [*range(1, len(details) + 1)]
    assert len(details) >= CONFIGS[page][1]
    for number, detail in details:
        assert "{line}`" in detail, f"{page} {number}: no line of code"
        assert "{cite:t}`" in detail or "Ours" in detail, f"{page} {number}: no source"


# Metrics are those of a step, which is traced and not computed


def policy(critic: bool = False):
    class Policy(nnx.Module):
        def __init__(self):
            self.linear = nnx.Linear(2, 4, rngs=nnx.Rngs(0))

        def __call__(self, observations):
            out = self.linear(observations)
            return (out[:, :3], out[:, 3]) if critic else out

    return Policy()


def adam(model: nnx.Module) -> nnx.Optimizer:
    return nnx.Optimizer(model, optax.adam(1e-3), wrt=nnx.Param)


def metrics_of(trainer: artifex_rl.Trainer, batch: dict) -> set[str]:
    """Names of what one `train_step` returns."""
    batch = trainer.prepare(batch)
    step = jax.eval_shape(lambda: trainer.pure_step(trainer.state, batch, jax.random.key(0), trainer.config))
    return {*step[1]}


def runs(page: str) -> list[tuple[artifex_rl.Trainer, dict]]:
    """Trainers and batches that show together every metric that there is, but for the exact KL's."""
    actions, zeros, points = np.arange(4) % 3, np.zeros(4, np.float32), np.ones((4, 2), np.float32)
    rngs, (config, _) = nnx.Rngs(0), CONFIGS[page]
    steps = one_step_batch(points, actions, zeros, zeros, zeros)
    if page == "ppo":
        model = policy(critic=True)
        return [(artifex_rl.PPOTrainer(model, adam(model)), steps)]
    steps |= {"ref_log_probs": zeros}
    if page == "reinforce":
        model = policy(critic=True)
        return [(artifex_rl.REINFORCETrainer(model, adam(model), config(baseline="value")), steps)]
    if page == "grpo":
        kinds, model = ("k1", "k2", "k3"), policy()
        return [(artifex_rl.GRPOTrainer(model, adam(model), config(kl_estimator=kind)), steps) for kind in kinds]
    if page == "dpo":
        pairs = {"observations": points, "chosen": actions, "rejected": actions[::-1].copy()}
        model, references = policy(), {"ref_chosen_log_probs": zeros, "ref_rejected_log_probs": zeros}
        return [(artifex_rl.DPOTrainer(model, adam(model)), pairs | references)]
    if page == "vae":
        model = models.VAE((2,), 2, (4,), rngs=rngs)
        return [(trainers.VAETrainer(model, adam(model)), {"data": points})]
    if page == "gan":
        model, other = models.Generator(2, (2,), (4,), rngs=rngs), models.Discriminator((2,), (4,), rngs=rngs)
        opponent = {"discriminator": other, "discriminator_optimizer": adam(other)}
        return [(trainers.GANTrainer(model, adam(model), **opponent), {"data": points})]
    if page == "energy":
        model = models.EnergyNetwork((2,), (4,), rngs=rngs)
        made = [config(objective=objective, num_steps=2) for objective in ("pcd", "cd", "denoising", "sliced")]
        return [(trainers.EnergyTrainer(model, adam(model), each), {"data": points}) for each in made]
    if page == "autoregressive":
        model = models.GRU(4, 4, rngs=rngs)
        return [(trainers.AutoregressiveTrainer(model, adam(model)), {"tokens": np.ones((4, 3), np.int32)})]
    model = models.Denoiser((2,), rngs=rngs)
    kind = {"diffusion": trainers.DiffusionTrainer, "flow": trainers.FlowTrainer}[page]
    return [(kind(model, adam(model)), {"data": points})]


@each
def test_every_metric_of_a_step_is_explained_and_no_other(page):
    found = set().union(*(metrics_of(trainer, batch) for trainer, batch in runs(page)))
    assert {"loss", "grad_norm"} < found
    text = section(page, "Metrics")
    assert not [name for name in found if f"`{name}`" not in text]
    assert {*rows(page, "Metrics")} <= found, "a metric that no step returns"


@pytest.mark.parametrize("page", PAGES)
def test_the_example_fits_on_the_page(page):
    """88 letters are what a page of the site has room for; beyond, it scrolls."""
    (example,) = re.findall(r"```python\n(.*?)```", PAGES[page], re.DOTALL)
    assert max(map(len, example.splitlines())) <= 88


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_the_example_runs(page, capsys):
    (example,) = re.findall(r"```python\n(.*?)```", PAGES[page], re.DOTALL)
    assert page == "index" or example in section(page, "Run it")
    exec(compile(example, f"{page}.md", "exec"), {})
    assert re.search(r"\d", capsys.readouterr().out), "an example prints a number"
