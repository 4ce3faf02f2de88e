"""Why an integration ended, as data."""

from typing import Literal

import equinox as eqx

Reason = Literal[
    "horizon",
    "loss",
    "gradient",
    "stalled",
    "seconds",
    "step limit",
    "blow-up",
    "step size",
    "non-finite",
    "recording",
    "raised",
    "interrupt",
]

#: Ends before the last save time that were asked for.
ASKED = ("loss", "gradient", "stalled", "seconds")


class Stop(eqx.Module):
    """The reason a run ended, the time it ended at, and a sentence for people."""

    reason: Reason
    t: float
    message: str

    @property
    def failed(self) -> bool:
        """Whether the run ended otherwise than it was asked to."""
        return self.reason != "horizon" and not self.asked

    @property
    def asked(self) -> bool:
        """Whether it ended before the last save time because it was told to."""
        return self.reason in ASKED

    def __str__(self) -> str:
        return self.message
