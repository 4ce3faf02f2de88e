"""Observables of a run, evaluated where they are to be."""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import numpy as np
from jaxtyping import Float

from nthsim.dynamics.observable import Observable, refused
from nthsim.results.moment import Moment
from nthsim.results.record import Label
from nthsim.solvers.integration import Unrecorded


class Recorder(eqx.Module):
    """Evaluates observables of a state at those save times that were chosen.

    With `always`, also at a time that nobody knew beforehand, where a run was told to stop.
    """

    times: Float[np.ndarray, " S"]
    always: bool
    observables: tuple[Observable, ...]
    moment: Callable[[float, Any, dict[str, np.ndarray]], Moment]

    def __call__(self, t: float, state: Any, shown: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """All named arrays and `record_ts`, or nothing at other times."""
        if not self.always and t not in self.times:
            return {}
        moment, found = self.moment(t, state, shown), {"record_ts": np.array(t)}
        for each in self.observables:
            found |= each.recorded(moment, found)
        return found


def check_observables(record: Sequence[Observable], problem: Any) -> None:
    """Try a user's own quantities on the network as it starts.

    Raises:
        ValueError: When one fails, returns something else than it must, or is called what another
            one records.
    """
    start, known = Moment.of_parameters(problem, problem.theta), {}
    for each in record:
        try:
            if each.of_parameters:
                known |= each.recorded(start, known)
        except Unrecorded as error:
            raise refused(error) from error


def check_everywhere(record: Sequence[Observable] | None, what: str) -> None:
    """Refuse observables of parameters for a dynamics that has none.

    Raises:
        ValueError: When there is one.
    """
    others = [each.name for each in record or () if each.of_parameters]
    if others:
        raise ValueError(
            f"`record` must hold nothing of a network's parameters for {what}, which has none at "
            f"later times, but holds {others[0]}."
        )


def labels_of(observables: Sequence[Observable], problem: Any) -> dict[str, Label]:
    """The axes and units of what they record, where a name alone does not tell."""
    return {name: label for each in observables for name, label in each.labels(problem).items()}
