"""A solver of Diffrax whose step is traced once."""

from typing import Any

import diffrax as dfx
from jaxtyping import PyTree

from nthsim.solvers.compiled import compiled
from nthsim.solvers.system import AbstractSystem


class TracedOnce(dfx.AbstractWrappedSolver):
    """Steps as the solver within does.

    Diffrax traces a step four times to compile one integration, which for exponential steps is most
    of the time before the first of them. A compiled function within a compiled one is traced once.
    """

    solver: dfx.AbstractSolver

    @property
    def term_structure(self) -> Any:
        """As within."""
        return self.solver.term_structure

    @property
    def interpolation_cls(self) -> Any:  # pyright: ignore[reportIncompatibleVariableOverride]
        """As within."""
        return self.solver.interpolation_cls

    def order(self, terms: PyTree) -> int | None:
        """As within."""
        return self.solver.order(terms)

    def error_order(self, terms: PyTree) -> Any:
        """As within."""
        return self.solver.error_order(terms)

    def init(self, terms: PyTree, t0: Any, t1: Any, y0: PyTree, args: AbstractSystem) -> PyTree:
        """As within."""
        return self.solver.init(terms, t0, t1, y0, args)

    def func(self, terms: PyTree, t0: Any, y0: PyTree, args: AbstractSystem) -> PyTree:
        """As within."""
        return self.solver.func(terms, t0, y0, args)

    @compiled
    def step(
        self,
        terms: PyTree,
        t0: Any,
        t1: Any,
        y0: PyTree,
        args: AbstractSystem,
        solver_state: PyTree,
        made_jump: Any,
    ) -> tuple[PyTree, PyTree, dict[str, PyTree], PyTree, dfx.RESULTS]:
        """As within, compiled."""
        return self.solver.step(terms, t0, t1, y0, args, solver_state, made_jump)
