"""A stabilised explicit Runge–Kutta pair of second order as a solver for Diffrax."""

from typing import Any, ClassVar

import diffrax as dfx
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

#: How much less than the reach of undamped polynomials a step may use: they stay below one between.
DAMPING = 2 / 13

#: The spectral radius is known to this part of itself, and taken for so many times what is found.
CLOSE, SAFETY = 0.01, 1.2

#: It is looked for anew after so many steps, by at most so many products with the Jacobian.
STEPS, PRODUCTS = 25, 50

#: The most stages of a step, and what the rounding that they hand on, s squared times, may come to.
MOST_STAGES, ROUNDING = 1000, 1e-4


class Memory(eqx.Module):
    """The velocity at the start of the step; the spectral radius, by the direction it was found in.

    `age` counts steps since, `evaluations` all right-hand sides of steps that were taken, products
    with the Jacobian among them.
    """

    velocity: PyTree[Array]
    direction: PyTree[Array]
    radius: Float[Array, ""]
    age: Int[Array, ""]
    evaluations: Int[Array, ""]


class Polynomial(eqx.Module):
    """Chebyshev's polynomial of one degree, its two derivatives, and the factor b of its stage."""

    value: Float[Array, ""]
    first: Float[Array, ""]
    second: Float[Array, ""]
    factor: Float[Array, ""]


class Chebyshev(dfx.AbstractSolver):
    r"""Runge–Kutta–Chebyshev steps of second order with as many stages s as stability asks for.

    Along the negative real axis they are stable up to about $0.65 s^2$, so that the work over a
    given time grows like the root of the spectral radius. The method and its error are of
    Sommeijer, Shampine & Verwer (1998, J. Comput. Appl. Math. 88); the radius is found by power
    iteration on the Jacobian. Eigenvalues must be near the real axis; small positive ones do no
    harm. A step that would take more than `MOST_STAGES`, or than 29 in float32, is refused.
    """

    term_structure: ClassVar = dfx.ODETerm
    interpolation_cls: ClassVar = dfx.ThirdOrderHermitePolynomialInterpolation.from_k

    def order(self, terms: PyTree) -> int:
        """Of the solution that is kept."""
        del terms
        return 2

    def error_order(self, terms: PyTree) -> int:
        """Of the difference that is taken for the error."""
        del terms
        return 3

    def func(self, terms: PyTree, t0: Any, y0: PyTree[Array], args: Any) -> PyTree:
        """The velocity."""
        return terms.vf(t0, y0, args)

    def init(self, terms: PyTree, t0: Any, t1: Any, y0: PyTree[Array], args: Any) -> Memory:
        """The velocity; the first step finds the radius. Of one type from call to call."""
        del t1
        velocity = terms.vf(t0, y0, args)
        return Memory(
            velocity,
            jax.tree.map(_wave, velocity),
            jnp.zeros_like(t0),
            jnp.array(STEPS, dtype=int),
            jnp.array(1, dtype=int),
        )

    def step(
        self,
        terms: PyTree,
        t0: Any,
        t1: Any,
        y0: PyTree[Array],
        args: Any,
        solver_state: Memory,
        made_jump: Any,
    ) -> tuple[PyTree, PyTree, dict[str, PyTree], Memory, dfx.RESULTS]:
        """One step, its error, and what the next one needs."""
        del made_jump
        field = lambda y: terms.vf(t0, y, args)  # noqa: E731
        h, memory = t1 - t0, _renewed(field, y0, solver_state)
        stages, reached = _stages(h * memory.radius)
        y1 = _walked(field, y0, memory.velocity, h, stages)
        velocity = field(y1)

        def miss(a: Array, b: Array, before: Array, after: Array) -> Array:
            found = 0.8 * (a - b) + 0.4 * h * (before + after)
            return jnp.where(reached, found, jnp.inf)

        error = jax.tree.map(miss, y0, y1, memory.velocity, velocity)
        slopes = jax.tree.map(lambda a, b: h * jnp.stack([a, b]), memory.velocity, velocity)
        dense = {"y0": y0, "y1": y1, "k": slopes}
        count = memory.evaluations + stages
        after = Memory(velocity, memory.direction, memory.radius, memory.age + 1, count)
        return y1, error, dense, after, dfx.RESULTS.successful


def _stages(reach: Float[Array, ""]) -> tuple[Int[Array, ""], Bool[Array, ""]]:
    """How many a step takes that is so long beside the radius, and whether these are enough."""
    wanted = jnp.sqrt(1 + reach / (2 / 3 * (1 - 2 / 15 * DAMPING)))
    most = min(MOST_STAGES, (ROUNDING / float(jnp.finfo(reach.dtype).eps)) ** 0.5)
    stages = jnp.maximum(2, 1 + jnp.minimum(wanted, most).astype(int))
    return stages, wanted <= most


def _walked(
    field: Any, y0: PyTree[Array], velocity: PyTree[Array], h: Float[Array, ""], stages: Array
) -> PyTree[Array]:
    """The end of a step, through stages by the three-term recurrence of the polynomials."""
    s = stages.astype(h.dtype)
    beyond = DAMPING / s**2
    w0 = 1 + beyond
    root = jnp.sqrt(beyond * (2 + beyond))
    angle = s * jnp.log1p(beyond + root)
    w1 = jnp.sinh(angle) * root**2 / (jnp.cosh(angle) * s * root - w0 * jnp.sinh(angle))
    half, one, zero = 1 / (4 * w0**2), jnp.ones_like(h), jnp.zeros_like(h)
    last, now = Polynomial(one, zero, zero, half), Polynomial(w0, one, zero, half)
    first = jax.tree.map(lambda y, f: y + w1 * half * h * f, y0, velocity)

    def going(carry: tuple) -> Bool[Array, ""]:
        return carry[0] <= stages

    def stage(carry: tuple) -> tuple:
        j, before, at, last, now = carry
        value = 2 * w0 * now.value - last.value
        slope = 2 * w0 * now.first - last.first + 2 * now.value
        second = 2 * w0 * now.second - last.second + 4 * now.first
        after = Polynomial(value, slope, second, second / slope**2)
        mu, nu = 2 * w0 * after.factor / now.factor, -after.factor / last.factor
        push = mu * w1 / w0 * h
        back = 1 - now.value * now.factor

        def combined(y: Array, a: Array, b: Array, f: Array, f0: Array) -> Array:
            return mu * a + nu * b + (1 - mu - nu) * y + push * (f - back * f0)

        there = jax.tree.map(combined, y0, at, before, field(at), velocity)
        return j + 1, at, there, now, after

    return jax.lax.while_loop(going, stage, (jnp.array(2), y0, first, last, now))[2]


def _renewed(field: Any, y: PyTree[Array], memory: Memory) -> Memory:
    """With the spectral radius looked for again where the last one is old."""

    def renew() -> Memory:
        def going(carry: tuple) -> Bool[Array, ""]:
            count, _, radius, before = carry
            same = jnp.abs(radius - before) <= CLOSE * radius
            return (count < PRODUCTS) & ((count < 2) | ~same)

        def product(carry: tuple) -> tuple:
            count, direction, radius, _ = carry
            moved = jax.jvp(field, (y,), (_unit(direction),))[1]
            return count + 1, moved, _norm(moved), radius

        zero = jnp.zeros_like(memory.radius)
        start = (jnp.array(0), memory.direction, zero, zero)
        count, direction, radius, _ = jax.lax.while_loop(going, product, start)
        kept = jax.tree.map(lambda a, b: jnp.where(radius > 0, a, b), direction, memory.direction)
        count = memory.evaluations + count
        return Memory(memory.velocity, kept, SAFETY * radius, jnp.array(0), count)

    return jax.lax.cond(memory.age >= STEPS, renew, lambda: memory)


def _wave(a: Array) -> Array:
    """Numbers that no eigenvector is likely to be at right angles to."""
    return (1 + jnp.cos(jnp.arange(a.size, dtype=a.dtype) ** 2)).reshape(a.shape)


def _unit(tree: PyTree[Array]) -> PyTree[Array]:
    size = _norm(tree)
    size = jnp.maximum(size, jnp.finfo(size.dtype).tiny)
    return jax.tree.map(lambda a: a / size, tree)


def _norm(tree: PyTree[Array]) -> Float[Array, ""]:
    return jnp.sqrt(sum(jnp.sum(a * a) for a in jax.tree.leaves(tree)))
