"""An ordinary differential equation as the one noun that integrators know."""

import abc

import equinox as eqx
from jaxtyping import Array, Bool, Float, PyTree


class AbstractSystem(eqx.Module):
    """An autonomous system, its start, what it shows of itself, and how its errors are measured."""

    @abc.abstractmethod
    def initial(self) -> PyTree[Array]:
        """The state at $t = 0$."""

    @abc.abstractmethod
    def field(self, state: PyTree[Array]) -> PyTree[Array]:
        """The time derivative of `state`, with its structure."""

    @abc.abstractmethod
    def sizes(self, state: PyTree[Array]) -> Float[Array, "*members levels"]:
        """One norm per level; the error of each level is held against its own size."""

    @abc.abstractmethod
    def scales(self) -> Float[Array, "*members levels"]:
        """What the size of each level is to be compared with; zero where nothing is known."""

    @abc.abstractmethod
    def outputs(self, state: PyTree[Array]) -> dict[str, Array]:
        """The named arrays that are recorded at each save time."""

    def roughness(self) -> str:
        """What keeps the field from being smooth, kinks that are crossed aside; "" if nothing."""
        return ""

    @abc.abstractmethod
    def escaped(self, state: PyTree[Array]) -> Bool[Array, ""]:
        """Whether the solution has left every bound, which ends the run."""
