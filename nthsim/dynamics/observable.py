"""What is recorded along a run besides outputs: a quantity of its state at save times."""

import abc
import functools
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
from nthsim.results.record import Label, digest
from nthsim.results.variables import AXES, ERRORS, VARIABLES
from nthsim.solvers.integration import Unrecorded

#: What a recording may not be called, as a run or a file has it already.
TAKEN = {*VARIABLES, *AXES, *ERRORS.values(), "ts", "record_ts", "contributions", "records"}
TAKEN |= {"labels", "trained_parameters", "curve"}


class Moment:
    """One save time of a run; what is made of the state is made when asked for, and once."""

    def __init__(
        self,
        t: float,
        problem: Any,
        theta: PyTree[Array] | None,
        kernel: Callable[[], Array | np.ndarray],
    ) -> None:
        """Of a `Problem`, which is no import here for the floors' sake.

        `theta` are the parameters, None where a dynamics has none; `kernel` makes K^(2).
        """
        self.t, self.problem, self.theta, self._kernel = t, problem, theta, kernel

    @functools.cached_property
    def kernel(self) -> Float[np.ndarray, "N_first N"]:
        r"""$K^{(2)}$ of training and test points by training points."""
        return np.asarray(self._kernel())

    @functools.cached_property
    def model(self) -> PyTree:
        """The user's module with the parameters of this moment."""
        return self.problem.network.model(self.theta)


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

    def mark(self, problem: Any) -> str:
        """What tells it from another of its name."""
        del problem
        return self.word

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
        if not (isinstance(name, str) and name.isidentifier()):
            raise ValueError(f"`name` must be a word of letters, digits or _, but is {name!r}.")
        if name in TAKEN:
            raise ValueError(f"`name` must be none that results have already, but is {name!r}.")
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


class Own(Observable):
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

    def mark(self, problem: Any) -> str:
        """Its name, coordinates, what it is made of, and what it is near the initial parameters."""
        made = described(self.fn, placed=False)
        moved = Moment(0.0, problem, jax.tree.map(_moved, problem.theta), lambda: jnp.zeros(()))
        try:
            values = _evaluated(self, moved, {})[self.name].ravel()
            # Six digits of the largest, so that rounding elsewhere does not count.
            scale = np.abs(values).max(initial=0) or 1.0
            shown = f"{scale:.5g} " + " ".join(f"{value:.5f}" for value in values / scale)
        except Unrecorded as error:
            shown = str(error)
        if made != described(self.fn, placed=False):  # it keeps a log, say
            made = described(self.fn, placed=False, inside=False)
        return f"{self.name} {json.dumps(self.label.facts())} {digest((), made)} {shown}"


class Recorder(eqx.Module):
    """Evaluates observables of a state at those save times that were chosen.

    With `always`, also at a time that nobody knew beforehand, where a run was told to stop.
    """

    times: Float[np.ndarray, " S"]
    always: bool
    observables: tuple[Observable, ...]
    moment: Callable[[float, Any], Moment]

    def __call__(self, t: float, state: Any) -> dict[str, np.ndarray]:
        """All named arrays and `record_ts`, or nothing at other times."""
        if not self.always and t not in self.times:
            return {}
        moment, found = self.moment(t, state), {"record_ts": np.array(t)}
        for each in self.observables:
            found |= _evaluated(each, moment, found)
        return found


def _evaluated(
    observable: Observable, moment: Moment, known: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """What an observable is at a moment.

    Raises:
        Unrecorded: When it fails, or is called what something else is.
    """
    own = isinstance(observable, TangentKernel)
    try:
        found = observable.evaluate(moment)
        # A stranger's may be a buffer that goes on to be used.
        values = {name: _storable(np.array(a, copy=not own or None)) for name, a in found.items()}
    except Unrecorded:
        raise
    except Exception as error:  # whatever a stranger's class raises
        raise Unrecorded(f"{observable.name} fails: {first_line(error)}") from error
    for name in values:
        if name in known or (name in TAKEN and not own):
            raise Unrecorded(f"{observable.name} records {name}, which is there already")
    return values


def _storable(values: np.ndarray) -> np.ndarray:
    """The same numbers in a type that files have: NumPy lacks what JAX has of 16 bits and fewer."""
    if values.dtype == np.longdouble:
        return values.astype(float)
    return values.astype(np.float32) if values.dtype.kind == "V" else values


def check_observables(record: Sequence[Observable], problem: Any) -> None:
    """Try a user's own quantities on the network as it starts.

    Raises:
        ValueError: When one fails, returns something else than it must, or is called what another
            one records.
    """
    start, known = Moment(0.0, problem, problem.theta, lambda: jnp.zeros(())), {}
    for each in record:
        try:
            if each.of_parameters:
                known |= _evaluated(each, start, known)
        except Unrecorded as error:
            raise ValueError(
                f"`record` must hold functions that map a network to what they say, but {error}."
            ) from error


def check_everywhere(record: Sequence[Observable] | None, what: str) -> None:
    """Refuse observables of parameters for a dynamics that has none.

    Raises:
        ValueError: When there is one.
    """
    others = [each.name for each in record or () if each.of_parameters]
    if others:
        raise ValueError(
            f"`record` must hold nothing of a network's parameters for {what}, which has none at "
            f"later times, but holds {others[0]}."
        )


def shaped(problem: Any, kernel: Float[np.ndarray, "... N_first N"]) -> dict[str, np.ndarray]:
    """Training apart from test points in the first slot, samples apart from outputs in both."""
    n, out = len(problem.x), problem.out_shape
    whole = kernel.reshape(*kernel.shape[:-2], -1, *out, n, *out)
    at = (slice(None),) * (kernel.ndim - 2)
    test = {} if problem.x_test is None else {"kernel_test": whole[(*at, slice(n, None))]}
    return {"kernel": whole[(*at, slice(n))]} | test


def labels_of(observables: Sequence[Observable], problem: Any) -> dict[str, Label]:
    """The axes and units of what they record, where a name alone does not tell."""
    return {name: label for each in observables for name, label in each.labels(problem).items()}


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
