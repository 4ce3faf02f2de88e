"""What is recorded along a run besides outputs: a quantity of its state at save times."""

import abc
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from nthsim.inputs.arrays import finite, real
from nthsim.network.failures import first_line
from nthsim.network.function_contents import described
from nthsim.results.moment import Moment
from nthsim.results.record import Label, digest
from nthsim.results.variables import AXES, ERRORS, VARIABLES
from nthsim.solvers.integration import Unrecorded

#: What a recording may not be called, as a run or a file has it already.
TAKEN = {*VARIABLES, *AXES, *ERRORS.values(), "ts", "record_ts", "contributions", "records"}
TAKEN |= {"labels", "trained_parameters", "curve"}


class Observable(eqx.Module):
    """A named quantity that is recorded along a run, at those save times that the run chooses.

    Of a network's parameters, if `of_parameters`; then what moves those alone has it:
    exact flow, descent and the modified flow.
    """

    name: eqx.AbstractVar[str]
    of_parameters: eqx.AbstractVar[bool]

    @abc.abstractmethod
    def evaluate(self, moment: Moment) -> dict[str, np.ndarray]:
        """The quantity at one moment: named arrays, the same and of the same shapes each time."""

    @abc.abstractmethod
    def labels(self, problem: Any) -> dict[str, Label]:
        """The axes and units of those arrays that nthsim does not know by their names."""

    @property
    def number(self) -> int | None:
        """How many of something it is, where that is to be told."""
        return None

    @property
    def word(self) -> str:
        """What asks for it, such as "spectrum:5", and files know it by."""
        return self.name if self.number is None else f"{self.name}:{self.number}"

    @property
    def from_word(self) -> bool:
        """Whether its word alone makes it again, as from a file."""
        return True

    def mark(self, problem: Any) -> str:
        """What tells it from another of its name."""
        del problem
        return self.word

    def recorded(self, moment: Moment, known: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """What it is at a moment, beside what is `known` then, in types that files have.

        Raises:
            Unrecorded: When it fails, or is called what something else is.
        """
        own = isinstance(self, TangentKernel)
        try:
            found = self.evaluate(moment)
            # A stranger's may be a buffer that goes on to be used.
            values = {
                name: _storable(np.array(a, copy=not own or None)) for name, a in found.items()
            }
        except Unrecorded:
            raise
        except Exception as error:  # whatever a stranger's class raises
            raise self.failure(error) from error
        for name in values:
            if name in known or (name in TAKEN and not own):
                raise Unrecorded(f"{self.name} records {name}, which is there already")
        return values

    def failure(self, error: Exception) -> Unrecorded:
        """What is said of an error of a stranger's."""
        return Unrecorded(f"{self.name} fails: {first_line(error)}")

    @staticmethod
    def of(
        name: str,
        fn: Callable[[PyTree], Any],
        *,
        axes: Mapping[str, Sequence[Any]] | None = None,
        unit: str = "1",
    ) -> "Observable":
        """A quantity of your own, recorded along exact flow and descent.

        Args:
            name: What it is called in `Trajectory.records`, in tables, figures and files: a word of
                letters, digits and _ that results do not have already.
            fn: Called with the network of each moment, a module like the one that is trained;
                returns real numbers, of the shape of `axes`. It need not be JAX's. It is tried once
                before the run.
            axes: The names of the axes, and the coordinates along each; none for a single number.
            unit: The unit, for people.

        Raises:
            ValueError: When an argument is not as above; once a run begins, when `fn` does not
                return what it must.
        """
        check_name(name)
        if not (isinstance(unit, str) and unit.isprintable()):
            raise ValueError(f"`unit` must be a word, but is {unit!r}.")
        if not isinstance(axes, Mapping | None):
            raise ValueError(f"`axes` must map names to coordinates, but is {axes!r}.")
        if not callable(fn):
            raise ValueError(f"`fn` must be a function of a network, but is {fn!r}.")
        coordinates = {axis: _coordinates(axis, values) for axis, values in (axes or {}).items()}
        return Own(name=name, fn=fn, label=Label(tuple(coordinates), unit, coordinates))


class TangentKernel(Observable):
    r"""$K^{(2)}$, that of a dynamics at each moment, as `kernel` and `kernel_test`."""

    name: str = "kernel"
    of_parameters: bool = False

    def evaluate(self, moment: Moment) -> dict[str, np.ndarray]:
        """The moment's own."""
        return shaped(moment.problem, moment.kernel)

    def labels(self, problem: Any) -> dict[str, Label]:
        """It is known by its name."""
        del problem
        return {}


class AbstractOwn(Observable):
    """What a user's own function makes of the network."""

    fn: eqx.AbstractVar[Callable[..., Any]]

    @property
    def from_word(self) -> bool:
        """A file has no functions."""
        return False

    def tried(self, call: Callable[..., Any], *arguments: Any) -> Any:
        """What a call of the function returns before the run.

        Raises:
            ValueError: When it fails.
        """
        try:
            return call(*arguments)
        except Exception as error:  # whatever a stranger's function raises
            raise refused(
                error if isinstance(error, Unrecorded) else self.failure(error)
            ) from error

    def mark(self, problem: Any) -> str:
        """Its name, coordinates, what it is made of, and what it is near the initial parameters."""
        made = described(self.fn, placed=False)
        moved = Moment.of_parameters(problem, jax.tree.map(_moved, problem.theta))
        try:
            shown = " ".join(map(_digits, self.recorded(moved, {}).values()))
        except Unrecorded as error:
            shown = str(error)
        if made != described(self.fn, placed=False):  # it keeps a log, say
            made = described(self.fn, placed=False, inside=False)
        labels = {name: label.facts() for name, label in self.labels(problem).items()}
        return f"{self.name} {json.dumps(labels)} {digest((), made)} {shown}"


class Own(AbstractOwn):
    """A user's own quantity, a function of the network."""

    name: str
    of_parameters: bool = eqx.field(default=True, init=False)
    fn: Callable[[PyTree], Any] = eqx.field(static=True, kw_only=True)
    label: Label = eqx.field(kw_only=True)

    def evaluate(self, moment: Moment) -> dict[str, np.ndarray]:
        """What the function returns.

        Raises:
            Unrecorded: When it fails, or returns something else than it must.
        """
        values = np.asarray(real(self.name, self.fn(moment.model)))
        if values.shape != self.label.shape:
            raise Unrecorded(f"{self.name} has shape {values.shape}, not {self.label.shape}")
        return {self.name: values}

    def labels(self, problem: Any) -> dict[str, Label]:
        """As they were given."""
        del problem
        return {self.name: self.label}


def _storable(values: np.ndarray) -> np.ndarray:
    """The same numbers in a type that files have: NumPy lacks what JAX has of 16 bits and fewer."""
    if values.dtype == np.longdouble:
        return values.astype(float)
    return values.astype(np.float32) if values.dtype.kind == "V" else values


def shaped(problem: Any, kernel: Float[np.ndarray, "... N_first N"]) -> dict[str, np.ndarray]:
    """Training apart from test points in the first slot, samples apart from outputs in both."""
    n, out = len(problem.x), problem.out_shape
    whole = kernel.reshape(*kernel.shape[:-2], -1, *out, n, *out)
    at = (slice(None),) * (kernel.ndim - 2)
    test = {} if problem.x_test is None else {"kernel_test": whole[(*at, slice(n, None))]}
    return {"kernel": whole[(*at, slice(n))]} | test


def refused(why: Unrecorded) -> ValueError:
    """What is said before a run of what could not be recorded along it."""
    return ValueError(
        f"`record` must hold functions that map a network to what they say, but {why}."
    )


def check_name(name: str) -> None:
    """Refuse what a recording may not be called.

    Raises:
        ValueError: When it is no word, or one that results have already.
    """
    if not (isinstance(name, str) and name.isidentifier()):
        raise ValueError(f"`name` must be a word of letters, digits or _, but is {name!r}.")
    if name in TAKEN:
        raise ValueError(f"`name` must be none that results have already, but is {name!r}.")


def _digits(values: np.ndarray) -> str:
    """Six digits of the largest number, so that rounding elsewhere does not count."""
    scale = np.abs(values).max(initial=0) or 1.0
    return f"{scale:.5g} " + " ".join(f"{value:.5f}" for value in values.ravel() / scale)


def _coordinates(axis: str, values: Sequence[Any]) -> np.ndarray:
    if not (isinstance(axis, str) and axis.isidentifier()):
        raise ValueError(f"`axes` must have names of letters, digits and _, but has {axis!r}.")
    found = values if isinstance(values, np.ma.MaskedArray) else np.asarray(values)
    if found.ndim != 1 or not found.size:
        raise ValueError(f"`axes` must have one row of coordinates for {axis}, but has {values!r}.")
    if found.dtype.kind == "U":
        found = np.array(found.tolist())  # as wide as its longest word, as files keep it
    else:
        finite("axes", real("axes", found))
        array = np.asarray(found)
        kind = array.dtype.newbyteorder("=") if array.dtype.kind in "iu" else float
        found = np.array(array, kind)  # a copy, in a type that files have
    if len(np.unique(found)) < len(found):
        raise ValueError(f"`axes` must have each coordinate of {axis} once, but has {values!r}.")
    return found


def _moved(leaf: Array) -> Array:
    """Parameters all of which are a little away from where they were."""
    turns = jnp.cos(jnp.arange(leaf.size)).reshape(leaf.shape)
    return leaf + jnp.asarray(0.1 * turns, leaf.dtype)
