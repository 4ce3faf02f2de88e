r"""Second-order dynamics, $y'' + \gamma y' = F(y)$, of what would otherwise move by $y' = F(y)$."""

import abc
import math
from numbers import Real
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy.special
from jaxtyping import Array, Bool, Float, PyTree

from nthsim.solvers.compiled import compiled
from nthsim.solvers.driven_system import AbstractDrivenSystem
from nthsim.solvers.system import AbstractSystem

#: Below this a power series is taken, of so many terms; above, what it is the series of.
SERIES, TERMS = 1.0, 20


class AbstractMomentumFlow(AbstractSystem):
    """A driven system with its velocity beside it, which starts from rest."""

    base: AbstractDrivenSystem

    @abc.abstractmethod
    def position(self, state: PyTree[Array]) -> PyTree[Array]:
        """The state of the system without its velocity."""

    @abc.abstractmethod
    def speed(self, state: PyTree[Array]) -> PyTree[Array]:
        """What moves along with it, of its structure."""

    def loss(self, state: PyTree[Array]) -> Float[Array, ""]:
        """The risk of the predictions."""
        return self.base.loss(self.position(state))

    def sizes(self, state: PyTree[Array]) -> Float[Array, " levels"]:
        """Those of the positions, then those of what moves along."""
        each = self.base.sizes(self.position(state)), self.base.sizes(self.speed(state))
        return jnp.concatenate(each)

    def scales(self) -> Float[Array, " levels"]:
        """Those of the positions; nothing is known of velocities."""
        known = self.base.scales()
        return jnp.concatenate([known, jnp.zeros_like(known)])

    def outputs(self, state: PyTree[Array]) -> dict[str, Array]:
        """As without velocities."""
        return self.base.outputs(self.position(state))

    def roughness(self) -> str:
        """That of the field."""
        return self.base.roughness()

    def escaped(self, state: PyTree[Array]) -> Bool[Array, ""]:
        """As without velocities."""
        return self.base.escaped(self.position(state))


class HeavyBallFlow(AbstractMomentumFlow):
    r"""$y' = v$, $v' = F(y) - \gamma v$ with a constant friction."""

    friction: Float[Array, ""]

    def initial(self) -> tuple[PyTree[Array], PyTree[Array]]:
        """At rest."""
        start = self.base.initial()
        return start, jax.tree.map(jnp.zeros_like, start)

    def field(self, state: tuple[PyTree[Array], PyTree[Array]]) -> tuple[PyTree, PyTree]:
        """The velocity, and the force less friction."""
        y, v = state
        slowed = lambda force, v: force - self.friction * v  # noqa: E731
        return v, jax.tree.map(slowed, self.base.field(y), v)

    def position(self, state: tuple[PyTree[Array], PyTree[Array]]) -> PyTree[Array]:
        """The first half."""
        return state[0]

    def speed(self, state: tuple[PyTree[Array], PyTree[Array]]) -> PyTree[Array]:
        """The velocity."""
        return state[1]


class NesterovFlow(AbstractMomentumFlow):
    r"""$y'' + \tfrac rt y' = F(y)$, in time s, y and $w = y' / s$, none of which is singular.

    From rest $w = F / (1 + r)$ at s = 0, where its derivative is zero.
    """

    damping: Float[Array, ""]

    def initial(self) -> tuple[Float[Array, ""], PyTree[Array], PyTree[Array]]:
        """At rest."""
        return _at_rest(self)

    def field(
        self, state: tuple[Float[Array, ""], PyTree[Array], PyTree[Array]]
    ) -> tuple[Float[Array, ""], PyTree[Array], PyTree[Array]]:
        """Time passes, and the rest is as above."""
        s, y, w = state
        later = jnp.where(s > 0, s, jnp.ones_like(s))

        def change(force: Array, w: Array) -> Array:
            rate = (force - (1 + self.damping) * w) / later
            return jnp.where(s > 0, rate, jnp.zeros_like(rate))

        moves = jax.tree.map(lambda w: s * w, w)
        return jnp.ones_like(s), moves, jax.tree.map(change, self.base.field(y), w)

    def position(self, state: tuple[Array, PyTree[Array], PyTree[Array]]) -> PyTree[Array]:
        """The second part."""
        return state[1]

    def speed(self, state: tuple[Array, PyTree[Array], PyTree[Array]]) -> PyTree[Array]:
        """The velocity over the time, which is what is stepped."""
        return state[2]


@compiled
def _at_rest(flow: NesterovFlow) -> tuple[Float[Array, ""], PyTree[Array], PyTree[Array]]:
    start = flow.base.initial()
    with jax.default_matmul_precision("highest"):
        force = flow.base.field(start)
    w = jax.tree.map(lambda a: a / (1 + flow.damping), force)
    return jnp.zeros_like(flow.damping), start, w


class Momentum(eqx.Module):
    """What a flow is given inertia by."""

    @property
    @abc.abstractmethod
    def word(self) -> str:
        """Such as "heavy-ball:0.5"."""

    @abc.abstractmethod
    def flow(self, base: AbstractDrivenSystem) -> AbstractMomentumFlow:
        """A driven system with inertia."""

    @abc.abstractmethod
    def responses(
        self, rates: Float[np.ndarray, " N"], ts: Float[np.ndarray, " T"]
    ) -> tuple[Float[np.ndarray, "T N"], Float[np.ndarray, "T N"]]:
        r"""S and Q, from rest: $S'' + \gamma S' + \rho S = 1$ and $Q'' + \gamma Q' = S$.

        For each rate $\rho \ge 0$ at each time.
        """


class HeavyBall(Momentum):
    r"""Heavy-ball momentum: $\theta'' + \gamma \theta' = -D \nabla L$ from rest.

    Descent with momentum m at the rate h follows it at time $t = s \sqrt h$ with $\gamma = (1 - m)
    / \sqrt h$, up to what falls like the root of h (Polyak 1964).

    Args:
        friction: $\gamma$, at least 0, per unit of time.

    Raises:
        ValueError: When it is no such number.
    """

    friction: float = eqx.field(converter=lambda v: _number("friction", v, 0.0))

    @property
    def word(self) -> str:
        """Such as "heavy-ball:0.5"."""
        return f"heavy-ball:{_shortest(self.friction)}"

    def flow(self, base: AbstractDrivenSystem) -> HeavyBallFlow:
        """With this friction."""
        return HeavyBallFlow(base, jnp.asarray(self.friction, _precision(base)))

    def responses(
        self, rates: Float[np.ndarray, " N"], ts: Float[np.ndarray, " T"]
    ) -> tuple[Float[np.ndarray, "T N"], Float[np.ndarray, "T N"]]:
        """By the exponential of a five by five matrix for each."""
        found = _responses(jnp.asarray(self.friction, rates.dtype), *map(jnp.asarray, (rates, ts)))
        return np.asarray(found[..., 0]), np.asarray(found[..., 1])


@compiled
def _responses(
    friction: Float[Array, ""], rates: Float[Array, " N"], ts: Float[Array, " T"]
) -> Float[Array, "T N 2"]:
    still = (
        jnp.zeros((5, 5), rates.dtype).at[jnp.array([0, 1, 2, 3]), jnp.array([1, 4, 3, 0])].set(1)
    )
    still = still.at[jnp.array([1, 3]), jnp.array([1, 3])].set(-friction)

    def one(rate: Array, t: Array) -> Float[Array, " 2"]:
        return jax.scipy.linalg.expm(t * still.at[1, 0].set(-rate))[jnp.array([0, 2]), 4]

    return jax.vmap(jax.vmap(one, (0, None)), (None, 0))(rates, ts)


class Nesterov(Momentum):
    r"""Nesterov's momentum: $\theta'' + \tfrac rt \theta' = -D \nabla L$ from rest.

    Accelerated descent at the rate h follows it at time $t = s \sqrt h$ with r = 3 (Su, Boyd &
    Candès 2016, J. Mach. Learn. Res. 17).

    Args:
        r: The damping, positive.

    Raises:
        ValueError: When it is no such number.
    """

    r: float = eqx.field(default=3.0, converter=lambda v: _number("r", v, None))

    @property
    def word(self) -> str:
        """Such as "nesterov:3"."""
        return f"nesterov:{_shortest(self.r)}"

    def flow(self, base: AbstractDrivenSystem) -> NesterovFlow:
        """With this damping."""
        return NesterovFlow(base, jnp.asarray(self.r, _precision(base)))

    def responses(
        self, rates: Float[np.ndarray, " N"], ts: Float[np.ndarray, " T"]
    ) -> tuple[Float[np.ndarray, "T N"], Float[np.ndarray, "T N"]]:
        r"""By $x = {}_0F_1(; \tfrac{r+1}2; -z)$, $z = \rho t^2 / 4$, of which S = (1 - x)/rho."""
        rates, ts = np.asarray(rates, float), np.asarray(ts, float)
        a, quarter = (self.r + 1) / 2, (ts**2 / 4)[:, None]
        z = quarter * rates
        small, large = np.minimum(z, SERIES), np.maximum(z, SERIES)
        terms = [1.0]  # of the series without signs and powers of z
        for k in range(1, TERMS):
            terms.append(terms[-1] / ((a + k - 1) * k))
        once = sum((-1) ** (k + 1) * terms[k] * small ** (k - 1) for k in range(1, TERMS))
        twice = sum((-1) ** k * terms[k] * small ** (k - 2) for k in range(2, TERMS))
        here = (1 - scipy.special.hyp0f1(a, -large)) / large
        once = np.where(z < SERIES, once, here)
        twice = np.where(z < SERIES, twice, (1 / a - here) / large)
        return quarter * once, quarter**2 * twice


MOMENTA: dict[str, type[Momentum]] = {"heavy-ball": HeavyBall, "nesterov": Nesterov}


def momentum_of(word: str) -> Momentum:
    """The one that a word such as "heavy-ball:0.5" stands for.

    Raises:
        ValueError: When there is none.
    """
    name, _, number = word.partition(":")
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if name not in MOMENTA or math.isnan(value):
        raise ValueError(
            "`momentum` must be a word such as heavy-ball:0.5, of its friction, or nesterov:3, but "
            f"is {word!r}."
        )
    return MOMENTA[name](value)  # pyright: ignore[reportCallIssue]


def _number(name: str, value: Any, least: float | None) -> float:
    number = float(value) if isinstance(value, Real) and not isinstance(value, bool) else math.nan
    if math.isfinite(number) and (number > 0 if least is None else number >= least):
        return number
    words = "a positive number" if least is None else f"a number of at least {least:g}"
    raise ValueError(f"`{name}` must be {words}, but is {value!r}.")


def _shortest(number: float) -> str:
    """The fewest digits that tell a number from all others."""
    return repr(number).removesuffix(".0")


def _precision(base: AbstractDrivenSystem) -> Any:
    return jnp.result_type(*jax.tree.leaves(jax.eval_shape(base.initial)))
