"""Gradient transformations of Optax as steps of a network's parameters."""

import hashlib
import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optimistix as optx
from jaxtyping import Array, Float, Key, PyTree

from nthsim.dynamics.problem import Problem
from nthsim.inputs.integers import shown
from nthsim.network.alike import Alike
from nthsim.network.failures import first_line
from nthsim.network.function_contents import described
from nthsim.network.network import Network, precision
from nthsim.network.program import Program, program
from nthsim.solvers.compiled import is_traced
from nthsim.solvers.descent import Steps, Update
from nthsim.solvers.tolerances import positive

#: Two steps along one gradient are the same, and those that a rate tells of, up to this part.
ROUNDING = 1e-5

#: A gradient takes so many times the flops of outputs; a step of more than so many is long.
GRADIENT, LONG = 3, 1e9

#: Entries of gradients that steps are tried on: what clips them shows.
SIZES = (2.0**-10, 1.0, 2.0**10)


class Optimiser(eqx.Module):
    """What a gradient transformation makes of a network's arrays, in its parameters.

    An array at rate D is the root of D times its parameters. It is what the transformation is told
    of, and its step is D times what that says, as one of plain descent is.
    """

    first: Callable[[PyTree[Array]], PyTree]
    following: Callable[..., tuple[PyTree[Array], PyTree]]
    network: Network

    def init(self, theta: PyTree[Array]) -> PyTree:
        """The state of the transformation before the first step."""
        return self.first(self.network.scaled(theta))

    def update(
        self,
        gradient: PyTree[Array],
        memory: PyTree,
        theta: PyTree[Array],
        value: Float[Array, ""],
        objective: Callable[[PyTree[Array]], Float[Array, ""]],
    ) -> tuple[PyTree[Array], PyTree]:
        """A step, and the state after it."""
        of_arrays = lambda arrays: objective(self.network.unscaled(arrays))  # noqa: E731
        gradient, arrays = self.network.unscaled(gradient), self.network.scaled(theta)
        with jax.numpy_dtype_promotion("standard"):  # which others write their code for
            step, memory = self.following(
                gradient, memory, arrays, value=value, grad=gradient, value_fn=of_arrays
            )
        return self.network.by_parameters(step), memory


def checked_rate(rate: object) -> float:
    """The time that a step takes, a positive number.

    Raises:
        ValueError: It is none.
    """
    found = positive("rate", rate)
    if found is None:
        raise ValueError("`rate` must be the time that one step takes, such as 0.1, but is None.")
    return found


#: Optimisers that a word such as "adam:0.01" stands for, by their names in Optax.
NAMED = ("sgd", "adam", "adamw", "lion", "rmsprop", "sign_sgd")


def transformation(optimiser: object) -> Any:
    """The gradient transformation that is meant: itself, or that of a word such as "adam:0.01".

    Raises:
        ValueError: It is neither.
    """
    import optax  # here, for what does without it

    if isinstance(optimiser, str):
        name, rate = _in_word(optimiser)
        return getattr(optax, name)(rate)
    if not isinstance(optimiser, optax.GradientTransformation):
        raise ValueError(
            "`optimiser` must be a gradient transformation of Optax, such as optax.sgd(0.1), but "
            f"is {shown(optimiser)}."
        )
    return optimiser


def is_word(word: str) -> bool:
    """Whether it stands for an optimiser."""
    try:
        _in_word(word)
    except ValueError:
        return False
    return True


def rate_in_word(optimiser: object) -> float | None:
    """The rate that a word holds; None if it is none."""
    return _in_word(optimiser)[1] if isinstance(optimiser, str) else None


def _in_word(word: str) -> tuple[str, float]:
    name, _, number = word.partition(":")
    try:
        rate = float(number)
    except ValueError:
        rate = 0.0
    if name not in NAMED or not (math.isfinite(rate) and rate > 0):
        names = ", ".join(NAMED)
        raise ValueError(
            f'`optimiser` must be a word such as "sgd:0.1", one of {names} and its rate, but is '
            f"{word!r}."
        )
    return name, rate


def _check_rate(optimiser: Any, theta: PyTree[Array], rate: float) -> None:
    """Refuse another rate than its own for plain descent, which is tried on a few gradients.

    Raises:
        ValueError: When it is another.
    """
    if is_traced(theta):
        return
    plain = _plain_rate(optimiser, theta)
    if plain is not None and abs(rate - plain) > _rounding(theta) * plain:
        raise ValueError(
            f"`rate` must be that of the optimiser, which begins as plain descent at {plain:.5g}, "
            f"but is {rate:g}."
        )


def _rounding(theta: PyTree[Array]) -> float:
    return max(ROUNDING, 4 * float(jnp.finfo(precision(theta)).eps))


def _plain_rate(optimiser: Any, theta: PyTree[Array]) -> float | None:
    """The rate of plain descent; None for what makes other steps, of any gradient tried."""
    ends: list[float] = []
    try:
        for size in SIZES:
            gradient = jax.tree.map(lambda a, size=size: size * jnp.ones_like(a), theta)
            memory = optimiser.init(theta)
            for _ in range(2):
                with jax.numpy_dtype_promotion("standard"):
                    step, memory = optimiser.update(gradient, memory, theta)
                leaves = [each for each in jax.tree.leaves(step) if each.size]
                ends += [-float(end(each)) / size for each in leaves for end in (jnp.min, jnp.max)]
    except Exception:  # whatever is raised by what asks for more than a gradient
        return None
    same = np.allclose(ends, ends[0], rtol=_rounding(theta), atol=0.0)
    return ends[0] if same and ends[0] > 0 else None


def stepping(
    optimiser: Any,
    problem: Problem,
    *,
    rate: float,
    batch_size: int | None,
    key: Key[Array, ""] | None,
) -> Steps:
    """What descends a problem by a gradient transformation.

    Raises:
        ValueError: When the transformation fails on these parameters, its state changes its shape,
            or it is plain descent at another rate.
    """
    import optax

    network, theta = problem.network, problem.theta
    assert isinstance(network, Network)  # no other is descended
    full = optax.with_extra_args_support(optimiser)
    plain = Optimiser(full.init, full.update, network)
    traced = _programs(plain, theta)
    _check_rate(full, network.scaled(theta), rate)
    digests = [one.digest(described) for one in traced]
    # One that was made anew does the same, and its programs are found again.
    first, following = (
        Alike(function, digest, place)
        for place, (function, digest) in enumerate(zip(full[:2], digests, strict=True))
    )
    own = Optimiser(first, following, network)
    n = len(problem.x)
    update = Update(
        own.init,
        own.update,
        problem.objective,
        samples=n,
        batch_size=batch_size,
        key=key,
    )
    some = "all points" if batch_size is None else f"{batch_size} of {n} points"
    drawn = [] if key is None else [np.asarray(jr.key_data(key)).tolist()]
    mark = hashlib.sha256(repr([digests, rate, batch_size, drawn]).encode()).hexdigest()
    choice = f"steps of {rate:g} in time by {some}, on lines between"
    samples = n if batch_size is None else batch_size
    flops = GRADIENT * samples * network.work(theta, problem.x).flops
    return Steps(update=update, rate=rate, choice=choice, mark=mark, alone=flops > LONG)


def _programs(optimiser: Optimiser, theta: PyTree[Array]) -> list[Program]:
    """What the transformation does before the first step, and in one."""
    square = lambda theta: optx.two_norm(theta) ** 2  # noqa: E731

    def update(theta: PyTree[Array], memory: PyTree) -> tuple[PyTree[Array], PyTree]:
        value, gradient = jax.value_and_grad(square)(theta)
        return optimiser.update(gradient, memory, theta, value, square)

    try:
        memory = jax.eval_shape(optimiser.init, theta)
        found = [program(optimiser.init, theta), program(update, theta, memory)]
    except Exception as error:  # whatever a stranger's transformation raises
        raise ValueError(
            "`optimiser` must make steps of the model's parameters, but fails on them: "
            f"{first_line(error)}."
        ) from error
    shapes = lambda tree: jax.tree.map(lambda a: (a.shape, a.dtype), tree)  # noqa: E731
    if shapes(found[1].out) != shapes((theta, memory)):
        raise ValueError(
            "`optimiser` must return a step of the shapes of the parameters and a state of the "
            "shapes that it has, but returns others."
        )
    return found
