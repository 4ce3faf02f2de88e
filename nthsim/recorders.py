"""The tangent kernel, recorded at chosen save times along a run."""

from collections.abc import Callable, Sequence

import equinox as eqx
import numpy as np
from jaxtyping import Array, Float, PyTree

from nthsim.checks import times

#: All save times, none, or some of them.
Recorded = bool | Sequence[float] | Float[Array | np.ndarray, " S"]


class KernelRecorder(eqx.Module):
    r"""Evaluates $K^{(2)}$ of a state at those save times that were chosen.

    With `always`, also at a time that nobody knew beforehand, where a run was told to stop.
    """

    times: Float[np.ndarray, " chosen"]
    always: bool
    evaluate: Callable[[PyTree[Array]], Array]

    def __call__(self, t: float, state: PyTree[Array]) -> dict[str, np.ndarray]:
        """`kernel` and `kernel_ts`, or nothing at other times."""
        if not self.always and t not in self.times:
            return {}
        return {"kernel": np.asarray(self.evaluate(state)), "kernel_ts": np.array(t)}


def kernel_times(
    record_kernel: Recorded, ts: Float[np.ndarray, " T"]
) -> Float[np.ndarray, " chosen"]:
    """The save times at which the kernel is wanted: all, none, or those named.

    Raises:
        ValueError: When `record_kernel` is neither a bool nor some of `ts`.
    """
    if isinstance(record_kernel, bool | np.bool_):
        return ts if record_kernel else ts[:0]
    try:
        chosen = times(record_kernel)
    except ValueError as error:
        reason = str(error).replace("`ts`", "`record_kernel`").replace("ts[", "record_kernel[")
        raise ValueError(reason) from error
    others = np.setdiff1d(chosen, ts)
    if len(others):
        raise ValueError(
            f"`record_kernel` must be True, False or some of `ts`, but holds {others[0]:g}."
        )
    return chosen
