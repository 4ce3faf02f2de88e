"""Many systems of one kind, stepped together."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from nthsim.solvers.compiled import compiled
from nthsim.solvers.system import AbstractSystem

#: In float32 the step size reaches the rounding of t before a blow-up has left every bound; there a
#: level this many times its scale is out.
GROWN = 1e3


class Ensemble(AbstractSystem):
    """One system for many members that differ in the numbers of some arrays alone.

    `varying` holds those arrays, stacked along a first axis of members, `common` everything else.
    Steps are shared: each level of each member is held to its own tolerance, so that the steps are
    those of the member that asks for the shortest. Integrators see no driven system in it, and take
    explicit steps unless told otherwise.

    A member that has escaped stays where it is, and from then on has no say in the steps; nor has
    one that is not `sound`, whose state or field is not finite at the start. What either shows is
    NaN. The ensemble itself never escapes. Built by `ensemble`.
    """

    varying: AbstractSystem
    common: AbstractSystem
    sound: Bool[Array, " members"]

    def initial(self) -> PyTree[Array]:
        """The states of all members, zero for one that is not sound."""
        states = self.over(lambda system: system.initial())
        return jax.tree.map(lambda a: _where(self.sound, a, jnp.zeros_like(a)), states)

    def field(self, state: PyTree[Array]) -> PyTree[Array]:
        """The time derivative of each member that still moves."""
        slopes = self.over(lambda system, y: system.field(y), state)
        out = self.out(state)
        return jax.tree.map(lambda a: _where(out, jnp.zeros_like(a), a), slopes)

    def sizes(self, state: PyTree[Array]) -> Float[Array, "members levels"]:
        """The levels of each member."""
        return self.over(lambda system, y: system.sizes(y), state)

    def scales(self) -> Float[Array, "members levels"]:
        """Likewise; nothing is known of a member that is not sound."""
        scales = self.over(lambda system: system.scales())
        return _where(self.sound, scales, jnp.zeros_like(scales))

    def outputs(self, state: PyTree[Array]) -> dict[str, Array]:
        """What each member shows, NaN for those that are out."""
        shown = self.over(lambda system, y: system.outputs(y), state)
        return self.marked(state, shown)

    def roughness(self) -> str:
        """That of every member."""
        return self.common.roughness()

    def escaped(self, state: PyTree[Array]) -> Bool[Array, ""]:
        """Never: the others go on."""
        del state
        return jnp.array(False)

    def out(self, state: PyTree[Array]) -> Bool[Array, " members"]:
        """Which members have escaped, or were not sound."""
        return ~self.sound | self.over(_left, state)

    def marked(self, state: PyTree[Array], shown: PyTree[Array]) -> PyTree[Array]:
        """The arrays with NaN for all members that are out."""
        out = self.out(state)
        return jax.tree.map(lambda a: _where(out, jnp.full_like(a, jnp.nan), a), shown)

    def over(self, function: Callable[..., Any], *states: PyTree[Array]) -> Any:
        """A function of a system, and of states if any, for each member."""
        return jax.vmap(lambda part, *y: function(eqx.combine(part, self.common), *y))(
            self.varying, *states
        )


def ensemble(
    system: AbstractSystem, where: Callable[[Any], PyTree[Array]], stacked: PyTree[Array]
) -> Ensemble:
    """The ensemble of systems like `system`, with each row of `stacked` in the place of `where`."""
    none = lambda tree: jax.tree.map(lambda _: None, tree)  # noqa: E731
    varying = eqx.tree_at(where, none(system), stacked, is_leaf=lambda leaf: leaf is None)
    common = eqx.tree_at(where, system, none(where(system)))
    everyone = jnp.ones(len(jax.tree.leaves(stacked)[0]), bool)
    return _checked(Ensemble(varying, common, everyone))


@compiled
def _checked(unchecked: Ensemble) -> Ensemble:
    """The same, told which members are sound."""

    def finite(system: AbstractSystem) -> Bool[Array, ""]:
        state = system.initial()
        numbers = jax.tree.leaves((state, system.field(state)))
        return jnp.all(jnp.stack([jnp.all(jnp.isfinite(a)) for a in numbers]))

    with jax.default_matmul_precision("highest"):
        sound = unchecked.over(finite)
    return Ensemble(unchecked.varying, unchecked.common, sound)


def _left(system: AbstractSystem, state: PyTree[Array]) -> Bool[Array, ""]:
    """Whether a member has escaped, or will never come so far in steps of its precision."""
    scales = system.scales()
    if jnp.finfo(scales.dtype).eps < 1e-12:
        return system.escaped(state)
    grown = (scales > 0) & (system.sizes(state) > GROWN * scales)
    return system.escaped(state) | jnp.any(grown)


def _where(chosen: Bool[Array, " members"], a: Array, b: Array) -> Array:
    """By member, whatever the rank of the arrays."""
    return jnp.where(chosen.reshape(-1, *(1,) * (a.ndim - 1)), a, b)
