"""What is added to the loss for the sake of a network's parameters, such as weight decay."""

import dataclasses
from collections.abc import Callable
from numbers import Real
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from nthsim.network.coefficients import coefficients
from nthsim.network.failures import first_line
from nthsim.network.function_contents import described
from nthsim.network.network import Network, precision
from nthsim.network.program import program
from nthsim.network.same_functions import alike, hint
from nthsim.network.trained import trained
from nthsim.solvers.comparisons import compares
from nthsim.solvers.compiled import is_staged
from nthsim.solvers.xla import Traced

#: Operations by which a gradient may jump.
JUMPS = frozenset({"sign", "select_n", "max", "min", "abs", "floor", "ceil", "round", "clamp"})

ThetaPath = tuple[PyTree[Array], ...]
Regulariser = Callable[[PyTree], Any]


def _strength(value: Any) -> Any:
    if isinstance(value, jax.Array):  # made of one that was checked
        return value
    number = float(value) if isinstance(value, Real) and not isinstance(value, bool) else np.nan
    if not (np.isfinite(number) and number >= 0):
        raise ValueError(f"`strength` must be a number of at least 0, but is {value!r}.")
    return number


class WeightDecay(eqx.Module):
    r"""$R = \tfrac\lambda2 \sum |\theta|^2$ over all arrays that train, or $|\theta - \theta_0|^2$.

    A regulariser for whatever trains a model: pulls parameters towards zero, or towards where they
    `start`, whose kernel regression is the ridge solution of a linear model. Where arrays train at
    `rates`, each decays at its rate times $\lambda$.

    Args:
        strength: $\lambda$, at least 0.
        towards: "zero" or "start".

    Raises:
        ValueError: When an argument is not as above.
    """

    strength: Any = eqx.field(converter=_strength)
    towards: str = "zero"

    def __check_init__(self):
        """Check what a user said."""
        if self.towards not in ("zero", "start"):
            raise ValueError(f'`towards` must be "zero" or "start", but is {self.towards!r}.')

    def __call__(self, model: PyTree, start: PyTree = None) -> Float[Array, ""]:
        """Evaluate for a module; of one that is pulled there, from that at the `start`."""
        theta = eqx.filter(model, trained(model))
        if self.towards == "start" and start is not None:
            theta = jax.tree.map(jnp.subtract, theta, eqx.filter(start, trained(start)))
        squares = [jnp.sum(a * a) for a in jax.tree.leaves(theta)]
        return 0.5 * self.strength * sum(squares[1:], start=squares[0])


class Penalty(eqx.Module):
    r"""A regulariser R as a function of the parameters of a network, which began as `start`.

    The flow of $L + R$ is that of a network with one more output R, whose residual is 1. `jumps`
    says that its gradient may; `program` tells it from itself before something changed that it
    reads.
    """

    network: Network
    regulariser: Regulariser
    start: PyTree[Array]
    program: Traced = Traced()
    jumps: bool = eqx.field(static=True, default=False)

    def __call__(self, theta: PyTree[Array]) -> Any:
        """R at these parameters, whatever a user's function makes of it: see `penalty`."""
        model = self.network.model(theta)
        if isinstance(self.regulariser, WeightDecay):
            return self.regulariser(model, self.network.model(self.start))
        return self.regulariser(model)

    def gradient(self, theta: PyTree[Array]) -> PyTree[Array]:
        r"""$\nabla R$."""
        return jax.grad(self)(theta)

    def gradients(self, path: ThetaPath) -> ThetaPath:
        r"""$[\epsilon^j] \nabla R$ along a path of parameters."""
        return tuple(coefficients(self.gradient, path, nested=True))


def penalty(
    regulariser: Regulariser | None, network: Network, theta: PyTree[Array]
) -> Penalty | None:
    """Check a regulariser against a network; None where there is none.

    Raises:
        ValueError: When it is no function of the module that returns a scalar in the precision of
            its parameters, which has a finite gradient.
    """
    if regulariser is None:
        return None
    if not callable(regulariser) or isinstance(regulariser, type):
        raise ValueError(
            "`regulariser` must be a function of the model, such as WeightDecay(0.1), but is "
            f"{regulariser!r}."
        )
    dtype = precision(theta)
    if isinstance(regulariser, WeightDecay):  # data, not compiled in
        strength = jnp.asarray(regulariser.strength, dtype)
        regulariser = eqx.tree_at(lambda decay: decay.strength, regulariser, strength)
    hint("regulariser", regulariser)
    found = Penalty(network, alike(regulariser), theta)
    try:
        arrays, rest = eqx.partition(found, eqx.is_array)  # whose values are no part of programs
        traced = program(lambda arrays, at: eqx.combine(arrays, rest)(at), arrays, theta)
        gradient = program(found.gradient, theta)
    except Exception as error:  # whatever a stranger's function raises
        _check_value(found, theta, error)
        raise ValueError(
            "`regulariser` must be a function of the model with a gradient, but fails on it: "
            f"{first_line(error)}."
        ) from error
    _check_value(found, theta)
    now = Traced(traced.digest(described), compares(traced.traced, found, theta))
    jumps = not JUMPS.isdisjoint(gradient.operations)
    found = dataclasses.replace(found, program=now, jumps=jumps)
    if not is_staged(theta):
        with jax.default_matmul_precision("highest"):
            numbers = jax.tree.leaves(found.gradient(theta))
        if not all(np.isfinite(np.asarray(leaf)).all() for leaf in numbers):
            raise ValueError(
                "`regulariser` must have a finite gradient at the start, but has none there."
            )
    return found


def regulariser_name(regulariser: Regulariser | str) -> str:
    """Such as "WeightDecay(0.1)", or the name of a function; one that is a name stays."""
    if isinstance(regulariser, WeightDecay):
        towards = "" if regulariser.towards == "zero" else f', towards="{regulariser.towards}"'
        return f"WeightDecay({float(regulariser.strength):g}{towards})"
    if isinstance(regulariser, str):
        return regulariser
    return getattr(regulariser, "__name__", type(regulariser).__name__)


def _check_value(found: Penalty, theta: PyTree[Array], cause: Exception | None = None) -> None:
    """Refuse a regulariser that fails on the model, or returns no scalar of its precision."""
    try:
        value = jax.eval_shape(found, theta)
    except Exception as error:  # whatever a stranger's function raises
        if cause is None:
            raise
        raise ValueError(
            f"`regulariser` must be a function of the model, but fails on it: {first_line(error)}."
        ) from error
    dtype = precision(theta)
    is_array = isinstance(value, jax.ShapeDtypeStruct)
    if not is_array or value.shape:
        what = f"shape {value.shape}" if is_array else type(value).__name__
        raise ValueError(f"`regulariser` must return a scalar for the model, but returns {what}.")
    if value.dtype != dtype:
        raise ValueError(
            "`regulariser` must return a real number in the precision of the parameters, "
            f"{dtype.name}, but returns {value.dtype.name}."
        )


def check_without(found: Penalty | None, what: str) -> None:
    """Refuse a regulariser.

    Raises:
        ValueError: When there is one.
    """
    if found is not None:
        raise ValueError(
            f"`regulariser` must be left out for {what}, but is "
            f"{regulariser_name(found.regulariser)}."
        )
