"""Save times."""

import numpy as np
from jaxtyping import Float

from nthsim.counts import count


def log_times(t0: float, t1: float, num: int) -> Float[np.ndarray, " num"]:
    """Zero, and then save times evenly spaced in log t from t0 to t1; `num` in all.

    For runs that end by an `Until`, give any t1 beyond.

    Raises:
        ValueError: When not 0 < t0 < t1 < infinity, or `num` is less than 3.
    """
    num = count("num", num, 3)
    if not (np.isfinite([t0, t1]).all() and 0 < t0 < t1):
        raise ValueError(f"`t0` and `t1` must be positive and rise, but are {t0!r} and {t1!r}.")
    return np.concatenate([[0.0], np.geomspace(t0, t1, num - 1)])
