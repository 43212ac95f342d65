"""What all tests share: JAX at its strictest, hypothesis without chance, both ways to run a function, Chromium."""

from __future__ import annotations

import os
import shutil

import jax
import jax.numpy as jnp
import pytest
from hypothesis import Phase, settings
from jax.test_util import check_grads

jax.config.update("jax_platforms", "cpu")
# A reward of shape (B, 1) beside a value of shape (B,), or a float32 beside a float64, is a bug and not a broadcast.
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")

# The same examples in every run, so that red means that the code changed. No deadline: first calls compile.
settings.register_profile("artifex", derandomize=True, deadline=None, max_examples=40)
settings.register_profile("fail-fast", settings.get_profile("artifex"), phases=[Phase.explicit, Phase.generate])
settings.load_profile("artifex")

NO_CHROMIUM = "no Chromium found: apt-get install chromium, or set CHROMIUM to the path of one"


def chromium_path() -> str | None:
    """Where a Chromium is: $CHROMIUM, else the first of the usual names on PATH, else None."""
    names = (os.environ.get("CHROMIUM"), "chromium", "chromium-browser", "google-chrome")
    return next(filter(None, (shutil.which(name) for name in names if name)), None)


def pytest_configure(config: pytest.Config) -> None:
    """The tests compile more than they compute.

    The quick ones do without LLVM's optimisations, which takes a quarter less time; all of them run at the level of
    the lab, which lies between. What was compiled stays in pytest's cache for the workers beside and for the next run
    (`pytest --cache-clear` forgets it); kernels of notebooks do not read it, so that their times and memory are those
    of a first visit.
    """
    if not hasattr(config, "workerinput"):  # reports of all workers reach the process that started them
        from run_times import RunTimes

        config.pluginmanager.register(RunTimes(config.rootpath))
    level = 0 if "not slow" in config.option.markexpr else 1
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_backend_optimization_level={level}".strip()
    if hasattr(config, "cache"):
        jax.config.update("jax_compilation_cache_dir", str(config.cache.mkdir("compiled")))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Without a Chromium the tests marked `browser` are skipped, and say how to get one; in CI they fail."""
    if chromium_path() is None and not os.environ.get("ARTIFEX_RL_REQUIRE_BROWSER"):
        for item in items:
            if item.get_closest_marker("browser"):
                item.add_marker(pytest.mark.skip(reason=NO_CHROMIUM))


MOST_MEMORY = 2 * 2**30  # bytes


def pytest_runtest_teardown() -> None:
    """Thousands of tests compile thousands of functions, which JAX keeps: they go when they have become too many."""
    from artifex_rl.lab.memory import STATM, give_memory_back, resident_memory

    if STATM.exists() and resident_memory() > MOST_MEMORY:
        jax.clear_caches()
        give_memory_back()


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of a Chromium, for tests marked `browser`."""
    return chromium_path() or pytest.fail(NO_CHROMIUM)


@pytest.fixture(scope="module")
def browser(chromium: str):
    """A running Chromium."""
    from browser import open_chromium

    with open_chromium(chromium) as browser:
        yield browser


@pytest.fixture
def page(browser):
    """A page of it, in which the project's scripts must raise nothing."""
    from browser import open_page

    with open_page(browser, width=1300, height=1200) as page:
        yield page


@pytest.fixture
def check_gradients():
    """`check(function, *arguments)`: the gradient is that of finite differences, in float64."""

    def check(function, *arguments):
        with jax.enable_x64(True):
            # Compiled, because an operation at a time takes ten times as long.
            check_grads(jax.jit(function), [jnp.asarray(x, jnp.float64) for x in arguments], order=1, modes=["rev"])

    return check


@pytest.fixture(params=["eager", "jitted"])
def variant(request: pytest.FixtureRequest):
    """Runs the test twice: with functions as they are, and compiled."""
    return jax.jit if request.param == "jitted" else lambda function: function
