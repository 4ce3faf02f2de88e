"""By how much outputs tell the right class."""

import equinox as eqx
import numpy as np

from nthsim.dynamics.accuracy import SIGN, classified
from nthsim.dynamics.observable import Observable
from nthsim.dynamics.problem import Problem
from nthsim.inputs.readout import by_largest
from nthsim.results.moment import Moment
from nthsim.results.record import Label
from nthsim.solvers.integration import Unrecorded


class Margin(Observable):
    r"""The smallest margin of the training points, as `margin` (T,).

    $\min_b y_b f_b$ where the sign of a single output tells classes -1 and +1, and the least of
    $f_{b, c} - \max_{j \ne c} f_{b, j}$, with c the class of point b, where the largest of several
    does; positive once all classes are told (Lyu & Li 2020, arXiv 1906.05890).
    """

    name: str = eqx.field(default="margin", init=False)
    of_parameters: bool = eqx.field(default=False, init=False)

    def evaluate(self, moment: Moment) -> dict[str, np.ndarray]:
        """From the outputs.

        Raises:
            Unrecorded: When targets are no classes, or a loss of one's own reads them otherwise.
        """
        residual = moment.problem.residual
        y, found = np.asarray(residual.y), classified(residual.y, residual)
        if found is None or found[1] not in (SIGN, by_largest):
            raise Unrecorded(
                "margin needs targets that are classes, told by the sign of a single output or by "
                "the largest of several"
            )
        f = np.ravel(moment.f)[: y.size].reshape(len(y), -1)
        if f.shape[1] == 1:
            return {self.name: np.array(np.min(f * y.reshape(f.shape)))}
        own = np.arange(f.shape[1]) == found[0][:, None]
        others = np.where(own, -np.inf, f).max(axis=1)
        return {self.name: np.array(np.min(f[own] - others))}

    def labels(self, problem: Problem) -> dict[str, Label]:
        """A single number."""
        del problem
        return {self.name: Label((), "1", {})}
