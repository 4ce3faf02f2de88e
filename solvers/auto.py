"""The default: choose the integrator by what is to be integrated, and say which and why."""

import dataclasses

import diffrax as dfx
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, DTypeLike, Float, PyTree

from nthsim.solvers.compiled import compiled, counted
from nthsim.solvers.driven_system import AbstractDrivenSystem
from nthsim.solvers.explicit import Explicit
from nthsim.solvers.exponential import Exponential
from nthsim.solvers.linearisation import blockwise, roots, slopes
from nthsim.solvers.solver import AbstractSolver, Fallback, Method
from nthsim.solvers.system import AbstractSystem
from nthsim.solvers.tolerances import halved

#: Measured on a tanh network and digits: for tighter tolerances the eighth-order pair needs fewer
#: right-hand sides for the same accuracy than the fifth-order one does.
CROSSOVER = 1e-6

#: How far each explicit pair steps along the negative real axis.
REACH = {dfx.Tsit5: 3.5, dfx.Dopri8: 5.5}

#: Steps of the exponential pair to fit labels, `FEWEST + SLOPE * rtol**(-1/4)`, as measured.
FEWEST, SLOPE = 10, 1.8

#: What an exponential step takes besides its basis, in right-hand sides.
EXPONENTIAL_STEP = 10

#: With no more outputs than this an eigenbasis takes a second at most.
QUICK_OUTPUTS = 1000

#: More outputs on the training points than this have an eigenbasis that takes minutes.
MOST_OUTPUTS = 5000

#: Flops of a product of matrices that take as long as an eigenbasis, over N cubed; measured.
EIGENBASIS = 60

#: Products with the tangent kernel that its largest eigenvalue is estimated by.
ITERATIONS = 12


class Auto(AbstractSolver):
    """Explicit where steps are short for accuracy's sake, exponential where flow is stiff.

    How many explicit steps stability would ask for is known from the horizon and the fastest rate
    at t = 0, the largest eigenvalue of the tangent kernel times the loss's curvature over n. The
    explicit pair is Tsit5 for loose and Dopri8 for tight tolerances, and Tsit5 where the field is
    not smooth. Where exponential steps fail, or have taken as much work as explicit ones would, as
    those do that are cut short at every kink, explicit ones go on. The result says what was chosen
    and why.

    `rtol`, `atol` and `max_steps` are as in every solver here.
    """

    def stages(self, dtype: DTypeLike) -> int:
        """Those of the explicit pair, which has more than the exponential one."""
        return max(10, self._explicit(dtype).stages(dtype))

    def basis(self, N: int) -> int:
        """That of exponential steps, where they are thought of at all."""
        return Exponential().basis(N) if N <= MOST_OUTPUTS else 0

    def resolve(self, system: AbstractSystem, horizon: float, dtype: DTypeLike) -> Method:
        """Weigh the steps of both against each other."""
        explicit = self._explicit(dtype)
        method = explicit.resolve(system, horizon, dtype)
        pair, rtol = type(explicit.method), method.tolerances.rtol
        side = f"rtol {'below' if rtol < CROSSOVER else 'not below'} {CROSSOVER:.0e}"
        exponential = Exponential(self.rtol, self.atol, self.max_steps)
        if system.roughness():
            rough = Explicit(self.rtol, self.atol, self.max_steps, dfx.Tsit5())
            return rough.resolve(system, horizon, dtype)
        if not isinstance(system, AbstractDrivenSystem):
            return _said(method, side)
        if halved(dtype):
            return _said(method, f"{side}; no eigenbasis in {jnp.dtype(dtype).name}")
        N = jax.eval_shape(system.predictions, system.initial()).size
        if N > MOST_OUTPUTS:
            return _said(method, f"{side}; {N} outputs are too many for an eigenbasis")
        if system.linear and N <= QUICK_OUTPUTS:
            return exponential.resolve(system, horizon, dtype)
        try:
            steps = horizon * float(_fastest_rate(system)) / REACH[pair]
            both = steps + horizon * system.further_rate() / REACH[pair]
        except TypeError:  # from JAX, of a loss with a `custom_vjp`
            return _said(method, f"{side}; the loss has no derivatives by which to tell stiffness")
        several = EXPONENTIAL_STEP * (FEWEST + SLOPE * rtol**-0.25)
        if not steps * method.stages > several:
            needed = f"{max(both, 1.0):.0f}"
            words = "one step" if needed == "1" else f"{needed} steps"
            why = "not stiff" if both == steps else "not stiff by the kernel"
            return _said(method, f"{side}; {why}: stability alone would need {words}")
        if not steps * method.stages > several * (1 + _basis_cost(system, N) / EXPONENTIAL_STEP):
            return _said(method, f"{side}; eigenbasis would cost more than {steps:.0f} steps")
        chosen = exponential.resolve(system, horizon, dtype)
        chosen = _said(chosen, f"stiff: explicit steps would be {steps:.0f}")
        fallback = Fallback(method, horizon / steps, EXPONENTIAL_STEP / method.stages)
        return dataclasses.replace(chosen, fallback=fallback)

    def _explicit(self, dtype: DTypeLike) -> Explicit:
        tight = self.tolerances(dtype).rtol < CROSSOVER
        return Explicit(
            self.rtol, self.atol, self.max_steps, dfx.Dopri8() if tight else dfx.Tsit5()
        )


def _said(method: Method, why: str) -> Method:
    return eqx.tree_at(lambda m: m.choice, method, f"{method.choice} ({why})")


@compiled
def _fastest_rate(system: AbstractDrivenSystem) -> Float[Array, ""]:
    """The largest eigenvalue of the linear part at t = 0, from below, by power iteration."""
    state = system.initial()
    with jax.default_matmul_precision("highest"):
        root = roots(slopes(system.residual, system.predictions(state)))

        def product(_: Array, pair: tuple[Array, Array]) -> tuple[Array, Array]:
            v = pair[0] / jnp.maximum(jnp.linalg.norm(pair[0]), jnp.finfo(root.dtype).tiny)
            rows = blockwise(root, system.push(state, system.pull(state, blockwise(root, v))))
            return rows, jnp.linalg.norm(rows)

        n, k, _ = root.shape
        start = 1 + jnp.cos(jnp.arange(n * k, dtype=root.dtype) ** 2)
        return jax.lax.fori_loop(0, ITERATIONS, product, (start, jnp.zeros((), root.dtype)))[1]


def _basis_cost(system: AbstractDrivenSystem, N: int) -> float:
    """The work of the eigenbasis in right-hand sides, counted so that it never comes out other."""
    arrays, rest = eqx.partition(system, eqx.is_array)

    def field(arrays: AbstractDrivenSystem) -> PyTree[Array]:
        system = eqx.combine(arrays, rest)
        return system.field(system.initial())

    return EIGENBASIS * N**3 / max(counted(field, arrays).get("flops", 0.0), 1.0)
