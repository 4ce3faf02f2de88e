"""What goes on inside of a network along a run: features, and the blocks of a residual one."""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from nthsim.dynamics.observable import AbstractOwn, check_name
from nthsim.dynamics.problem import Problem
from nthsim.inputs.arrays import real
from nthsim.network.function_contents import described
from nthsim.network.network import Network
from nthsim.results.moment import Moment
from nthsim.results.record import Label
from nthsim.solvers.compiled import compiled
from nthsim.solvers.integration import Unrecorded

#: A network's outputs and those of its steps differ by no more than so many units of rounding.
ROUNDING = 1000


class Features(AbstractOwn):
    r"""What a network makes of the training points on the way, $h(x)$, and its kernel.

    Recorded are `name` (T, n, m), what `where` returns in one row, and `name`_kernel (T, n, n),
    $\langle h(x_a), h(x_b) \rangle$ without a factor.

    Args:
        name: What it is called in `Trajectory.records`, in figures and files.
        where: A function of the network and one input, such as `lambda net, x: net.layers[0](x)`,
            that JAX can compile; returns real numbers.

    Raises:
        ValueError: When the name is no word, or one that results have; once a run begins, when
            `where` fails.
    """

    name: str
    of_parameters: bool = eqx.field(default=True, init=False)
    fn: Callable[[PyTree, Array], Array] = eqx.field(static=True)

    def __init__(self, name: str, where: Callable[[PyTree, Array], Array]):
        """Check what a user said."""
        check_name(name)
        if not callable(where):
            raise ValueError(
                f"`where` must be a function of a network and an input, but is {where!r}."
            )
        self.name, self.of_parameters, self.fn = name, True, where

    def evaluate(self, moment: Moment) -> dict[str, np.ndarray]:
        """At the training points."""
        problem = moment.problem
        found = _features(self, described(self.fn), problem, moment.theta)
        found = np.asarray(real(self.name, found))
        return {self.name: found, f"{self.name}_kernel": found @ found.T}

    def labels(self, problem: Problem) -> dict[str, Label]:
        """Along points and features."""
        told = eqx.filter_eval_shape, _features, self, "", problem, problem.theta
        n, m = self.tried(*told).shape
        points, others = {"point": np.arange(n)}, {"other_point": np.arange(n)}
        values = Label(("point", "feature"), "1", points | {"feature": np.arange(m)})
        kernel = Label(("point", "other_point"), "1", points | others)
        return {self.name: values, f"{self.name}_kernel": kernel}


def own_steps(network: Any) -> Sequence[Callable[[Array], Array]]:
    """The steps that a network has itself, as a `ResNet` has."""
    if not callable(getattr(network, "steps", None)):
        raise Unrecorded("blocks needs a network with a method `steps`, or Blocks(steps)")
    return network.steps()


class Blocks(AbstractOwn):
    r"""How each block $h \mapsto h + F(h)$ of a residual network works, on average over x.

    Recorded are, each (T, blocks), `block_cosine`, between $F(h)$ and $-\partial L / \partial h$,
    and `block_size`, $\|F(h)\| / \|h\|$ (Jastrzebski et al. 2018, arXiv 1710.04773, section 3, with
    the other sign of the cosine). Points where either is zero have no cosine.

    Args:
        steps: A function of the network that returns the functions that it applies one after
            another: what makes h of one input, the blocks, and what makes the output of h. Left
            out, the network's own method of that name; a `ResNet` has it.

    Raises:
        ValueError: When `steps` is none; once a run begins, when they make other outputs than the
            network, or a block returns another shape than it takes.
    """

    name: str = eqx.field(default="blocks", init=False)
    of_parameters: bool = eqx.field(default=True, init=False)
    fn: Callable[[Any], Sequence[Callable[[Array], Array]]] = eqx.field(static=True)

    def __init__(self, steps: Callable[[Any], Sequence[Callable[[Array], Array]]] = own_steps):
        """Check what a user said."""
        if not callable(steps):
            raise ValueError(f"`steps` must be a function of a network, but is {steps!r}.")
        self.name, self.of_parameters, self.fn = "blocks", True, steps

    @property
    def from_word(self) -> bool:
        """A file has no functions but the network's own."""
        return self.fn is own_steps

    def evaluate(self, moment: Moment) -> dict[str, np.ndarray]:
        """By one forward and one backward pass."""
        problem, theta = moment.problem, moment.theta
        found = _blocks(self, described(self.fn), problem, theta)
        cosine, size, f, expected = map(np.asarray, found)
        near = ROUNDING * np.finfo(f.dtype).eps * np.abs(expected).max(initial=0)
        if not np.allclose(f.ravel(), expected.ravel(), rtol=0, atol=near, equal_nan=True):
            raise Unrecorded("blocks has steps that make other outputs than the network")
        return {"block_cosine": cosine, "block_size": size}

    def labels(self, problem: Problem) -> dict[str, Label]:
        """Along the blocks, from 1 on."""
        steps = self.tried(self.fn, _model(problem, problem.theta))
        places = {"block": np.arange(1, len(steps) - 1)}
        return {name: Label(("block",), "1", places) for name in ("block_cosine", "block_size")}


def _model(problem: Problem, theta: PyTree[Array]) -> PyTree:
    assert isinstance(problem.network, Network)
    return problem.network.model(theta)


@compiled
def _features(
    of: Features, made: str, problem: Problem, theta: PyTree[Array]
) -> Float[Array, "n m"]:
    """What the function `made` so returns; another program once it is made otherwise."""
    del made
    model = _model(problem, theta)
    return jax.vmap(lambda x: jnp.ravel(of.fn(model, x)))(problem.x)


@compiled
def _blocks(
    of: Blocks, made: str, problem: Problem, theta: PyTree[Array]
) -> tuple[Float[Array, " blocks"], Float[Array, " blocks"], Array, Array]:
    """Cosines and sizes, means over the training points; outputs by steps, and by the network.

    Another program once the function of steps is `made` otherwise.
    """
    del made
    first, *blocks, last = of.fn(_model(problem, theta))
    residual = problem.residual

    def one(x: Array, y: Array) -> tuple[Array, Array, Array]:
        start = first(x)

        def through(nudges: list[Array]) -> tuple[Array, tuple[list[Array], list[Array], Array]]:
            h, states, branches = start, [], []
            for block, nudge in zip(blocks, nudges, strict=True):
                h = h + nudge
                after = block(h)
                if after.shape != h.shape:
                    raise Unrecorded("blocks has one that returns another shape than it takes")
                states.append(h)
                branches.append(after - h)
                h = after
            f = last(h)
            return residual.loss(f, y), (states, branches, f)

        still = [jnp.zeros_like(start) for _ in blocks]
        down, (states, branches, f) = jax.grad(through, has_aux=True)(still)
        pairs = zip(branches, down, strict=True)
        cosine = [-jnp.vdot(a, b) / (_norm(a) * _norm(b)) for a, b in pairs]
        size = [_norm(a) / _norm(h) for a, h in zip(branches, states, strict=True)]
        return jnp.array(cosine), jnp.array(size), f

    cosine, size, f = jax.vmap(one)(problem.x, residual.y)
    expected = problem.network(theta, problem.x)
    return jnp.nanmean(cosine, axis=0), jnp.mean(size, axis=0), f, expected


def _norm(array: Array) -> Array:
    return jnp.linalg.norm(array.ravel())
