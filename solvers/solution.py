"""What an integration returns."""

import equinox as eqx
import numpy as np
from jaxtyping import Float, PyTree

from nthsim.solvers.stop import Stop


class Stats(eqx.Module):
    """The work that an integration took.

    `steps` counts accepted and rejected steps, trials at a limit of `Until` among the latter (a
    closed form has neither, unless a limit is watched), `forced` those among the accepted that
    missed the tolerance at a jump of the right-hand side, `evaluations` right-hand sides (an
    exponential step has about as much work besides, an implicit one much more); `seconds` is wall
    time with compilation, of the integration alone: the kernels that a truncation starts from are
    computed before it and are outside.
    """

    steps: int
    rejected: int
    forced: int
    evaluations: int
    seconds: float


class Solution(eqx.Module):
    """The save times that were reached, what was recorded there, and how the run ended.

    `records` maps each name to an array whose first axis is time; `choice` names the method and its
    tolerances; `state` is the last one, at `stop.t`.
    """

    ts: Float[np.ndarray, " T"]
    records: dict[str, np.ndarray]
    state: PyTree
    stop: Stop
    stats: Stats
    choice: str
