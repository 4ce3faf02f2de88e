"""One module through all computations: `trial.py FILE` lists a file's modules, a NAME runs one."""

import importlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import numpy as np
from entry import Entry
from oracle import Truth, parameters, truth
from verdict import Verdict, judged, relative_error

import nthsim as nth
from nthsim.kernels import work
from nthsim.solvers.auto import Auto

#: Fifty times as tight as the tolerances below ask for, with the quickest method to compile.
SOLVER = Auto(rtol=2e-6)

#: Derivatives are the same up to rounding, of which 1e-9 allows a million units; flows are off by
#: what two solvers allow themselves, compared with what moves.
DERIVATIVES, FLOWS = 1e-9, 1e-4

#: Finite differences are what K^(3) is compared with where JAX has no derivative.
DIFFERENCES = 1e-6

METHODS = ("structured", "nested", "auto")


def trial(entry: Entry) -> Iterator[tuple[str, Verdict]]:
    """The verdict on each computation by its name, one after another."""
    model, x = entry.model(), entry.inputs()
    try:
        right = truth(model, x)
    except Exception as raised:  # the table's own fault or the module's, and none of nthsim's
        yield "all", Verdict("no truth", f"{type(raised).__name__}: {str(raised)[:160]}")
        return
    yield "derivatives", Verdict(right.derivatives, "")
    for name, computation in _computations(model, x, right).items():
        tolerance = FLOWS if name in ("flow", "dense", "series") else DERIVATIVES
        if right.derivatives == "differences" and name not in ("flow", *_kernel_names(2)):
            tolerance = max(tolerance, DIFFERENCES)
        yield name, judged(computation, max(tolerance, 100 * entry.rounding))


def _computations(
    model: object, x: jax.Array, right: Truth
) -> dict[str, Callable[[], tuple[float, str]]]:
    out = right.f.reshape(len(x), -1).shape[1]
    shape = jax.eval_shape(lambda one: model(one), x[0]).shape  # pyright: ignore
    y = right.targets.reshape(len(x), *(shape and (out,)))
    ts = [0.0, right.horizon / 2, right.horizon]
    data = lambda: nth.Dataset(x, y)  # noqa: E731

    def kernel(order: int, method: str) -> tuple[float, str]:
        got = nth.kernel(model, x, order, method=method, progress=False)
        # Where K^(3) is zero but for rounding, as of a model linear in its parameters, it is small.
        least = 1e-6 * float(np.abs(right.kernels[2]).max())
        scale = max(least, float(np.abs(right.kernels[order]).max()))
        return relative_error(got, right.kernels[order], scale), ""

    def flow() -> tuple[float, str]:
        run = nth.gradient_flow(model, data(), nth.Run(ts, solver=SOLVER), progress=False)
        way = float(np.abs(right.trained - parameters(model)).max())
        trained = relative_error(parameters(run.model), right.trained, way)
        return max(_missed(run.f, right.f, right.flow), trained), _told(run)

    def third(method: str) -> tuple[float, str]:
        run = nth.hierarchy(
            model, data(), 3, nth.Run(ts, solver=SOLVER), method=method, progress=False
        )
        return _missed(run.f, right.f, right.third), _told(run)

    kernels = {
        f"K{order} {method}": lambda order=order, method=method: kernel(order, method)
        for order in (2, 3)
        for method in METHODS
    }
    return {
        **kernels,
        "flow": flow,
        "dense": lambda: third("dense"),
        "series": lambda: third("series"),
    }


def _told(run: nth.Trajectory) -> str:
    """What a result says of steps that were taken although they missed the tolerance."""
    return f"{run.stats.forced} steps forced at kinks" if run.stats.forced else ""


def _kernel_names(order: int) -> list[str]:
    return [f"K{order} {method}" for method in METHODS]


def _missed(got: np.ndarray, start: np.ndarray, right: np.ndarray) -> float:
    """The error of outputs over how far they move; the first save time counts too."""
    expected = np.concatenate([start[None], right])
    return relative_error(got, expected, float(np.abs(right - start).max()))


def main() -> None:
    """List a file's modules, or run one and write its verdicts."""
    file, *rest = sys.argv[1:]
    # Before the packages are imported: norax's defaults are of the precision at that moment.
    jax.config.update("jax_enable_x64", True)
    entries = {entry.name: entry for entry in importlib.import_module(file).ENTRIES}
    if not rest:
        print(json.dumps({name: entry.wrapper for name, entry in entries.items()}))
        return
    name, out = rest
    nth.guard_process()  # else its first warning counts as the word of whatever comes first
    jax.config.update("jax_traceback_filtering", "off")  # the last line tells whose error it is
    # "auto" takes nested derivatives for anything as small as these modules: without this it would
    # never choose the way that it takes for large ones.
    work.QUICK = 0
    verdicts = {}
    for computation, verdict in trial(entries[name]):
        verdicts[computation] = verdict
        Path(out).write_text(json.dumps(verdicts))  # now, should a later one not come to an end


if __name__ == "__main__":
    main()
