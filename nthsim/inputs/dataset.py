"""A data set: training inputs and targets, and test points that are only looked at."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, DTypeLike, Float, Real, Shaped
from numpy.typing import ArrayLike

from nthsim.inputs.arrays import finite, real, whole
from nthsim.inputs.integers import check_truths, shown
from nthsim.inputs.labels import class_names, classes_in, encoded

#: What whole numbers may index in: of these they must stay what they are.
INPUTS = {"x", "x_test"}


class Dataset(eqx.Module):
    r"""Training data $(x_i, y_i)$, $i = 1..n$, and passive test points.

    The arrays are copied as they are given, in JAX's default float type: nothing is centred or
    scaled (see `normalised`). One input may have any shape, so that images can stay images. Inputs
    of integers stay integers, for networks that take only those, as with an `eqx.nn.Embedding`, or
    make something else of them; others get them as floating numbers. Labels become targets by
    `Dataset.labelled`.

    Args:
        x: training inputs, shape (n, d) or (n, ...).
        y: training targets, shape (n,) or (n, k).
        x_test: test inputs, shaped like `x` but for their number; they never act on training.
        y_test: test targets, shaped like `y` but for their number; None if unknown.
        classes: the names of the classes that `y` encodes, if it does: two for -1 and +1, else one
            for each of the k columns.

    Raises:
        ValueError: an array is not of real, finite numbers, is empty, or does not fit the others;
            tables of pandas or xarray have rows of other names.
    """

    x: Real[Array, "n ..."]
    y: Float[Array, " n"] | Float[Array, "n k"]
    x_test: Real[Array, "t ..."] | None
    y_test: Float[Array, " t"] | Float[Array, "t k"] | None
    classes: tuple[Any, ...] = eqx.field(static=True)

    def __init__(
        self,
        x: ArrayLike,
        y: ArrayLike,
        x_test: ArrayLike | None = None,
        y_test: ArrayLike | None = None,
        *,
        classes: Sequence[Any] = (),
    ):
        """Check the arrays and convert them."""
        given = validated(x=x, y=y, x_test=x_test, y_test=y_test)
        types = [given[name].dtype for name in INPUTS & set(given)]
        integers = all(jnp.issubdtype(each, jnp.integer) for each in types)
        alike = types[0] if len(set(types)) == 1 else int  # bytes stay bytes
        kinds = dict.fromkeys(INPUTS, alike if integers else float)
        fields = {name: _converted(name, a, kinds.get(name, float)) for name, a in given.items()}
        self.x, self.y = fields["x"], fields["y"]
        self.x_test, self.y_test = fields.get("x_test"), fields.get("y_test")
        self.classes = class_names(classes)
        columns = max(2, self.outputs)
        if self.classes and len(self.classes) != columns:
            raise ValueError(f"`classes` must name {columns} classes, but has {len(self.classes)}.")

    @staticmethod
    def labelled(
        x: ArrayLike,
        labels: Sequence[Any] | ArrayLike,
        x_test: ArrayLike | None = None,
        labels_test: Sequence[Any] | ArrayLike | None = None,
        *,
        classes: Sequence[Any] | None = None,
        one_hot: bool = False,
    ) -> "Dataset":
        """Data whose targets are classes, named by integers, words or categories of pandas.

        Two classes become the targets -1 and +1, `y` of shape (n,); k > 2 of them the one-hot
        vector minus 1/k, `y` of shape (n, k), for each of nthsim's losses. They stay in `classes`.

        Args:
            x: training inputs, shape (n, d) or (n, ...).
            labels: the class of each, shape (n,).
            x_test: test inputs.
            labels_test: the class of each, shape (t,); None if unknown.
            classes: all classes in the order of the targets; None means those among the training
                labels, sorted, or in the order of pandas' categories.
            one_hot: whether two classes get two columns as well.

        Raises:
            ValueError: as in `Dataset`, or a label is missing or none of the classes.
        """
        check_truths(one_hot=one_hot)
        _check_rows(x=x, labels=labels)
        _check_rows(x_test=x_test, labels_test=labels_test)
        names = classes_in(labels) if classes is None else class_names(classes)
        y = encoded("labels", labels, names, one_hot=one_hot)
        y_test = labels_test
        if labels_test is not None:
            y_test = encoded("labels_test", labels_test, names, one_hot=one_hot)
        return Dataset(x, y, x_test, y_test, classes=names)

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
        check_truths(center=center, unit=unit)
        test = None if self.x_test is None else np.asarray(self.x_test, np.float64)
        x, x_test = normalise(np.asarray(self.x, np.float64), test, center=center, unit=unit)
        return Dataset(x, self.y, x_test, self.y_test, classes=self.classes)

    def __repr__(self) -> str:
        """Name every field with its type and shape, whatever JAX has put in the fields."""
        shown = (
            f"{field.name}={eqx.tree_pformat(getattr(self, field.name))}"
            for field in dataclasses.fields(self)
            if field.name != "classes" or self.classes
        )
        return f"Dataset({', '.join(shown)})"

    def __str__(self) -> str:
        """Tell a human what is in it."""
        outputs = "1 output" if self.outputs == 1 else f"{self.outputs} outputs"
        classes = f", classes {', '.join(map(str, self.classes))}" if self.classes else ""
        return (
            f"Dataset of {self.n} training and {self.n_test} test points, "
            f"inputs of shape {self.x.shape[1:]}, {outputs}, {self.x.dtype}{classes}"
        )


def validated(**arrays: object) -> dict[str, Shaped[Array | np.ndarray, "..."]]:
    """Return those of `x`, `y`, `x_test`, `y_test` that are not None as arrays that fit together.

    Raises:
        ValueError: as `Dataset` says.
    """
    _check_rows(x=arrays["x"], y=arrays["y"])
    _check_columns(x=arrays["x"], x_test=arrays.get("x_test"))
    _check_columns(y=arrays["y"], y_test=arrays.get("y_test"))
    _check_rows(x_test=arrays.get("x_test"), y_test=arrays.get("y_test"))
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


def _check_rows(**tables: object) -> None:
    """Refuse labelled tables whose rows have other names, as if they were not shuffled alike."""
    named = {name: _row_names(table) for name, table in tables.items()}
    one, other = named
    if any(names is None for names in named.values()):
        return
    if not np.array_equal(named[one], named[other]):
        raise ValueError(
            f"`{other}` must have the index of `{one}`, but its rows have other names or stand in "
            "another order; bring them into one, or hand in both as arrays by `.to_numpy()`."
        )


def _check_columns(**tables: object) -> None:
    """Refuse those of test points whose columns have other names, or stand in another order."""
    one, other = tables
    columns, others = map(_columns, tables.values())
    if columns is not None and others is not None and columns != others:
        raise ValueError(
            f"`{other}` must have the columns of `{one}`, {shown(columns)}, but has "
            f"{shown(others)}; hand in both as arrays by `.to_numpy()` if that is meant."
        )


def _columns(table: Any) -> list[Any] | None:
    """The names of columns; in xarray those of further axes, with what stands along them."""
    if _is_xarray(table):
        return [(axis, list(table.indexes.get(axis, []))) for axis in table.dims[1:]]
    columns = getattr(table, "columns", None)
    return None if columns is None else list(columns)


def _is_xarray(table: Any) -> bool:
    """Whether this is a `DataArray`: neither a `Dataset` nor a bare `Variable`."""
    package = type(table).__module__.partition(".")[0]
    return package == "xarray" and hasattr(table, "ndim") and hasattr(table, "indexes")


def _row_names(table: Any) -> Any:
    """The names of the rows of what pandas or xarray made; None where there are none."""
    package = type(table).__module__.partition(".")[0]
    if _is_xarray(table) and table.ndim:
        return table.indexes.get(table.dims[0])
    return getattr(table, "index", None) if package == "pandas" else None


def _converted(
    name: str, array: Shaped[Array | np.ndarray, "..."], kind: DTypeLike
) -> Real[Array, "..."]:
    """Convert to JAX's own type of a kind of numbers, refusing what is too large for it."""
    dtype = jnp.result_type(kind)
    with np.errstate(over="ignore"):  # the overflow is refused below, in a sentence
        numbers = array if isinstance(array, jax.Array) else np.asarray(array, dtype)
        converted = jnp.array(numbers, dtype)  # a copy: a caller may change the buffer
    finite(name, converted)
    if name in INPUTS:
        whole(name, array, converted)
    return converted
