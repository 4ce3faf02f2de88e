"""What is added to the loss for the sake of a network's parameters, such as weight decay."""

import dataclasses
from collections.abc import Callable
from itertools import pairwise
from typing import Any, TypeGuard

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int, PyTree

from nthsim.network.coefficients import coefficients
from nthsim.network.failures import first_line
from nthsim.network.function_contents import described
from nthsim.network.network import Network, precision
from nthsim.network.program import program, repeatable
from nthsim.network.same_functions import alike, hint
from nthsim.network.trained import trained
from nthsim.solvers.comparisons import compares
from nthsim.solvers.compiled import compiled, is_staged, is_traced
from nthsim.solvers.xla import Traced

#: Operations by which a gradient surely jumps somewhere, and by which it may.
SURELY = frozenset({"sign", "floor", "ceil", "round"})
PERHAPS = frozenset(
    {"abs", "max", "min", "clamp", "select_n", "gt", "lt", "ge", "le", "eq", "ne"}
    | {"reduce_max", "reduce_min", "cummax", "cummin", "argmax", "argmin", "sort", "top_k"}
    | {"sqrt", "rsqrt", "pow", "div", "eigh", "svd"}
)

#: Where a gradient is looked at: at multiples of all parameters between these, and so many times
#: their size to either side of them, on so many pieces of these lines, each cut in so many parts.
#: Most of what it changes by on a piece is on one part where it jumps, and on one part of that
#: again, so many times.
LINE, ASIDE, PIECES, PARTS, MOST, ZOOMS = (-1.0, 4.0), 3.0, 32, 4, 0.7, 8

ThetaPath = tuple[PyTree[Array], ...]
Regulariser = Callable[[PyTree], Any]


def _strength(value: Any) -> Any:
    if is_traced(value):
        return value
    number = float(value) if np.ndim(value) == 0 and not isinstance(value, bool | str) else np.nan
    if not (np.isfinite(number) and number >= 0):
        raise ValueError(f"`strength` must be a number of at least 0, but is {value!r}.")
    return number


class WeightDecay(eqx.Module):
    r"""$R = \tfrac\lambda2 |\theta|^2$ over all arrays that train, or $|\theta - \theta_0|^2$.

    A regulariser that pulls parameters towards zero, by which a linear model comes to the ridge
    solution, or towards where they start. Where arrays train at `rates`, each decays at its rate
    times $\lambda$. In a function of your own, call it on the module: `WeightDecay(0.1)(model)`,
    or with `towards="start"` on the module and that at the start.

    Args:
        strength: $\lambda$, at least 0.
        towards: "zero" or "start".

    Raises:
        ValueError: When an argument is not as above, or the start is missing in a call.
    """

    strength: Any = eqx.field(converter=_strength)
    towards: str = "zero"

    def __check_init__(self):
        """Check what a user said."""
        if self.towards not in ("zero", "start"):
            raise ValueError(f'`towards` must be "zero" or "start", but is {self.towards!r}.')

    def __call__(self, model: PyTree, start: PyTree = None) -> Float[Array, ""]:
        """Evaluate for a module, whose parameters were those of `start`."""
        if self.towards == "start" and start is None:
            raise ValueError(
                '`start` must be the module at the start where decay is towards="start", but is '
                "left out: call WeightDecay(...)(model, start)."
            )
        only = lambda module: eqx.filter(module, trained(module))  # noqa: E731
        return self.of(only(model), only(start) if self.towards == "start" else None)

    def of(self, theta: PyTree[Array], start: PyTree[Array] | None) -> Float[Array, ""]:
        """Evaluate for arrays, and for those at the start where decay is towards these."""
        away = theta if start is None else jax.tree.map(jnp.subtract, theta, start)
        squares = [jnp.sum(a * a) for a in jax.tree.leaves(away)]
        return 0.5 * self.strength * sum(squares[1:], start=squares[0])


def is_decay(regulariser: object) -> TypeGuard[WeightDecay]:
    """Whether it is a `WeightDecay` and no class made of it, which may do something else."""
    return type(regulariser) is WeightDecay


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
        if is_decay(self.regulariser):
            home = self.network.scaled(self.start) if self.regulariser.towards == "start" else None
            return self.regulariser.of(self.network.scaled(theta), home)
        return self.regulariser(self.network.model(theta))

    def gradient(self, theta: PyTree[Array]) -> PyTree[Array]:
        r"""$\nabla R$."""
        return jax.grad(self)(theta)

    def gradients(self, path: ThetaPath) -> ThetaPath:
        r"""$[\epsilon^j] \nabla R$ along a path of parameters."""
        if not is_decay(self.regulariser):
            return tuple(coefficients(self.gradient, path, nested=True))
        first, *later = path  # of what is linear in them
        along = lambda theta: jax.jvp(self.gradient, (first,), (theta,))[1]  # noqa: E731
        return self.gradient(first), *map(along, later)


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
    if is_decay(regulariser):  # data, not compiled in
        strength = jnp.asarray(regulariser.strength, precision(theta))
        regulariser = eqx.tree_at(lambda decay: decay.strength, regulariser, strength)
    hint("regulariser", regulariser)
    found = Penalty(network, alike(regulariser), theta)
    _check_value(found, theta)
    arrays, rest = eqx.partition(found, eqx.is_array)  # whose values are no part of programs
    try:
        value = lambda arrays, at: eqx.combine(arrays, rest)(at)  # noqa: E731
        traced, again = (program(value, arrays, theta) for _ in range(2))
        operations = program(found.gradient, theta).operations
    except Exception as error:  # whatever a stranger's function raises
        raise ValueError(
            "`regulariser` must be a function of the model with a gradient, but fails on it: "
            f"{first_line(error)}."
        ) from error
    digest = repeatable("regulariser", traced, again, described, arrays, theta)
    now = Traced(digest, compares(traced.traced, found, theta))
    found = dataclasses.replace(found, program=now, jumps=not SURELY.isdisjoint(operations))
    if is_staged(theta):
        return found
    if not _is_finite(found, theta):
        raise ValueError(
            "`regulariser` must have a finite gradient at the start, but has none there."
        )
    perhaps = not found.jumps and not PERHAPS.isdisjoint(operations)
    return dataclasses.replace(found, jumps=found.jumps or (perhaps and _leaps(found, theta)))


@compiled
def _is_finite(penalty: Penalty, theta: PyTree[Array]) -> Bool[Array, ""]:
    leaves = jax.tree.leaves(penalty.gradient(theta))
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in leaves]))


def _leaps(penalty: Penalty, theta: PyTree[Array]) -> bool:
    """Whether some entry of the gradient jumps on a line through zero, or on one to the side."""
    dtype = precision(theta)
    zero = jax.tree.map(jnp.zeros_like, theta)
    for ends, start, direction in ((LINE, zero, theta), ((-ASIDE, ASIDE), theta, _aside(theta))):
        for piece in pairwise(np.linspace(*ends, PIECES + 1)):
            low, high = piece
            for _ in range(ZOOMS):
                here = jnp.asarray(low, dtype), jnp.asarray(high, dtype)
                found, part = _part(penalty, start, direction, *here)
                if not found:
                    break
                low, high = low + (high - low) * np.array([int(part), int(part) + 1]) / PARTS
            else:
                return True
    return False


def _aside(theta: PyTree[Array]) -> PyTree[Array]:
    """A direction of the size of all parameters that has nothing to do with them."""
    flat, back = ravel_pytree(theta)
    size = jnp.sqrt(jnp.mean(flat**2))
    return back(size * jnp.cos(jnp.arange(1, 1 + flat.size, dtype=flat.dtype) ** 2))


@compiled
def _part(
    penalty: Penalty,
    start: PyTree[Array],
    direction: PyTree[Array],
    low: Float[Array, ""],
    high: Float[Array, ""],
) -> tuple[Bool[Array, ""], Int[Array, ""]]:
    """Whether on one part of a piece some entry changes by most of what it does, and on which."""

    def gradient(s: Array) -> Array:
        at = jax.tree.map(lambda a, b: a + s * b, start, direction)
        return ravel_pytree(penalty.gradient(at))[0]

    rows = jax.lax.map(gradient, jnp.linspace(low, high, PARTS + 1, dtype=low.dtype))
    steps = jnp.abs(jnp.diff(rows, axis=0))
    whole = jnp.sum(steps, axis=0)
    least = jnp.sqrt(jnp.finfo(low.dtype).eps) * jnp.max(jnp.abs(rows))
    found = (jnp.max(steps, axis=0) > MOST * whole) & (whole > least)
    return jnp.any(found), jnp.argmax(steps[:, jnp.argmax(found)])


def regulariser_name(regulariser: Regulariser | str) -> str:
    """Such as "WeightDecay(0.1)", or the name of a function; one that is a name stays."""
    if is_decay(regulariser) and not is_traced(regulariser.strength):
        towards = "" if regulariser.towards == "zero" else f', towards="{regulariser.towards}"'
        return f"WeightDecay({float(regulariser.strength):g}{towards})"
    if isinstance(regulariser, str):
        return regulariser
    return getattr(regulariser, "__name__", type(regulariser).__name__)


def _check_value(found: Penalty, theta: PyTree[Array]) -> None:
    """Refuse a regulariser that fails on the model, or returns no scalar of its precision."""
    try:
        value = jax.eval_shape(found, theta)
    except Exception as error:  # whatever a stranger's function raises
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
        name = regulariser_name(found.regulariser)
        raise ValueError(f"`regulariser` must be left out for {what}, but is {name}.")
