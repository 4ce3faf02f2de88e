r"""The first order in 1/m of training, in closed form."""

import time
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree
from numpy.typing import ArrayLike

from nthsim.budget.choice import Needs, check_perturbation
from nthsim.budget.size import Size, perturbation_bytes
from nthsim.budget.work import kernels_flops
from nthsim.dynamics.curve import Curve
from nthsim.dynamics.pose import pose
from nthsim.dynamics.problem import Problem
from nthsim.dynamics.recorder import check_everywhere
from nthsim.dynamics.run import Run, checked_run, problem_size
from nthsim.dynamics.start import Start
from nthsim.dynamics.trajectory import Trajectory
from nthsim.inputs.arrays import concrete
from nthsim.inputs.dataset import Dataset
from nthsim.inputs.loss import Loss, check_quadratic, squared_error
from nthsim.network.regulariser import check_without
from nthsim.solvers.compiled import compiled
from nthsim.solvers.divided import divided_exp, divided_exp_to_zero


class Perturbation(Curve):
    """The first order in 1/m, as in `perturbation`."""

    @property
    def key(self) -> str:
        """Its name."""
        return "perturbation"

    @property
    def rank(self) -> int:
        """It is made of four kernels."""
        return 4

    @property
    def auditable(self) -> bool:
        """It is a closed form."""
        return False

    @property
    def dotted(self) -> bool:
        """It is nearly order 4."""
        return True

    @property
    def look(self) -> int:
        """The second of theories."""
        return 2

    def check(self, problem: Problem) -> None:
        """Refuse another loss, and missing derivatives."""
        check_quadratic(problem.residual.loss, "perturbation theory")
        check_without(problem.penalty, "perturbation theory")
        problem.check_unmoved("perturbation theory")
        problem.check_single("perturbation theory")
        problem.check_kernel(4)

    def check_memory(self, size: Size) -> None:
        """It holds four kernels."""
        check_perturbation(size)

    def needs(self, size: Size) -> Needs:
        """Nothing moves."""
        return Needs(
            moving=0,
            frozen=sum(size.entries(r) for r in range(1, 5)),
            peak=perturbation_bytes(size),
            kernels=kernels_flops(size, 4),
            side=0,
            held=size.itemsize * sum(size.entries(r) for r in range(1, 5)),
        )

    def trajectory(self, run: Run, start: Start, *, progress: bool) -> Trajectory:
        """The expansion at all save times."""
        del progress  # that of the kernels is shown by `start`
        kernels, clock = start.kernels(4), time.perf_counter()
        with jax.default_matmul_precision("highest"):
            f, kernel = _evaluated(start.problem, kernels, run)
        why = "first order in K^(3) and K^(4) at t = 0, that is in 1/width"
        name = "perturbation theory"
        return run.evaluated(start.problem, f, kernel, name, why=why, clock=clock)


def perturbation(
    model: PyTree,
    data: Dataset,
    run: Run | ArrayLike,
    *,
    loss: Loss = squared_error,
    rates: PyTree = None,
    progress: bool = True,
) -> Trajectory:
    r"""Train with the frozen tangent kernel, corrected to first order in 1/m in closed form.

    With $K^{(2)}_0 e_i = \lambda_i e_i$ on the training points, $\delta = f - y$,
    $d_i = e_i \cdot \delta_0$ and $\tau = t/n$ (n samples), the tangent kernel moves by

    $$\Theta_1(\tau) = -\sum_i K^{(3)}_0(\cdot, \cdot, e_i)\, d_i\, \tau \exp[0, -\tau\lambda_i]
    + \sum_{ij} K^{(4)}_0(\cdot, \cdot, e_i, e_j)\, d_i d_j\,
    \tau^2 \exp[0, -\tau\lambda_i, -\tau(\lambda_i + \lambda_j)],$$

    and the outputs by $f_1(\tau) = -\int_0^\tau e^{-(\tau - s) K^{(2)}_0} \Theta_1(s)\,
    e^{-s K^{(2)}_0} \delta_0\, ds$, where brackets are divided differences, which hold for equal,
    close and vanishing eigenvalues (Dyer & Gur-Ari 2019, arXiv 1909.11304, whose loss is a sum: t/n
    here is t there). It is what the order-4 truncation is to first order in $K^{(3)}$ and
    $K^{(4)}$, so that both differ by $O(m^{-2})$. Kinks are missed, as by `kernel`.

    Args:
        model: As in `gradient_flow`.
        data: As there.
        run: Of it the times and what to record count; a kernel that is recorded is
            $K^{(2)}_0 + \Theta_1$.
        loss: Must be `squared_error`.
        rates: As there.
        progress: That of the kernels.

    Returns:
        A trajectory of no steps.

    Raises:
        ValueError: When the loss is another, or $K^{(4)}$ does not fit into memory.
    """
    run = checked_run(run)
    concrete("perturbation", model, data, run.ts)
    check_everywhere(run.record, "perturbation theory")
    check_quadratic(loss, "perturbation theory")
    problem, curve = pose(model, data, loss, rates), Perturbation()
    curve.check(problem)
    curve.check_memory(problem_size(problem, run))
    return curve.trajectory(run, Start(problem, progress=progress), progress=progress)


class _Expansion(eqx.Module):
    r"""The first order, in the eigenbasis of $K^{(2)}_0$; N training slots, N_first in all.

    `third` and `fourth` are $K^{(3)}, K^{(4)}$ with modes in all slots but the first, each
    multiplied by its `start` d. In the first slot, `train` has modes and `test` has points.
    """

    rates: Float[Array, " N"]
    start: Float[Array, " N"]
    tangent: Float[Array, "test N"]
    train: tuple[Float[Array, "N N N"], Float[Array, "N N N N"]]
    test: tuple[Float[Array, "test N N"], Float[Array, "test N N N"]]

    def __call__(self, tau: Float[Array, ""]) -> tuple[Float[Array, " N"], Float[Array, " test"]]:
        r"""$\delta$ in modes, and the movement of f at test points."""
        rates = self.rates
        # When the slots of a term have met the residual: first one, then both, then all three.
        second = rates[:, None] + rates[None]
        once = [rates[:, None], second]
        twice = [rates[:, None, None], second[:, :, None], second[:, :, None] + rates[None, None]]

        def row(mode: tuple[Array, Array, Array]) -> tuple[Array, Array]:
            rate, third, fourth = mode
            weights = _weights([rate.reshape(1, 1), *once], tau)
            others = _weights([rate.reshape(1, 1, 1), *twice], tau)
            pairs = zip(weights, others, strict=True)
            now, swept = (jnp.sum(third * a) - jnp.sum(fourth * b) for a, b in pairs)
            return now, swept

        now, swept = jax.lax.map(row, (rates, *self.train))
        still = jnp.exp(-tau * rates) * self.start
        swept = swept + tau * divided_exp([jnp.zeros_like(rates), -tau * rates]) * self.start
        third, fourth = self.test
        test = jnp.tensordot(third, _weights(once, tau)[1], axes=2)
        test = test - jnp.tensordot(fourth, _weights(twice, tau)[1], axes=3)
        return still + now, test - self.tangent @ swept


def _weights(rates: list[Array], tau: Float[Array, ""]) -> tuple[Array, Array]:
    r"""$\int e^{-\sum_i \lambda_i s_i}$ over $s_i \ge 0$ that add up to tau, and to tau at most."""
    now, swept = divided_exp_to_zero([-tau * rate for rate in rates])
    return tau ** (len(rates) - 1) * now, tau ** len(rates) * swept


def _evaluated(
    problem: Problem, kernels: tuple[Array, ...], run: Run
) -> tuple[Float[Array, "T N_first"], Callable[[], Float[Array, "S N_first N"]]]:
    f, tangent, third, fourth = kernels
    N, y = tangent.shape[1], problem.residual.y.reshape(-1)
    rates, modes = jnp.linalg.eigh((tangent[:N] + tangent[:N].T) / 2)
    rates = jnp.maximum(rates, jnp.zeros_like(rates))  # what lies below is rounding
    start = modes.T @ (f[:N] - y)
    taus, kernel_taus = (
        jnp.asarray(ts / len(problem.x), f.dtype) for ts in (run.ts, run.recorded_ts)
    )
    driven = modes * start[None]  # the last slots, each met by the residual of a mode
    third, fourth = third @ driven, jnp.einsum("xbcd,ci,dj->xbij", fourth, driven, driven)
    met = third, fourth  # before their first slots are turned

    def kernel() -> Array:
        return tangent[None] + _kernels(*met, rates, kernel_taus)

    third, fourth = (jnp.einsum("xb...,bi->xi...", k, driven) for k in (third, fourth))
    expansion = _Expansion(
        rates=rates,
        start=start,
        tangent=tangent[N:] @ modes,
        train=(_turned(modes, third[:N]), _turned(modes, fourth[:N])),
        test=(third[N:], fourth[N:]),
    )
    delta, moved = _mapped(expansion, taus)
    return jnp.concatenate([y[None] + delta @ modes.T, f[None, N:] + moved], axis=1), kernel


def _turned(modes: Float[Array, "N N"], tensor: Float[Array, "N ..."]) -> Float[Array, "N ..."]:
    """Modes in place of points in the first slot."""
    return jnp.tensordot(modes.T, tensor, axes=1)


@compiled
def _mapped(expansion: _Expansion, taus: Float[Array, " T"]) -> tuple[Array, Array]:
    """The expansion at each time in turn."""
    return jax.lax.map(expansion, taus)


@compiled
def _kernels(
    third: Float[Array, "N_first N N"],
    fourth: Float[Array, "N_first N N N"],
    rates: Float[Array, " N"],
    taus: Float[Array, " S"],
) -> Float[Array, "S N_first N"]:
    r"""$\Theta_1$ at each time."""

    def moved(tau: Float[Array, ""]) -> Float[Array, "N_first N"]:
        zero = jnp.zeros_like(rates)
        once = tau * divided_exp([zero, -tau * rates])
        both = [zero[:, None], -tau * rates[:, None], -tau * (rates[:, None] + rates[None])]
        twice = tau**2 * divided_exp(both)
        return jnp.tensordot(fourth, twice, axes=2) - third @ once

    return jax.lax.map(moved, taus)
