"""What every function of this package does with its arguments first: read them as arrays, check their shapes.

Shapes are known while JAX traces, values are not, so these checks cost nothing under `jit` and never look at a value.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike


def read_array(name: str, value: ArrayLike) -> jax.Array:
    """`value` as a JAX array of real numbers or booleans, or a ValueError that names the argument."""
    if value is None:
        raise ValueError(f"{name}: got None, needs an array of numbers")
    if isinstance(value, np.ndarray | np.generic) and value.dtype.kind in "iu":
        value = value.astype(np.float32)  # every use is as floats or flags, and JAX would wrap 64-bit integers to 32
    try:
        array = jnp.asarray(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{name}: got {type(value).__name__}, needs an array of numbers ({error})") from error
    if jnp.issubdtype(array.dtype, jnp.complexfloating):
        raise ValueError(f"{name}: got {array.dtype}, needs real numbers")
    return array


def read_floats(**named: ArrayLike) -> list[jax.Array]:
    """Every argument as an array of one common float type: float64 if any is, else float32.

    Half precision is widened on entry: sums over time and exponentials of log-ratios overflow in it.
    """
    arrays = [read_array(name, value) for name, value in named.items()]
    dtype = jnp.float64 if any(array.dtype == jnp.float64 for array in arrays) else jnp.float32
    return [array.astype(dtype) for array in arrays]


def read_scalar(name: str, value: ArrayLike, dtype: jnp.dtype) -> jax.Array:
    """A knob (gamma, clip_param, …): a Python number or a traced array of shape ()."""
    scalar = read_array(name, value)
    check_shape(name, scalar, ())
    return scalar.astype(dtype)


def read_mask(name: str, value: ArrayLike, *shapes: tuple[int, ...]) -> jax.Array:
    """Flags as booleans (0/1 of any type are read as flags), of one of the shapes given."""
    mask = read_array(name, value)
    check_shape(name, mask, *shapes)
    return mask.astype(bool)


def check_shape(name: str, array: jax.Array, *shapes: tuple[int, ...]) -> None:
    """ValueError that names the argument, the shape it has and the shapes it may have."""
    if array.shape not in shapes:
        raise ValueError(f"{name}: got shape {array.shape}, needs {' or '.join(str(shape) for shape in shapes)}")
