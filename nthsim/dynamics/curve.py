"""What can be set beside exact flow: another dynamics of the same problem, or a theory of it."""

import abc

import equinox as eqx

from nthsim.budget.choice import Needs
from nthsim.budget.size import Size
from nthsim.dynamics.problem import Problem
from nthsim.dynamics.run import Run
from nthsim.dynamics.start import Start
from nthsim.dynamics.trajectory import Trajectory

#: What exact flow is called in tables, figures and files.
EXACT = "exact flow"


class Curve(eqx.Module):
    """One curve of a comparison beside that of exact flow.

    A new one is one class like this, listed in `comparison/asked.py` and in `__init__.pyi`.
    """

    @property
    @abc.abstractmethod
    def key(self) -> str:
        """Its name in tables, figures and files, such as "order 3"."""

    @property
    def rank(self) -> int:
        r"""The highest r of the $K^{(r)}$ that it starts from; 0 if it takes none."""
        return 0

    @property
    def auditable(self) -> bool:
        """Whether it is a solution, which can be solved more tightly."""
        return True

    @property
    def dotted(self) -> bool:
        """Whether it may lie on another, which is to be seen below it."""
        return False

    @property
    def look(self) -> int | None:
        """The number of its own look among theories; None for the next one in the figure."""
        return None

    def settled(self, size: Size) -> "Curve":
        """The same with the method that it takes, where there are several."""
        del size
        return self

    @abc.abstractmethod
    def check(self, problem: Problem) -> None:
        """Refuse a problem that it is not defined for.

        Raises:
            ValueError: When it is such a one.
        """

    @abc.abstractmethod
    def check_memory(self, size: Size) -> None:
        """Refuse what does not fit into memory by itself.

        Raises:
            ValueError: When it does not.
        """

    @abc.abstractmethod
    def needs(self, size: Size) -> Needs:
        """What it takes."""

    @abc.abstractmethod
    def trajectory(self, run: Run, start: Start, *, progress: bool) -> Trajectory:
        """Integrate or evaluate it."""
