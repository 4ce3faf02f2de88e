"""When to record what, and by which solver to get there."""

import equinox as eqx
import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from nthsim.checks import times
from nthsim.recorders import Recorded, kernel_times
from nthsim.solvers.auto import Auto, check_solver
from nthsim.solvers.explicit import Explicit


class Schedule(eqx.Module):
    """Save times, the solver, and those of the save times at which the kernel is recorded."""

    ts: Float[np.ndarray, " T"]
    solver: Explicit | Auto
    kernel_ts: Float[np.ndarray, " S"]


def schedule(ts: ArrayLike, solver: Explicit | Auto, record_kernel: Recorded = False) -> Schedule:
    """Check what a user said.

    Raises:
        ValueError: When an argument is not as `gradient_flow` documents it.
    """
    check_solver(solver)
    ts = times(ts)
    return Schedule(ts, solver, kernel_times(record_kernel, ts))
