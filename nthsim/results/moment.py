"""One save time of a run, as observables see it."""

import functools
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree


class Moment:
    """One save time of a run; what is made of the state is made when asked for, and once."""

    def __init__(
        self,
        t: float,
        problem: Any,
        theta: PyTree[Array] | None,
        kernel: Callable[[], Array | np.ndarray],
        f: Float[np.ndarray, "..."],
    ) -> None:
        """Of a `Problem`, which is no import here for the floors' sake.

        `theta` are the parameters, None where a dynamics has none; `kernel` makes K^(2), and `f`
        are the outputs on training points, and behind them on test points.
        """
        self.t, self.problem, self.theta, self._kernel, self.f = t, problem, theta, kernel, f

    @functools.cached_property
    def kernel(self) -> Float[np.ndarray, "N_first N"]:
        r"""$K^{(2)}$ of training and test points by training points."""
        return np.asarray(self._kernel())

    @functools.cached_property
    def model(self) -> PyTree:
        """The user's module with the parameters of this moment."""
        return self.problem.network.model(self.theta)

    @staticmethod
    def of_parameters(problem: Any, theta: PyTree[Array]) -> "Moment":
        """A moment of which nothing but the parameters is asked for."""
        return Moment(0.0, problem, theta, lambda: jnp.zeros(()), np.zeros(0))
