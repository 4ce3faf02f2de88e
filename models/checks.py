"""What the networks ask of their arguments, each mistake answered in one sentence."""

import math
import operator
import reprlib
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray


def checked_size(name: str, value: object) -> int:
    """Return a size as a plain `int`.

    Raises:
        ValueError: if `value` is not an integer of at least 1.
    """
    size = _as_int(value)
    if size is None or size < 1:
        raise ValueError(f"`{name}` must be an integer of at least 1, but is {_shown(value)}.")
    return size


def checked_out_size(value: object) -> int | Literal["scalar"]:
    """Return the output size, `"scalar"` for an output of shape `()`.

    Raises:
        ValueError: if `value` is neither `"scalar"` nor an integer of at least 1.
    """
    if isinstance(value, str) and value == "scalar":
        return "scalar"
    size = _as_int(value)
    if size is None or size < 1:
        raise ValueError(
            f"`out_size` must be 'scalar' or an integer of at least 1, but is {_shown(value)}."
        )
    return size


def checked_scale(name: str, value: object, *, zero_allowed: bool = False) -> float:
    """Return a scale as a plain `float`.

    Raises:
        ValueError: if `value` is not a finite number above zero, or zero where that is allowed.
    """
    scale = _as_float(value)
    if not math.isfinite(scale) or scale < 0 or (scale == 0 and not zero_allowed):
        kind = "non-negative" if zero_allowed else "positive"
        raise ValueError(f"`{name}` must be a finite {kind} number, but is {_shown(value)}.")
    return scale


def checked_key(value: object) -> PRNGKeyArray:
    """Return a single random key, of the new or of the legacy kind.

    Raises:
        ValueError: if `value` is not one random key.
    """
    if isinstance(value, jax.Array | np.ndarray):
        if jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
            single = value.ndim == 0
        else:
            single = value.dtype == jnp.uint32 and value.ndim == 1
        if single:
            return jnp.asarray(value)
        value = f"an array of type {value.dtype} and shape {value.shape}"
    raise ValueError(f"`key` must be one random key, such as jax.random.key(0), but is {value}.")


def check_input_shape(shape: tuple[int, ...], in_size: int) -> None:
    """Refuse anything but one input; shapes are static, so that this costs nothing under `jit`.

    Raises:
        ValueError: if `shape` is not `(in_size,)`.
    """
    if shape != (in_size,):
        raise ValueError(
            f"`x` must be one input of shape ({in_size},) (jax.vmap maps a batch), "
            f"but is of shape {shape}."
        )


def _shown(value: object) -> str:
    """Any value on one short line."""
    return " ".join(reprlib.repr(value).split())


def _as_int(value: object) -> int | None:
    # True is an integer to Python, and a slip of the pen to everybody else.
    if isinstance(value, bool | np.bool_):
        return None
    try:
        return operator.index(value)  # pyright: ignore[reportArgumentType]
    except TypeError:
        return None


def _as_float(value: object) -> float:
    if isinstance(value, bool | np.bool_ | str):
        return math.nan
    try:
        return float(value)  # pyright: ignore[reportArgumentType]
    except (TypeError, ValueError, OverflowError):
        return math.nan
