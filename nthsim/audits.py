"""Solver errors beside what is shown: every dynamics solved once more, ten times as tightly."""

import dataclasses
from collections.abc import Callable

import numpy as np

from nthsim.errors import Series, rms
from nthsim.schedules import Schedule
from nthsim.trajectories import Trajectory, heard


def audited(
    run: Trajectory, again: Callable[[Schedule], Trajectory], course: Schedule
) -> Trajectory:
    """A trajectory with its `solver_error`, how far a tighter solve of the same is from it."""
    tighter = heard(again(course.audit(run.f.dtype)))
    both = min(len(run.ts), len(tighter.ts))
    found = np.full(len(run.ts), np.inf)
    found[:both] = rms(run.f[:both] - tighter.f[:both])
    return dataclasses.replace(run, solver_error=found)


def floor(run: Trajectory, exact: Trajectory) -> Series | None:
    """The solver errors of a run and of exact flow together, at the times that both reached.

    What lies between the two by less says nothing. None for what was not audited.
    """
    if run.solver_error is None or exact.solver_error is None:
        return None
    both = min(len(run.ts), len(exact.ts))
    return run.solver_error[:both] + exact.solver_error[:both]
