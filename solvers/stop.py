"""Why an integration ended, as data."""

from typing import Literal

import equinox as eqx

Reason = Literal["horizon", "step limit", "blow-up", "step size", "non-finite", "interrupt"]


class Stop(eqx.Module):
    """The reason a run ended, the time it ended at, and a sentence for people."""

    reason: Reason
    t: float
    message: str

    @property
    def failed(self) -> bool:
        """Whether the run ended before its last save time."""
        return self.reason != "horizon"

    def __str__(self) -> str:
        return self.message
