"""Arrays and times that a user hands in, checked."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float64, PyTree, Shaped

from nthsim.inputs.integers import count, shown
from nthsim.solvers.compiled import is_staged, is_traced

#: What may have been meant as labels.
LABELLED = ("y", "y_test")


def choice(name: str, value: object, choices: Sequence[str]) -> str:
    """Return `value`, which must be one of `choices`.

    Raises:
        ValueError: it is none of them.
    """
    if isinstance(value, str) and value in choices:
        return value
    listed = ", ".join(repr(item) for item in choices)
    raise ValueError(f"`{name}` must be one of {listed}, but is {shown(value)}.")


def real(name: str, value: object) -> Shaped[Array | np.ndarray, "..."]:
    """Return `value` as an array of integers or floats, a JAX array (also a traced one) as it is.

    Raises:
        ValueError: `value` is ragged, boolean, complex or no array of numbers at all, or has masked
            entries, behind which other numbers stand.
    """
    mask = np.ma.getmaskarray(value) if isinstance(value, np.ma.MaskedArray) else np.zeros(())
    if mask.any():
        place = f"{name}{np.argwhere(mask)[0].tolist()}" if mask.ndim else name
        raise ValueError(f"`{name}` must have no masked entries, but {place} is masked.")
    try:
        array = value if isinstance(value, jax.Array) else np.asarray(value)
    except ValueError as error:
        raise ValueError(
            f"`{name}` must be an array of real numbers, but its rows have unequal lengths."
        ) from error
    except TypeError as error:  # of what refuses to become an array
        raise ValueError(
            f"`{name}` must be an array of real numbers, but is a {type(value).__name__}."
        ) from error
    # NumPy counts time differences (kind "m") among the integers.
    integral = jnp.issubdtype(array.dtype, jnp.integer) and array.dtype.kind != "m"
    if not (integral or jnp.issubdtype(array.dtype, jnp.floating)):
        named = name in LABELLED and array.dtype.kind in "bOUT"
        cure = "; `Dataset.labelled` takes labels" if named else ""
        raise ValueError(
            f"`{name}` must be an array of real numbers, but has dtype {array.dtype}{cure}."
        )
    return array


def finite(name: str, array: Shaped[Array | np.ndarray, "..."]) -> None:
    """Refuse NaN and infinity; a traced array, which has no values yet, passes.

    Raises:
        ValueError: an entry is not finite; the sentence names the first.
    """
    try:
        values = np.asarray(array)
    except jax.errors.TracerArrayConversionError:
        return
    bad = np.argwhere(~np.isfinite(values))
    if len(bad):
        index = bad[0].tolist()
        entry = f"{name}{index}" if index else name
        raise ValueError(
            f"`{name}` must be finite, but {entry} is {values[tuple(index)]} in {values.dtype}."
        )


def whole(
    name: str,
    before: Shaped[Array | np.ndarray, "..."] | None,
    after: Shaped[Array, "..."] | None,
) -> None:
    """Refuse whole numbers, indices say, that became others in another precision.

    Raises:
        ValueError: All that was there are whole numbers, and one of them is another now.
    """
    if before is None or after is None:
        return
    try:
        old, new = (np.asarray(array).astype(np.float64) for array in (before, after))
    except jax.errors.TracerArrayConversionError:
        return
    changed = np.argwhere(old != new)
    if len(changed) and np.all(old == np.round(old)):
        index = tuple(changed[0].tolist())
        raise ValueError(
            f"`{name}` must hold whole numbers that {after.dtype} has, but {old[index]:.0f} would "
            f"be {new[index]:.0f}."
        )


def concrete(what: str, *arrays: PyTree) -> None:
    """Refuse arrays that are traced, and to be called where all are.

    Raises:
        ValueError: When one is; the sentence names `what` cannot be transformed.
    """
    if is_staged(*arrays):
        raise ValueError(
            "`model`, `data` and `regulariser` must hold concrete arrays, but are traced here: "
            f"{what} cannot be transformed by jit, grad or vmap."
        )


def times(ts: object, name: str = "ts") -> Float64[np.ndarray, " T"]:
    """Return save times as a new NumPy array in float64, whatever JAX's precision is.

    Raises:
        ValueError: they are not one-dimensional, empty, not finite, negative, or does not
            increase strictly.
    """
    if is_traced(ts):
        raise ValueError(f"`{name}` must hold concrete times, but is traced here.")
    values = np.array(real(name, ts), dtype=np.float64)
    if values.ndim != 1 or not values.size:
        raise ValueError(
            f"`{name}` must be a one-dimensional array of at least one time, "
            f"but has shape {values.shape}."
        )
    finite(name, values)
    if values[0] < 0:
        raise ValueError(f"`{name}` must start at 0 or later, but {name}[0] = {values[0]}.")
    falls = np.flatnonzero(np.diff(values) <= 0)
    if len(falls):
        i = falls[0] + 1
        raise ValueError(
            f"`{name}` must increase strictly, but {name}[{i}] = {values[i]} "
            f"follows {values[i - 1]}."
        )
    return values


def log_times(t0: float, t1: float, num: int) -> Float[np.ndarray, " num"]:
    """Zero, and then save times evenly spaced in log t from t0 to t1; `num` in all.

    For runs that end by an `Until`, give any t1 beyond.

    Raises:
        ValueError: When not 0 < t0 < t1 < infinity, or `num` is less than 3.
    """
    num = count("num", num, 3)
    numbers = all(np.ndim(t) == 0 and np.asarray(t).dtype.kind in "iuf" for t in (t0, t1))
    if not (numbers and 0 < t0 < t1 < np.inf):
        raise ValueError(f"`t0` and `t1` must be positive and rise, but are {t0!r} and {t1!r}.")
    return np.concatenate([[0.0], np.geomspace(t0, t1, num - 1)])
