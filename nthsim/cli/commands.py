"""What each command of `nthsim` does, once its arguments are read."""

import contextlib
import dataclasses
import sys
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np

from nthsim.cli import settings
from nthsim.cli.made import (
    MOST_BYTES,
    check_memory,
    check_weights,
    drawn_model,
    made_curves,
    made_data,
    made_families,
    made_model,
    made_momentum,
    made_rates,
    made_regulariser,
    made_run,
    made_sizes,
    made_solver,
    made_times,
)
from nthsim.cli.mistakes import called
from nthsim.cli.saved import CELLS, loaded, results_in
from nthsim.cli.toml import as_toml
from nthsim.comparison.compare import CompareError, compare
from nthsim.comparison.plan import Plan, plan
from nthsim.dynamics.gradient_flow import gradient_flow
from nthsim.dynamics.pose import pose
from nthsim.dynamics.run import Run, problem_size
from nthsim.dynamics.solve_error import SolveError
from nthsim.dynamics.trajectory import Trajectory
from nthsim.inputs.dataset import Dataset
from nthsim.inputs.integers import checked_integers
from nthsim.inputs.loss import LOSSES, squared_error
from nthsim.inputs.memory import available, memory_limit, readable
from nthsim.kernels.kernel import kernel
from nthsim.kernels.work import check_kernels
from nthsim.results.terminal import fixed, scientific, table
from nthsim.results.whole_file import made_folder, replacing
from nthsim.scaling.scaling import Scaling
from nthsim.scaling.store import MANIFEST
from nthsim.scaling.sweep import Sweep, SweepError
from nthsim.scaling.width_and_depth import depth_scaling, width_scaling
from nthsim.solvers.xla import guard_process

#: Rows of a printed trajectory.
ROWS = 11


def run(command: settings.Command) -> int:
    """Run a command in its own precision; returns the exit status.

    Raises:
        ValueError: When an argument is wrong or something does not fit into memory.
    """
    guard_process()
    double = isinstance(command, settings.ShowSettings) or command.precision == "float64"
    jax.config.update("jax_enable_x64", double)  # of the command's own process
    out = getattr(command, "out", None)
    folder = None if out is None else made_folder("out", out)
    amount = None if isinstance(command, settings.ShowSettings) else command.memory
    memory = None if amount is None else settings.in_bytes(amount)
    if memory is not None and not isinstance(command, settings.PlanSettings):
        check_memory(memory)
    limit = contextlib.nullcontext() if memory is None else memory_limit(memory)
    with limit, called(path="out"):  # what is read is called by its own name
        if isinstance(command, settings.ShowSettings):
            return _show(command, folder)
        if isinstance(command, settings.CompareSettings):
            return _compare(command, folder)
        if isinstance(command, settings.FlowSettings):
            return _flow(command, folder)
        if isinstance(command, settings.KernelsSettings):
            return _kernels(command, folder)
        if isinstance(command, settings.ScalingSettings):
            return _scaling(command, folder)
        return _plan(command)


def _compare(command: settings.CompareSettings, folder: Path | None) -> int:
    run, curves, data = made_run(command), made_curves(command), made_data(command)
    model = made_model(command, data)
    try:
        study = compare(
            model,
            data,
            curves,
            run,
            loss=LOSSES[command.loss],
            rates=made_rates(command, model),
            regulariser=made_regulariser(command),
            momentum=made_momentum(command),
            bounds=command.bounds,
            certify=None if command.certify else False,
            audit=command.audit,
        )
        failure = None
    except CompareError as error:
        study, failure = error.comparison, _failure(error)
    try:
        if folder is not None:
            study.save(folder / "orders.nc")
            _write(folder / "table.txt", str(study))
            study.plot(folder / "orders.png")
            _write_config(command, folder)
    finally:
        print(study)
    return _ended(failure, folder)


def _flow(command: settings.FlowSettings, folder: Path | None) -> int:
    run, data = made_run(command), made_data(command)
    try:
        model, loss = made_model(command, data), LOSSES[command.loss]
        more = {"regulariser": made_regulariser(command), "momentum": made_momentum(command)}
        flow = gradient_flow(model, data, run, loss=loss, rates=made_rates(command, model), **more)
        failure = None
    except SolveError as error:
        flow, failure = error.trajectory, f"{error.trajectory.name}: {error.trajectory.stop}"
    try:
        if folder is not None:
            flow.save(folder / "flow.nc")
            _write_config(command, folder)
    finally:
        print(_shown(flow))
    return _ended(failure, folder)


def _kernels(command: settings.KernelsSettings, folder: Path | None) -> int:
    orders = checked_integers("orders", command.orders, 2)
    data = made_data(command)
    model = made_model(command, data)
    rates = made_rates(command, model)
    problem = pose(model, Dataset(data.x, data.y), squared_error, rates)
    check_kernels(problem_size(problem).kernel, orders)
    computed: dict[int, np.ndarray] = {}
    failure = None
    try:
        for r in orders:
            computed[r] = np.asarray(kernel(model, data.x, r, rates=rates))
    except (KeyboardInterrupt, MemoryError, jax.errors.JaxRuntimeError) as error:
        why = "interrupted" if isinstance(error, KeyboardInterrupt) else "out of memory"
        failure = f"{why} after {len(computed)} of {len(orders)} kernels"
    arrays: dict[str, Any] = {f"K{r}": K for r, K in computed.items()}
    arrays |= {"x": data.x, "y": data.y}
    if folder is not None:
        with replacing(folder / "kernels.npz") as part:
            np.savez(part, **arrays)
        _write_config(command, folder)
    rows = [["", "shape", "entries", "root mean square", "largest"]]
    for r, K in computed.items():
        shape = " x ".join(map(str, K.shape))
        sizes = [
            scientific(float(np.sqrt(np.mean(K**2))), 3),
            scientific(float(np.abs(K).max()), 3),
        ]
        rows.append([f"K^({r})", shape, f"{K.size:,}", *sizes])
    print(table(rows))
    return _ended(failure, folder)


def _scaling(command: settings.ScalingSettings, folder: Path | None) -> int:
    (axis, sizes), data, free = made_sizes(command), made_data(command), available()
    most = dataclasses.replace(command, **{axis: max(sizes)})
    check_weights(most, data, free, f"{readable(free)} are available")
    if folder is not None and not (folder / CELLS / MANIFEST).exists():
        _write_config(command, folder)  # before all else, for whoever goes on
    try:
        with called(checkpoint="out"):
            study = _measured(command, data, None if folder is None else folder / CELLS)
    except SweepError as error:
        return _ended(str(error) if folder else f"{error.reason}; --out keeps what is done", folder)
    try:
        if folder is not None:
            study.save(folder / "scaling.nc")
            _write_config(command, folder)
            _write(folder / "table.txt", str(study))
            study.plot(folder / "scaling.png")
    finally:
        print(study)
    return _ended(None, folder)


def _measured(command: settings.ScalingSettings, data: Dataset, folder: Path | None) -> Scaling:
    """The study over widths or depths, kept in a folder if there is one."""
    axis, sizes = made_sizes(command)
    measure = width_scaling if axis == "width" else depth_scaling
    return measure(
        made_families(command, data, axis),
        data,
        sizes,
        command.seeds,
        command.orders,
        Run(made_times(command), solver=made_solver(command), checkpoint=folder),
        kernels=command.kernels,
        loss=LOSSES[command.loss],
        sweep=Sweep(chunk=command.chunk, cluster=command.cluster),
    )


def _plan(command: settings.PlanSettings) -> int:
    data = made_data(command)
    check_weights(command, data, MOST_BYTES, f"{readable(MOST_BYTES)} are the most for a plan")

    def estimate() -> Plan:
        model, loss = drawn_model(command, data), LOSSES[command.loss]
        curves, run, rates = made_curves(command), made_run(command), made_rates(command, model)
        more = {"regulariser": made_regulariser(command), "momentum": made_momentum(command)}
        return plan(model, data, curves, run, loss=loss, rates=rates, **more)

    # Traced, the network has shapes but no weights, which might not fit.
    planned = eqx.filter_eval_shape(estimate)
    print(planned)
    if command.parameters:
        print(f"\n{planned.parameters}")
    return 0


def _show(command: settings.ShowSettings, folder: Path | None) -> int:
    with called(path="file", out="file"):
        found = results_in(command.file)
    texts: list[str] = []
    for file, kind in found:
        with called(path="file"):
            result = loaded(file, kind)
        text = _shown(result) if isinstance(result, Trajectory) else str(result)
        texts.append(text if len(found) == 1 else f"{file.name}:\n\n{text}\n")
        print(texts[-1])
        if folder is not None and not isinstance(result, Trajectory):
            result.plot(folder / f"{file.stem}.png")
    if folder is not None:
        _write(folder / "table.txt", "\n".join(texts))
    return 0


def _failure(error: CompareError) -> str:
    """Why a comparison is not whole, and how much of it is there."""
    study = error.comparison
    count = f"{len(study.curves)} of {len(study.asked.curves)} curves done"
    return error.why if error.__cause__ is None else f"{error.why}, with {count}"


def _write_config(command: settings.Common, folder: Path) -> None:
    _write(folder / "config.toml", as_toml(command))


def _write(path: Path, text: str) -> None:
    with replacing(path) as part:
        part.write_text(text.rstrip("\n") + "\n", encoding="utf-8")


def _shown(flow: Trajectory) -> str:
    """A trajectory's summary, and its losses at a few times."""
    columns = {"train loss": flow.loss, "test loss": flow.test_loss}
    if flow.accuracy is not None:
        columns |= {"train acc.": flow.accuracy, "test acc.": flow.test_accuracy}
    rows = [["t", *columns]]
    for i in np.unique(np.linspace(0, len(flow.ts) - 1, ROWS).astype(int)) if len(flow.ts) else ():
        values = [None if each is None else float(each[i]) for each in columns.values()]
        row = [*(scientific(each, 3) for each in values[:2]), *(fixed(a, 3) for a in values[2:])]
        rows.append([f"{flow.ts[i]:g}", *row])
    return f"{flow}\n\n{table(rows)}"


def _ended(failure: str | None, folder: Path | None) -> int:
    if folder is not None:
        print(f"nthsim: results are in {folder}", file=sys.stderr)
    if failure is not None:
        print(f"nthsim: {failure}", file=sys.stderr)
    return int(failure is not None)
