"""Training with the kernel of the infinitely wide network."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree
from numpy.typing import ArrayLike

from nthsim.budget.choice import Needs, check_hierarchy
from nthsim.budget.size import Size, hierarchy_bytes
from nthsim.budget.work import dense_side_flops
from nthsim.dynamics.curve import Curve
from nthsim.dynamics.pose import pose
from nthsim.dynamics.problem import Problem
from nthsim.dynamics.recorder import check_everywhere
from nthsim.dynamics.run import Run, checked_run, problem_size
from nthsim.dynamics.solve_error import SolveError
from nthsim.dynamics.start import Start
from nthsim.dynamics.trajectory import Trajectory
from nthsim.dynamics.truncations import integrated_dense
from nthsim.inputs.arrays import choice, concrete
from nthsim.inputs.dataset import Dataset
from nthsim.inputs.loss import Loss, squared_error
from nthsim.kernels.limit_kernel import limit_kernel
from nthsim.models.fcn import FCN
from nthsim.models.resnet import ResNet
from nthsim.network.network import Network
from nthsim.network.regulariser import check_without

#: Where it may start, and what that is.
STARTS = {"network": "the network's own outputs", "zero": "outputs of zero"}

#: The networks whose limits are known.
KINDS = {FCN: "fcn", ResNet: "resnet"}

#: What a limit shares with its network, by the names that both have for it.
SHARED = ("depth", "activation", "c_sigma", "weight_scale", "readout_scale")


class LimitKernel(Curve):
    """Training with the kernel of infinite width, as in `limit_flow`, from its `start`.

    Raises:
        ValueError: When `start` is none of those.
    """

    start: str = eqx.field(
        default="network", converter=lambda name: choice("start", name, tuple(STARTS))
    )

    @property
    def key(self) -> str:
        """Its name, and where it starts if not at the network's outputs."""
        return "limit kernel" if self.start == "network" else f"limit kernel from {self.start}"

    @property
    def auditable(self) -> bool:
        """It is no solution of the network's own equations."""
        return False

    @property
    def look(self) -> int:
        """The first of theories."""
        return 1

    def check(self, problem: Problem) -> None:
        """Refuse a network without a known limit."""
        check_limit(problem.network.model(problem.theta))
        check_without(problem.penalty, "the limit kernel")

    def check_memory(self, size: Size) -> None:
        """As order 2."""
        check_hierarchy(size, 2, "dense", name="data")

    def needs(self, size: Size) -> Needs:
        """As order 2, without the network's kernel."""
        return Needs(
            moving=size.moving(2),
            frozen=size.entries(2),
            peak=hierarchy_bytes(size, 2, "dense"),
            kernels=0,
            side=dense_side_flops(size, 2),
        )

    def trajectory(self, run: Run, start: Start, *, progress: bool) -> Trajectory:
        """As if the limit's kernel were the network's frozen one."""
        problem = start.problem
        f, why = problem.outputs(), f"tangent kernel of infinite width, from {STARTS[self.start]}"
        f = f if self.start == "network" else jnp.zeros_like(f)
        kernels = (f, _flat_kernel(problem))
        return integrated_dense(problem, kernels, run, name=self.key, why=why, progress=progress)


def limit_flow(
    model: PyTree,
    data: Dataset,
    run: Run | ArrayLike,
    *,
    start: str = "network",
    loss: Loss = squared_error,
    rates: PyTree = None,
    progress: bool = True,
) -> Trajectory:
    r"""Train with the tangent kernel that `model` would have at infinite width, $K_\infty$.

    $f' = -K_\infty(\cdot, X)\, c(f)$ with the residual $c = \partial\ell/\partial f / n$, where
    $K_\infty$ is `limit_kernel` of the network's depth, activation, scales and rates, between equal
    outputs; it never moves. For squared error that is kernel regression by gradient flow, solved
    in closed form. Infinitely wide networks train so in "ntk" parametrisation; in "mup" it is the
    kernel that they start with, in "standard" that of the rates which this width has.

    A kernel that is recorded is $K_\infty$; what is not told here is as in `gradient_flow`.

    Args:
        model: An `FCN` or a `ResNet`.
        data: Of test points $K_\infty$ is known too.
        run: Of steps it takes those of order 2.
        start: "network" starts at the outputs of `model`, so that nothing but the kernel differs
            from the order-2 truncation; "zero" at the mean of all initial networks.
        loss: Any.
        rates: As there; they weigh what layers contribute to $K_\infty$.
        progress: Of the integration.

    Raises:
        ValueError: When the limit of `model` is not known.
        SolveError: As there.
    """
    run = checked_run(run)
    concrete("limit_flow", model, data, run.ts)
    check_everywhere(run.record, "the limit kernel's flow")
    curve = LimitKernel(start)
    check_limit(model)
    problem = pose(model, data, loss, rates)
    curve.check_memory(problem_size(problem, run))
    solved = curve.trajectory(run, Start(problem, progress=progress), progress=progress)
    if solved.stop.failed and run.throw:
        raise SolveError(solved)
    return solved


def check_limit(model: PyTree) -> None:
    """Refuse a model whose limit is not known.

    Raises:
        ValueError: When it is neither an `FCN` nor a `ResNet`.
    """
    if type(model) not in KINDS:
        raise ValueError(
            "`model` must be an FCN or a ResNet of nthsim.models to have a limit kernel, but is "
            f"{type(model).__name__}."
        )


def _flat_kernel(problem: Problem) -> Float[Array, "N_first N"]:
    model = problem.network.model(problem.theta)
    options = {name: getattr(model, name) for name in SHARED}
    if isinstance(model, ResNet):
        options["c_res"] = model.c_res * model.depth ** (1 - model.depth_exponent)
    options["rates"] = _layer_rates(problem)
    x, first = problem.x, problem.x_test
    kind = KINDS[type(model)]
    kernel = limit_kernel(kind, x, **options)
    if first is not None:
        kernel = jnp.concatenate([kernel, limit_kernel(kind, x, x_first=first, **options)])
    kernel = model.output_scale**2 * kernel
    return jnp.kron(kernel, jnp.eye(problem.outputs_per_sample)).astype(problem.dtype)


def _layer_rates(problem: Problem) -> tuple[float, ...]:
    """The rate of each weight matrix, the readout's last; 0 for one that is no parameter."""
    theta, network = problem.theta, problem.network
    scales = network.scales if isinstance(network, Network) else None
    of = lambda model: [layer.weight for layer in (*model.layers, model.readout)]  # noqa: E731
    roots = [None] * len(of(theta)) if scales is None else of(scales)
    pairs = zip(of(theta), roots, strict=True)
    return tuple(0.0 if w is None else (1.0 if root is None else root**2) for w, root in pairs)
