"""Which inputs stand in which slot of a kernel."""

import equinox as eqx
from jaxtyping import Array


class Slots(eqx.Module):
    """The inputs of all slots in one batch, the range of slot 1 and that of all others.

    Test points follow training points in slot 1 of a hierarchy's kernels, which share one range of
    signals or gradients that way; slot 1 may also hold other points alone.
    """

    points: Array
    first_range: tuple[int, int] = eqx.field(static=True)
    other_range: tuple[int, int] = eqx.field(static=True)
    outputs: int = eqx.field(static=True)

    @property
    def first(self) -> Array:
        """The inputs of slot 1."""
        return self.points[slice(*self.first_range)]

    @property
    def others(self) -> Array:
        """The inputs of every other slot."""
        return self.points[slice(*self.other_range)]

    @property
    def joined(self) -> bool:
        """Whether slot 1 holds the inputs of the other slots too."""
        return self.first_range[0] <= self.other_range[0] < self.first_range[1]

    def shape(self, order: int) -> tuple[int, ...]:
        r"""The shape of $K^{(r)}$ with samples and outputs joined: (N_first, N, ..., N)."""
        N_first, N = (
            (end - start) * self.outputs for start, end in (self.first_range, self.other_range)
        )
        return (N_first, *(N,) * (order - 1))
