"""What the tangent kernel looks like along a run: its spectrum, and how it is aligned."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from nthsim.dynamics.eigenvalues import AbstractOperator, largest
from nthsim.dynamics.observable import Observable
from nthsim.dynamics.problem import Problem
from nthsim.inputs.integers import check_truths, count
from nthsim.results.moment import Moment
from nthsim.results.record import Label

#: With more outputs on the training points than this, eigenvalues of a network's own kernel are had
#: without forming it, if only some are asked for.
FORMED = 1000


class Spectrum(Observable):
    r"""The largest eigenvalues of $K^{(2)}$ among the training points, as `spectrum` (T, top).

    In descending order; those of its symmetric part, as that of a truncation of order 4 and more
    may have another one. A mode of training decays at the rate $\lambda / n$ (Jacot et al. 2018,
    arXiv 1806.07572).

    Args:
        top: How many; all if left out.

    Raises:
        ValueError: When `top` is not an integer of at least 1.
    """

    top: int | None = eqx.field(
        default=None, converter=lambda top: None if top is None else count("top", top, 1)
    )
    name: str = eqx.field(default="spectrum", init=False)
    of_parameters: bool = eqx.field(default=False, init=False)

    @property
    def number(self) -> int | None:
        """How many."""
        return self.top

    def evaluate(self, moment: Moment) -> dict[str, np.ndarray]:
        """From the kernel, or from its products with vectors where it is large."""
        problem, top = moment.problem, self._top(moment.problem)
        moves = moment.theta is not None and problem.forward
        if moves and _outputs(problem) > FORMED and 4 * top < _outputs(problem):
            return {self.name: largest(Kernel(problem, moment.theta), top)}
        return {self.name: np.linalg.eigvalsh(_symmetric(moment))[::-1][:top]}

    def labels(self, problem: Problem) -> dict[str, Label]:
        """Along the eigenvalues, from 1 on."""
        places = np.arange(1, self._top(problem) + 1)
        return {self.name: Label(("mode",), "1", {"mode": places})}

    def _top(self, problem: Problem) -> int:
        N = _outputs(problem)
        return N if self.top is None else min(self.top, N)


class Alignment(Observable):
    r"""How far $K^{(2)}$ is aligned with the targets, $y^\top K y / (\|K\|_F \|y\|^2)$.

    It is 1 where the targets are all that the kernel knows (Cristianini et al. 2001; of networks
    that are trained: Baratin et al. 2021, arXiv 2008.00938), NaN where either is zero. Recorded as
    `alignment` (T,), or as `centred_alignment`.

    Args:
        centred: Whether kernel and targets are centred over samples first, by output (Cortes, Mohri
            & Rostamizadeh 2012, arXiv 1203.0550).

    Raises:
        ValueError: When `centred` is not True or False.
    """

    name: str
    of_parameters: bool
    centred: bool

    def __init__(self, *, centred: bool = False):
        """Of the kernel as it is, or `centred`."""
        check_truths(centred=centred)
        self.centred, self.of_parameters = centred, False
        self.name = "centred_alignment" if centred else "alignment"

    def evaluate(self, moment: Moment) -> dict[str, np.ndarray]:
        """From the kernel among the training points."""
        problem, kernel = moment.problem, _symmetric(moment)
        y = np.asarray(problem.residual.y, float)
        if y.size != _outputs(problem):
            raise ValueError("targets are not of the outputs' shape")
        k = problem.outputs_per_sample
        y = y.reshape(-1, k)
        if self.centred:
            tensor = kernel.reshape(len(y), k, len(y), k)
            tensor = tensor - tensor.mean(axis=0, keepdims=True)
            tensor = tensor - tensor.mean(axis=2, keepdims=True)
            tensor, centred = tensor.reshape(kernel.shape), y - y.mean(axis=0, keepdims=True)
            kernel, y = _beyond_rounding(tensor, kernel), _beyond_rounding(centred, y)
        y, size = y.ravel(), np.linalg.norm(kernel) * np.sum(y**2)
        return {self.name: np.array(y @ kernel @ y / size if size else np.nan)}

    def labels(self, problem: Problem) -> dict[str, Label]:
        """A single number."""
        del problem
        return {self.name: Label((), "1", {})}


class EffectiveRank(Observable):
    r"""$\exp(-\sum_i p_i \log p_i)$ with $p_i = \lambda_i / \sum_j \lambda_j$, of $K^{(2)}$.

    From 1 to N (Roy & Vetterli 2007, EUSIPCO). Recorded as `effective_rank` (T,).
    """

    name: str = eqx.field(default="effective_rank", init=False)
    of_parameters: bool = eqx.field(default=False, init=False)

    def evaluate(self, moment: Moment) -> dict[str, np.ndarray]:
        """From all eigenvalues; those below zero, which a truncation may have, count as zero."""
        values = np.maximum(np.linalg.eigvalsh(_symmetric(moment)), 0)
        parts = values[values > 0] / values.sum() if values.any() else np.ones(1)
        return {self.name: np.array(np.exp(-np.sum(parts * np.log(parts))))}

    def labels(self, problem: Problem) -> dict[str, Label]:
        """A single number."""
        del problem
        return {self.name: Label((), "1", {})}


class Kernel(AbstractOperator):
    r"""$v \mapsto J (J^\top v)$ with J the derivatives of all training outputs."""

    problem: Problem
    theta: PyTree[Array]

    @property
    def size(self) -> int:
        """N."""
        return _outputs(self.problem)

    @property
    def dtype(self) -> jnp.dtype:
        """That of the parameters."""
        return self.problem.dtype

    def __call__(self, v: Float[Array, " N"]) -> Float[Array, " N"]:
        """By one backward and one forward pass."""
        outputs = lambda theta: self.problem.network(theta, self.problem.x).reshape(-1)  # noqa: E731
        gradient = jax.vjp(outputs, self.theta)[1](v)[0]
        return jax.jvp(outputs, (self.theta,), (gradient,))[1]


def _outputs(problem: Problem) -> int:
    """N, the number of outputs on the training points."""
    return len(problem.x) * problem.outputs_per_sample


def _beyond_rounding(
    rest: Float[np.ndarray, "..."], of: Float[np.ndarray, "..."]
) -> Float[np.ndarray, "..."]:
    """What is left of an array, zero where that is as little as rounding leaves."""
    little = 10 * np.finfo(float).eps * np.linalg.norm(of)
    return rest if np.linalg.norm(rest) > little else np.zeros_like(rest)


def _symmetric(moment: Moment) -> Float[np.ndarray, "N N"]:
    """The kernel among the training points."""
    kernel = moment.kernel[: _outputs(moment.problem)].astype(float)
    return (kernel + kernel.T) / 2
