"""Solves that ended early."""

from nthsim.dynamics.trajectory import Trajectory
from nthsim.results.terminal import several


class SolveError(RuntimeError):
    """A solve that ended early or missed its `tol`; what it computed is in `.trajectory`."""

    def __init__(self, trajectory: Trajectory) -> None:
        """Say why and where it ended."""
        ladder = trajectory.ladder
        missed = ladder is not None and not trajectory.stop.failed
        singular = trajectory.stop.reason == "non-finite" and trajectory.method is not None
        by = f", by {trajectory.method}" if singular else ""  # which names what is not finite
        super().__init__(
            f"{trajectory.name}: {ladder if missed else trajectory.stop}{by}; "
            f"{several(len(trajectory.ts), 'save time')} kept in `.trajectory`"
        )
        self.trajectory = trajectory


def raise_if_interrupted(found: Trajectory) -> Trajectory:
    """Pass Ctrl-C on, which a run keeps as its reason to stop."""
    if found.stop.reason == "interrupt":
        raise KeyboardInterrupt
    return found
