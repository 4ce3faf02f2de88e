"""A data set: training inputs and targets, and test points that are only looked at."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped
from numpy.typing import ArrayLike

from nthsim.inputs.arrays import finite, real, whole

#: What whole numbers may index in: of these they must stay what they are.
INPUTS = ("x", "x_test")


class Dataset(eqx.Module):
    r"""Training data $(x_i, y_i)$, $i = 1..n$, and passive test points.

    The arrays are kept as they are given, in JAX's default float type: nothing is centred or
    scaled (see `normalised`). One input may have any shape, so that images can stay images.

    Args:
        x: training inputs, shape (n, d) or (n, ...).
        y: training targets, shape (n,) or (n, k).
        x_test: test inputs, shaped like `x` but for their number; they never act on training.
        y_test: test targets, shaped like `y` but for their number; None if unknown.

    Raises:
        ValueError: an array is not of real, finite numbers, is empty, or does not fit the others.
    """

    x: Float[Array, "n ..."]
    y: Float[Array, " n"] | Float[Array, "n k"]
    x_test: Float[Array, "t ..."] | None
    y_test: Float[Array, " t"] | Float[Array, "t k"] | None

    def __init__(
        self,
        x: ArrayLike,
        y: ArrayLike,
        x_test: ArrayLike | None = None,
        y_test: ArrayLike | None = None,
    ):
        """Check the arrays and convert them."""
        checked = validated(x=x, y=y, x_test=x_test, y_test=y_test)
        self.x = _converted("x", checked["x"])
        self.y = _converted("y", checked["y"])
        self.x_test = _converted("x_test", checked["x_test"]) if "x_test" in checked else None
        self.y_test = _converted("y_test", checked["y_test"]) if "y_test" in checked else None

    @property
    def n(self) -> int:
        """Number of training points."""
        return self.x.shape[0]

    @property
    def n_test(self) -> int:
        """Number of test points."""
        return 0 if self.x_test is None else self.x_test.shape[0]

    @property
    def outputs(self) -> int:
        """Number k of outputs; 1 for scalar targets."""
        return 1 if self.y.ndim == 1 else self.y.shape[1]

    def normalised(self, *, center: bool = True, unit: bool = True) -> "Dataset":
        """Centre and scale the inputs, in float64, as `normalise` does; targets stay.

        Not for use under `jax.jit`, as it looks at the values.

        Raises:
            ValueError: an input is zero, so that it has no direction.
        """
        test = None if self.x_test is None else np.asarray(self.x_test, np.float64)
        x, x_test = normalise(np.asarray(self.x, np.float64), test, center=center, unit=unit)
        return Dataset(x, self.y, x_test, self.y_test)

    def __repr__(self) -> str:
        """Name every field with its type and shape, whatever JAX has put in the fields."""
        shown = (
            f"{field.name}={eqx.tree_pformat(getattr(self, field.name))}"
            for field in dataclasses.fields(self)
        )
        return f"Dataset({', '.join(shown)})"

    def __str__(self) -> str:
        """Tell a human what is in it."""
        outputs = "1 output" if self.outputs == 1 else f"{self.outputs} outputs"
        return (
            f"Dataset of {self.n} training and {self.n_test} test points, "
            f"inputs of shape {self.x.shape[1:]}, {outputs}, {self.x.dtype}"
        )


def validated(**arrays: object) -> dict[str, Shaped[Array | np.ndarray, "..."]]:
    """Return those of `x`, `y`, `x_test`, `y_test` that are not None as arrays that fit together.

    Raises:
        ValueError: as `Dataset` says.
    """
    given = {
        name: real(name, value)
        for name, value in arrays.items()
        if value is not None or name in ("x", "y")
    }
    if "y_test" in given and "x_test" not in given:
        raise ValueError("`y_test` must come with `x_test`, but `x_test` is None.")
    x, y = given["x"].shape, given["y"].shape
    if len(x) < 2:
        raise ValueError(f"`x` must have shape (n, d) or (n, ...), but has shape {x}.")
    _fits("y", y, {(x[0],), (x[0], *y[1:2])}, f"({x[0]},) or ({x[0]}, k) like `x`")
    if "x_test" in given:
        t = given["x_test"].shape[:1]
        _fits("x_test", given["x_test"].shape, {(*t, *x[1:])}, f"{_open(x)} like `x`")
        if "y_test" in given:
            wanted = (*t, *y[1:])
            _fits("y_test", given["y_test"].shape, {wanted}, f"{wanted} like `x_test` and `y`")
    for name, array in given.items():
        if not array.size:
            raise ValueError(f"`{name}` must not be empty, but has shape {array.shape}.")
        finite(name, array)
    return given


def normalise(
    x: Float[np.ndarray, "n ..."],
    x_test: Float[np.ndarray, "t ..."] | None,
    *,
    center: bool,
    unit: bool,
) -> tuple[Float[np.ndarray, "n ..."], Float[np.ndarray, "t ..."] | None]:
    """Subtract the training mean of every feature, then scale every input to unit Euclidean norm.

    The test inputs lose the mean of the training inputs, not their own.

    Raises:
        ValueError: an input to be scaled is zero, up to the rounding of the mean.
    """
    mean = np.zeros_like(x[0])
    if center:
        mean = x.mean(axis=0)
        mean = mean + (x - mean).mean(axis=0)  # a second pass, so that rounding is free of n
    x, x_test = x - mean, None if x_test is None else x_test - mean
    if unit:
        rounding = 4 * np.finfo(x.dtype).eps * np.abs(mean)
        x = _unit("x", x, rounding)
        x_test = None if x_test is None else _unit("x_test", x_test, rounding)
    return x, x_test


def _unit(
    name: str, x: Float[np.ndarray, "n ..."], rounding: Float[np.ndarray, "..."]
) -> Float[np.ndarray, "n ..."]:
    """Scale every input to unit norm, where it is more than `rounding` away from zero."""
    rows = x.reshape(len(x), -1)
    zeros = np.flatnonzero(np.all(np.abs(rows) <= rounding.ravel(), axis=1))
    if len(zeros):
        centred = " after centring" if rounding.any() else ""
        raise ValueError(
            f"`{name}` must hold only non-zero inputs to be scaled to unit norm, "
            f"but {name}[{zeros[0]}] is zero{centred}."
        )
    rows = rows / np.abs(rows).max(axis=1, keepdims=True)  # else the square of 1e200 overflows
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).reshape(x.shape)


def _fits(name: str, shape: tuple[int, ...], allowed: set[tuple[int, ...]], wanted: str) -> None:
    """Refuse a shape that is not among the `allowed`, which `wanted` puts in words."""
    if shape not in allowed:
        raise ValueError(f"`{name}` must have shape {wanted}, but has shape {shape}.")


def _open(shape: tuple[int, ...]) -> str:
    """Write a shape with its number of points left open, as (t, 8, 8)."""
    return f"({', '.join(['t', *map(str, shape[1:])])})"


def _converted(name: str, array: Shaped[Array | np.ndarray, "..."]) -> Float[Array, "..."]:
    """Convert to JAX's default float type, refusing what is too large for it."""
    dtype = jnp.result_type(float)
    with np.errstate(over="ignore"):  # the overflow is refused below, in a sentence
        numbers = array if isinstance(array, jax.Array) else np.asarray(array, dtype)
        converted = jnp.array(numbers, dtype)  # a copy: a caller may change the buffer
    finite(name, converted)
    if name in INPUTS:
        whole(name, array, converted)
    return converted
