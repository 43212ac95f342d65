"""Sliders of a live training: which of a trainer's numbers may be moved while it trains, and where they may stand."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from artifex_rl.lab.control import Control
from artifex_rl.rl.denoising import Setting
from artifex_rl.state import TrainState

LEARNING_RATE = "learning_rate"
#: What a learner reads beside a slider; the first word stands at the marks in the curves.
LABELS = {
    "gamma": "γ  discount",
    "gae_lambda": "λ  of GAE",
    "clip_param": "ε  clip",
    "clip_param_high": "ε_high  clip",
    "vf_coeff": "c_v  value loss",
    "entropy_coeff": "c_H  entropy",
    "max_grad_norm": "max norm",
    "num_epochs": "K  epochs",
    "clip_value": "value clip",
    "target_kl": "target KL",
    "beta": "β",
    "label_smoothing": "smoothing",
    "gamma_beta_ratio": "γ/β  margin",
    "eta": "η  noise",
    "noise_level": "a  noise",
    LEARNING_RATE: "α  learning rate",
}
#: Stops of a number that matters most near 1.
_NEAR_ONE = (
    *(0.0, 0.2, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.92, 0.94, 0.95, 0.96, 0.97, 0.98),
    *(0.985, 0.99, 0.995, 0.998, 0.999, 1.0),
)
#: How far below and above its first value such a number may be put.
_SPREAD = {LEARNING_RATE: (100, 30), "clip_param": (20, 4), "clip_param_high": (20, 4)}
#: Stops of a factor: ten to each power of ten.
_PER_DECADE = (1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0)
#: Stops of a count.
_COUNTS = (1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0, 50.0)


@dataclasses.dataclass(frozen=True)
class Slider:
    """One slider of a live training.

    Args:
        name: a float of the trainer's config, its number of epochs, a setting of the model such as
            "noise_level", or "learning_rate".
        stops: where a hand may put it, rising; None for stops that suit the number.
        label: what the reader sees. Its first word stands at the marks in the curves.
        help: a sentence shown when the pointer rests on the label.

    Raises:
        ValueError: `stops` are not at least two rising finite numbers.
    """

    name: str
    stops: tuple[float, ...] | None = None
    label: str = ""
    help: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "label", self.label or LABELS.get(self.name, self.name))
        if self.stops is None:
            return
        stops = tuple(float(stop) for stop in self.stops)
        rising = all(a < b for a, b in itertools.pairwise(stops))
        if len(stops) < 2 or not rising or not all(map(math.isfinite, stops)):
            raise ValueError(f"{self.name}.stops: got {self.stops}, needs at least two rising finite numbers")
        object.__setattr__(self, "stops", stops)

    @property
    def symbol(self) -> str:
        return self.label.split("  ")[0]


@dataclasses.dataclass(frozen=True)
class Place:
    """A number that is kept among the trainer's variables: which of them it is, and what refuses a value."""

    index: int
    check: Callable[[Any], Any]


def make_sliders(trainer: Any, wanted: Sequence[Any] | None, setting: dict[str, float]) -> list[Slider]:
    """The sliders that a notebook asked for, by name or as `Slider` or `Control`; None: one for each number.

    Where they stand now becomes a stop: a slider that nobody touches changes nothing.

    Raises:
        ValueError: a name is none of the trainer's numbers, or a stop is outside of what its config allows.
    """
    sliders, places = [], find_places(trainer)
    for entry in setting if wanted is None else wanted:
        if isinstance(entry, Control):
            entry = Slider(entry.name, entry.stops, "" if entry.label == entry.name else entry.label, entry.help)
        slider = Slider(entry) if isinstance(entry, str) else entry
        if not isinstance(slider, Slider):
            raise ValueError(f"sliders: got {entry!r}, needs names, Sliders or Controls")
        if slider.name not in setting:
            raise ValueError(_no_such(slider.name, trainer, setting))
        value = setting[slider.name]
        stops = slider.stops or _suitable(trainer.config, slider.name, value, places)
        for stop in (stops[0], stops[-1]):
            check_setting(trainer.config, setting, {slider.name: stop}, places)
        sliders.append(dataclasses.replace(slider, stops=tuple(sorted({*stops, value}))))
    if len({slider.name for slider in sliders}) < len(sliders):
        raise ValueError(f"sliders: got {[slider.name for slider in sliders]}, needs different names")
    return sliders


def read_setting(trainer: Any) -> dict[str, float]:
    """Every number of the trainer that can be moved: those its config has traced, and those `find_places` finds."""
    config = trainer.config
    setting = {
        field.name: float(getattr(config, field.name))
        for field in (dataclasses.fields(config) if dataclasses.is_dataclass(config) else ())
        if field.metadata.get("traced") and getattr(config, field.name) is not None
    }
    for name, place in find_places(trainer).items():  # float32, in as few digits as name it
        setting[name] = _shortest(trainer.state.variables[place.index])
    return setting


def check_setting(
    config: Any, setting: dict[str, float], changes: dict[str, Any], places: Mapping[str, Place]
) -> dict[str, float]:
    """The setting with these changes, and a ValueError that names the first that is not possible."""
    for name, value in changes.items():
        if name not in setting:
            raise ValueError(f"{name}: got {value!r}, but the numbers to move are {', '.join(setting)}")
        if name in places:
            if isinstance(value, bool) or not hasattr(value, "__float__"):
                raise ValueError(f"{name}: got {value!r}, needs a number")
            places[name].check(float(value))
    fields = {name: value for name, value in changes.items() if name not in places}
    config = with_fields(config, fields) if fields else config
    return setting | {
        name: float(changes[name]) if name in places else float(getattr(config, name)) for name in changes
    }


def with_fields(config: Any, numbers: Mapping[str, float]) -> Any:
    """The config with these numbers. A slider knows floats alone: a whole one counts where the config has a count."""
    whole = {
        name: int(number)
        for name, number in numbers.items()
        if isinstance(getattr(config, name), int) and isinstance(number, float) and number.is_integer()
    }
    return dataclasses.replace(config, **numbers | whole)


def find_places(trainer: Any) -> dict[str, Place]:
    """Numbers that can be moved and are no part of the config, by name.

    They are the settings of the model, such as `noise_level` of a `FlowPolicy`; and the learning rate, if
    `optax.inject_hyperparams` put it into the optimizer's state and no schedule writes over it at every step.
    """
    state = nnx.state((trainer.model, trainer.optimizer))
    rates, settings, scheduled = [], {}, False
    for i, (path, leaf) in enumerate(jax.tree.leaves_with_path(state, is_leaf=_is_variable)):
        keys = [str(getattr(entry, "key", getattr(entry, "name", getattr(entry, "idx", "")))) for entry in path]
        scheduled |= "hyperparams_states" in keys and LEARNING_RATE in keys
        if "hyperparams" in keys and keys[keys.index("hyperparams") + 1] == LEARNING_RATE:
            rates.append(Place(i, _check_rate))
        if isinstance(leaf, Setting) and leaf.get_metadata().get("check") is not None:
            settings.setdefault(keys[-1].lstrip("_"), []).append(Place(i, leaf.get_metadata()["check"]))
    taken = {field.name for field in dataclasses.fields(trainer.config)} if trainer.config is not None else set()
    found = {name: there[0] for name, there in settings.items() if len(there) == 1 and name not in taken}
    return found | ({LEARNING_RATE: rates[0]} if len(rates) == 1 and not scheduled else {})


def with_number(state: TrainState, place: Place, number: float) -> TrainState:
    """The same state with another number there; nothing else is touched, and nothing recompiles."""
    variables = list(state.variables)
    variables[place.index] = jnp.full_like(variables[place.index], number)
    return state._replace(variables=variables)


def _is_variable(node: Any) -> bool:
    return isinstance(node, nnx.Variable)


def _check_rate(rate: float) -> None:
    if not 0 <= rate < math.inf:
        raise ValueError(f"{LEARNING_RATE}: got {rate!r}, needs a finite number of at least 0")


def _suitable(config: Any, name: str, value: float, places: Mapping[str, Place]) -> tuple[float, ...]:
    def allowed(number: float) -> bool:
        try:
            return check_setting(config, {name: value}, {name: number}, places) is not None
        except ValueError:
            return False

    if name != LEARNING_RATE and allowed(0.0) and allowed(1.0) and not allowed(1.01):
        return _NEAR_ONE
    if name == "label_smoothing":
        return tuple(round(0.02 * i, 2) for i in range(25))
    if isinstance(getattr(config, name, None), int):
        return tuple(stop for stop in _COUNTS if stop <= 5 * value)
    value = value or 0.1
    below, above = _SPREAD.get(name, (20, 10))
    middle = math.floor(math.log10(value))
    stops = [float(f"{digit}e{middle + power}") for power in (-3, -2, -1, 0, 1, 2) for digit in _PER_DECADE]
    zero = [0.0] if name != LEARNING_RATE and allowed(0.0) else []
    return tuple(zero + [stop for stop in stops if value / below <= stop <= value * above and allowed(stop)])


def _shortest(array: Any) -> float:
    return float(str(jax.device_get(array).astype("float32")))


def _no_such(name: str, trainer: Any, setting: dict[str, float]) -> str:
    if name == LEARNING_RATE:
        return (
            "sliders: got 'learning_rate', which is no part of this optimizer's state; make it with "
            "optax.inject_hyperparams(optax.adam)(learning_rate=1e-3), and without a schedule"
        )
    if hasattr(trainer.config, name):
        return (
            f"sliders: got {name!r}, which is None or part of the compiled code; needs some of {', '.join(setting)}"
        )
    return f"sliders: got {name!r}, needs some of {', '.join(setting)}"
