"""The stochastic flow that descent in small batches is near to."""

import dataclasses
import hashlib
import math
from numbers import Real
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, Int, Key, PyTree
from numpy.typing import ArrayLike

from nthsim.budget.choice import Needs, check_points
from nthsim.budget.size import Size, flow_bytes
from nthsim.budget.work import gradient_flops, kernel_flops
from nthsim.dynamics.curve import Curve
from nthsim.dynamics.gradient_flow import parameter_flow
from nthsim.dynamics.optimiser import checked_rate
from nthsim.dynamics.pose import pose
from nthsim.dynamics.problem import Problem
from nthsim.dynamics.recorder import check_everywhere
from nthsim.dynamics.run import Run, checked_run, problem_size
from nthsim.dynamics.solve_error import SolveError
from nthsim.dynamics.start import Start
from nthsim.dynamics.trajectory import Trajectory
from nthsim.inputs.arrays import concrete
from nthsim.inputs.dataset import Dataset
from nthsim.inputs.integers import count, shown
from nthsim.inputs.keys import checked_key
from nthsim.inputs.loss import Loss, squared_error
from nthsim.network.failures import first_line
from nthsim.network.network import Network, parameter_count
from nthsim.network.regulariser import Regulariser
from nthsim.solvers.compiled import compiled
from nthsim.solvers.curvature import largest_curvature
from nthsim.solvers.noise import (
    SHORT,
    AbstractNoise,
    GradientNoise,
    IsotropicNoise,
    NoisyPaths,
    NoisySteps,
)
from nthsim.solvers.parameter_flow import ParameterFlow
from nthsim.solvers.tolerances import positive
from nthsim.solvers.velocities import TOGETHER

#: States that a step holds at once: gradients at two places, the noise, and the step.
STATES = 5


class Noisy(Curve):
    r"""Gradient flow with the noise of small batches, many paths of it.

    $d\theta = -\nabla L\, dt + \sqrt{h/S}\; C(\theta)^{1/2}\, dW$ in Itô's sense: what descent at
    rate h in batches of S points, drawn each time anew, is to first order in h (Li, Tai & E 2017,
    arXiv 1511.06251; Jastrzebski et al. 2017, arXiv 1711.04623). C is the covariance of the
    gradients of single points, which is never formed. Only h/S matters. A curve of `compare`, and
    what `noisy` walks.

    Args:
        rate: The rate h of the descent that is meant.
        batch_size: The number S of training points in each of its steps.
        key: The random key of the noise. A path is the same whatever other ones there are.
        paths: How many there are, all in one compiled program.
        sigma: Isotropic noise of each gradient instead, $C = \sigma^2$, or none at 0.
        step: The time of one step. Left out, the rate, or a whole part of it that is short, by
            0.2, beside the curvatures of the loss and of single points at the start; a result tells
            where it is long beside the former at a save time.
        name: What the curve is called; by rate and batches if left out.

    Raises:
        ValueError: When an argument is not as above.
    """

    rate: float = eqx.field(static=True)
    batch_size: int = eqx.field(static=True)
    drawn_by: Key[Array, ""]
    paths: int = eqx.field(static=True)
    sigma: float | None = eqx.field(static=True)
    step: float | None = eqx.field(static=True)
    name: str = eqx.field(static=True)

    def __init__(
        self,
        rate: float,
        batch_size: int,
        *,
        key: Key[Array, ""] | None = None,
        paths: int = 16,
        sigma: float | None = None,
        step: float | None = None,
        name: str | None = None,
    ) -> None:
        self.rate, self.batch_size = checked_rate(rate), count("batch_size", batch_size, 1)
        self.drawn_by, self.paths = checked_key(key, "noise"), count("paths", paths, 1)
        self.sigma, self.step = _checked_sigma(sigma), positive("step", step)
        kind = "noisy" if sigma is None else f"isotropic {self.sigma:g}"
        usual = f"{kind} {self.rate:g}, batches of {self.batch_size}"
        self.name = usual if name is None else name
        if not isinstance(self.name, str):
            raise ValueError(f"`name` must be a word, but is {name!r}.")

    @property
    def key(self) -> str:
        """Such as "noisy 0.1, batches of 8"."""
        return self.name

    @property
    def auditable(self) -> bool:
        """Its steps are as long as they are."""
        return False

    def check(self, problem: Problem) -> None:
        """Refuse what has no gradients of single samples, or other dynamics."""
        problem.check_unmoved("noise")
        if self.sigma is None and not problem.linear_backward:
            raise ValueError(
                "`model` must have a linear backward pass for the noise of batches, but has none: "
                "take isotropic noise, `sigma`."
            )

    def check_memory(self, size: Size) -> None:
        """All paths are held at once."""
        check_points(size, self._bytes, f"{self.paths} paths")

    def needs(self, size: Size) -> Needs:
        """The parameters of all paths move; a step is five gradients of each."""
        return Needs(
            moving=self.paths * size.parameters,
            frozen=0,
            peak=self._bytes(size),
            kernels=self.paths * size.recorded * kernel_flops(size, 2),
            side=5 * self.paths * gradient_flops(size),
        )

    def trajectory(self, run: Run, start: Start, *, progress: bool) -> Trajectory:
        """Walk them."""
        problem = start.problem
        flow = parameter_flow(problem)
        system, steps = NoisyPaths(flow, self.paths), self._steps(problem, flow)

        def kernel() -> Any:
            evaluate = problem.kernel(2)

            def mean(state: PyTree[Array]) -> np.ndarray:
                alone = [jax.tree.map(lambda a, j=j: a[j], state) for j in range(self.paths)]
                return np.mean([evaluate(flow.moved(each)) for each in alone], axis=0)

            return mean

        return run.integrated(problem, system, kernel, self.name, steps=steps, progress=progress)

    def _steps(self, problem: Problem, flow: ParameterFlow) -> NoisySteps:
        """What makes the steps."""
        step = self.step or self._step(problem, flow)
        some = f"noise of batches of {self.batch_size} at rate {self.rate:g}"
        drawn = np.asarray(jr.key_data(self.drawn_by)).tolist()
        told = [self.rate, self.batch_size, self.sigma, self.step, self.paths, drawn]
        return NoisySteps(
            noise=self._noise(problem),
            amplitude=math.sqrt(self.rate / self.batch_size),
            key=self.drawn_by,
            rate=step,
            choice=f"{self.paths} paths in steps of {step:.4g}, {some}, on lines between",
            mark=hashlib.sha256(repr(told).encode()).hexdigest(),
        )

    def _step(self, problem: Problem, flow: ParameterFlow) -> float:
        """The rate, or a whole part of it that is short beside the fastest rate at the start.

        That is the largest curvature, and that by which the noise makes itself grow.
        """
        try:
            curvature = float(largest_curvature(flow.objective, flow.initial()))
            if self.sigma is None:
                single = float(_largest_of_samples(problem))
                curvature *= 1 + self.rate / self.batch_size * single
            parts = max(1, math.ceil(self.rate * curvature / SHORT))
        except Exception as error:  # whatever JAX says of what it cannot derive twice
            raise ValueError(
                "`step` must be given for a model without second derivatives, but is None: "
                f"{first_line(error)}."
            ) from error
        return self.rate / parts

    def _noise(self, problem: Problem) -> AbstractNoise:
        """What is drawn."""
        if self.sigma is None:
            return GradientNoise()
        assert isinstance(problem.network, Network)  # no other is walked
        number = lambda value: jnp.asarray(value, problem.dtype)  # noqa: E731
        scales = problem.network.by_parameters(jax.tree.map(lambda _: number(1.0), problem.theta))
        return IsotropicNoise(number(self.sigma), scales)

    def _bytes(self, size: Size) -> int:
        """The peak of all paths together, and what is kept of each."""
        every = dataclasses.replace(
            size.with_n(size.points * self.paths),
            parameters=size.parameters * self.paths,
            stages=STATES,
            basis=0,
            recorded=0,
            noted=0,
        )
        kept = size.itemsize * size.save_times * self.paths * size.entries(1)
        return flow_bytes(every) + flow_bytes(dataclasses.replace(size, stages=0, basis=0)) + kept


def noisy(
    model: PyTree,
    data: Dataset,
    noise: Noisy,
    run: Run | ArrayLike,
    *,
    loss: Loss = squared_error,
    rates: PyTree = None,
    regulariser: Regulariser | None = None,
    progress: bool = True,
) -> Trajectory:
    """Train `model` by gradient flow with noise, such as that of descent in small batches.

    What is not told here is as in `gradient_flow`. Between two steps a path is on the straight
    line between.

    Args:
        model: As there.
        data: As there.
        noise: Such as `Noisy(0.1, batch_size=8, key=key)`.
        run: As there; of its limits only `seconds`, and nothing of a network's parameters is
            recorded; the kernel is the mean of all paths. Its solver takes no part.
        loss: As there.
        rates: As there.
        regulariser: As there; it makes no noise.
        progress: As there.

    Returns:
        A trajectory whose `f`, `loss` and `accuracy` are means over the paths, which are in
        `path_f` (T, paths, n) or (T, paths, n, k) and `path_loss` (T, paths), and likewise of test
        points; see `Trajectory.quantiles`.

    Raises:
        ValueError: When an argument is not as above, or something does not fit into memory.
        SolveError: As there; where a path diverges, all end.
    """
    run = checked_run(run)
    concrete("noisy", model, data, run.ts, regulariser)
    if not isinstance(noise, Noisy):
        raise ValueError(
            "`noise` must be a Noisy, such as Noisy(0.1, batch_size=8, key=jax.random.key(0)), but "
            f"is {shown(noise)}."
        )
    problem = pose(model, data, loss, rates, regulariser)
    noise.check(problem)
    noise.check_memory(problem_size(problem, run))
    check_everywhere(run.record, "noise")
    if run.until.watched:
        raise ValueError("`until` must have no other limit than seconds for noise, but has.")
    found = noise.trajectory(run, Start(problem, progress=progress), progress=progress)
    if found.stop.failed and run.throw:
        raise SolveError(found)
    return found


@compiled
def _largest_of_samples(problem: Problem) -> Float[Array, ""]:
    """The largest curvature of the loss of any single training point."""

    def curvature(sample: Int[Array, ""]) -> Float[Array, ""]:
        loss = lambda theta: problem.objective(theta, sample[None])  # noqa: E731
        return largest_curvature(loss, problem.theta)

    n, together = len(problem.x), max(1, TOGETHER // parameter_count(problem.theta))
    with jax.default_matmul_precision("highest"):
        return jnp.max(jax.lax.map(curvature, jnp.arange(n), batch_size=min(n, together)))


def _checked_sigma(sigma: object) -> float | None:
    """A number of at least 0, or None."""
    zero = isinstance(sigma, Real) and not isinstance(sigma, bool) and sigma == 0
    return 0.0 if zero else positive("sigma", sigma)
