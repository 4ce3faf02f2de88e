"""What truncations and theories of one problem start from."""

import time

import jax
import numpy as np
from jaxtyping import Array, Float

from nthsim.dynamics.problem import Problem
from nthsim.dynamics.taylor_proof import proven
from nthsim.results.terminal import Progress


class Start:
    r"""$f, K^{(2)}, K^{(3)}, \dots$ of a problem at t = 0, each computed when first asked for.

    Training and test points are in the first slot. `seconds` is the time that each of
    $K^{(2)}, \dots$ took.
    """

    def __init__(self, problem: Problem, *, progress: bool) -> None:
        """Nothing is computed yet."""
        self.problem, self._progress = problem, progress
        self._kernels: list[Array] = []
        self._expandable: dict[int, Problem] = {}
        self.seconds: list[float] = []

    def kernels(self, order: int) -> tuple[Array, ...]:
        r"""$f, K^{(2)}, \dots, K^{(r)}$, one axis per slot; a penalty is last in all but one."""
        if order and not self._kernels:
            self._kernels.append(self.problem.outputs())
        for r in range(len(self._kernels) + 1, order + 1):
            clock = time.perf_counter()
            with Progress(f"K^({r})", self._progress) as bar:
                kernel = self.problem.kernel(r, penalised=True)(self.problem.theta, bar)
                self._kernels.append(jax.block_until_ready(kernel))
            self.seconds.append(time.perf_counter() - clock)
        return tuple(self._kernels[:order])

    def expandable(self, p: int) -> Problem:
        """The problem with a method for series of order p that was compared with other ways."""
        if p not in self._expandable:
            self._expandable[p] = proven(self.problem, p)
        return self._expandable[p]

    def tangent_kernel(self) -> Float[np.ndarray, "n ..."]:
        r"""$K^{(2)}$ among the training points, of shape (n, n) or (n, k, n, k)."""
        problem = self.problem.without_test_points()
        known = self._kernels[1:2] or [problem.kernel(2)(problem.theta)]
        n, out = len(problem.x), problem.out_shape
        N = n * problem.outputs_per_sample
        return np.asarray(known[0])[:N, :N].reshape(n, *out, n, *out)
