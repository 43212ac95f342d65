"""Pictures of CartPole, drawn by gymnasium's own renderer (the `envs` extra). No display is needed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from jax.typing import ArrayLike

from artifex_rl.envs.cartpole import CartPoleState


def render_cartpole(states_or_observations: CartPoleState | ArrayLike) -> np.ndarray:
    """Draw the cart and the pole.

    Args:
        states_or_observations: a `CartPoleState` of scalars or of `(B,)` arrays, or observations `(4,)` or `(B, 4)`.

    Returns:
        RGB picture `(H, W, 3)`, or pictures `(B, H, W, 3)`; uint8. H is 400 and W 600, 0.7 MB a picture.

    Raises:
        ValueError: the shape is another, or an entry is NaN or infinite.
        ImportError: gymnasium or pygame is not installed; the message says how to get them.

    Reference: gymnasium's CartPole-v1 in the render mode "rgb_array".
    """
    if isinstance(states_or_observations, CartPoleState):
        states = np.stack([np.asarray(field, float) for field in states_or_observations[:4]], axis=-1)
    else:
        states = np.asarray(states_or_observations, float)
    if states.ndim not in (1, 2) or states.shape[-1] != 4:
        raise ValueError(f"states_or_observations: got shape {states.shape}, needs (4,) or (B, 4)")
    if not np.isfinite(states).all():
        raise ValueError("states_or_observations: got NaN or infinity, needs finite numbers")

    with _renderer() as env:
        frames = np.empty((len(np.atleast_2d(states)), env.screen_height, env.screen_width, 3), np.uint8)
        for frame, state in zip(frames, np.atleast_2d(states), strict=True):
            env.state = state
            frame[:] = env.render()
    return frames if states.ndim == 2 else frames[0]


@contextmanager
def _renderer() -> Iterator:
    """Gymnasium's CartPole, set up to draw into memory."""
    # pygame greets on stdout, with its version: a notebook's output would change with every release.
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    try:
        import pygame
        from gymnasium.envs.classic_control import CartPoleEnv
    except ImportError as error:
        raise ImportError("drawing CartPole needs gymnasium and pygame: pip install 'artifex_rl[envs]'") from error

    driver, was_open = os.environ.get("SDL_VIDEODRIVER"), pygame.display.get_init()
    if not was_open:
        os.environ["SDL_VIDEODRIVER"] = "dummy"
        pygame.display.init()
    try:
        yield CartPoleEnv(render_mode="rgb_array")
    finally:
        # Leave a window of the caller's own alone; else leave nothing behind.
        if not was_open:
            pygame.display.quit()
            del os.environ["SDL_VIDEODRIVER"]
            if driver is not None:
                os.environ["SDL_VIDEODRIVER"] = driver
