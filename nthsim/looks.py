"""Colours and markers that tell curves apart."""

#: Okabe and Ito's colours, which colour-blind people tell apart too; markers tell them in print.
LOOKS = (
    ("#000000", ""),
    ("#0072B2", "o"),
    ("#D55E00", "s"),
    ("#009E73", "^"),
    ("#CC79A7", "D"),
    ("#E69F00", "v"),
    ("#56B4E9", "P"),
    ("#882255", "*"),
    ("#8A7A1F", "h"),
)

#: Those that curves over time take in turn; the last two are for theories.
PLAIN_LOOKS = 6


def look_of(look: int) -> tuple[str, str]:
    """A colour and a marker."""
    return LOOKS[0] if not look else LOOKS[1 + (look - 1) % (len(LOOKS) - 1)]
