"""Studies over the width or depth of networks, with many seeds."""

import dataclasses
from collections.abc import Mapping, Sequence
from math import ceil
from pathlib import Path

import equinox as eqx
import jax
import numpy as np
from numpy.typing import ArrayLike

from nthsim.budget.choice import check_flow, check_hierarchy
from nthsim.budget.size import member_bytes
from nthsim.dynamics.pose import pose
from nthsim.dynamics.run import Run, problem_size
from nthsim.inputs.arrays import concrete
from nthsim.inputs.dataset import Dataset
from nthsim.inputs.integers import checked_integers, count, highest_rank
from nthsim.inputs.loss import Loss, squared_error
from nthsim.inputs.memory import available
from nthsim.kernels.work import check_kernels
from nthsim.results.record import Record, origin
from nthsim.scaling.cells import Cell, Maker, Study, slug
from nthsim.scaling.quantity import Integers
from nthsim.scaling.scaling import Scaling
from nthsim.scaling.store import stored_subject
from nthsim.scaling.sweep import Sweep, checked_sweep, computed
from nthsim.scaling.workers import signatures
from nthsim.solvers.auto import Auto
from nthsim.solvers.explicit import Explicit
from nthsim.solvers.until import Until

#: More seeds than this are not computed together: a processor gains nothing by it.
MOST = 64


def width_scaling(
    make_model: Maker | Mapping[str, Maker],
    data: Dataset,
    widths: Integers,
    seeds: int | Integers,
    orders: Integers,
    run: Run | ArrayLike,
    *,
    kernels: int | None = None,
    loss: Loss = squared_error,
    sweep: Sweep = Sweep(),
    progress: bool = True,
) -> Scaling:
    r"""Measure kernels, drift and truncation errors of networks of several widths and many seeds.

    In a network of width m, $K^{(3)}$ and $K^{(4)}$ at t = 0 are of size 1/m, $K^{(5)}$ and
    $K^{(6)}$ of size 1/m², and so on; at fixed times the tangent kernel moves by 1/m, and order p
    errs by $m^{-\lfloor p/2 \rfloor}$ (Huang & Yau 2019, arXiv 1909.08156; Dyer & Gur-Ari 2019,
    arXiv 1909.11304). That is derived for FCN and ResNet in ntk parametrisation, trained with
    squared error; in mup $K^{(r)}$ is $m^{r/2 - 1}$ times as large, so that its size for even r,
    the movement of the tangent kernel and all errors do not depend on the width. The result holds
    these exponents beside the fitted ones for families of FCN or ResNet that `make_model` draws
    from the very key that it is given, Gaussian, with a smooth activation of `nthsim.models` and
    with nothing but the width changing with the width. For all others it has fits alone.

    All seeds of a width, or chunks of them that fit into memory, are one batch: one kernel
    computation, one integration whose steps all share, compiled once. Truncations are integrated as
    tensors. What blows up is part of the result.

    Args:
        make_model: `make_model(width, key)` returns a model, or the pair of a model and `rates` for
            it as in `gradient_flow`, called with `jax.random.key(seed)` for each seed; or a mapping
            of names to such functions, to set families beside each other.
        data: Training data and, perhaps, passive test points.
        widths: The widths.
        seeds: The seeds, or how many: 0, 1, 2, ...
        orders: The truncation orders p, each at least 2; may be empty.
        run: Save times, shape (T,), or a `Run` of them with a solver (`Auto` or `Explicit`) and a
            checkpoint, the folder that every batch is kept in once it is finished: the same call
            again, or one with further widths or seeds, computes only what is missing (a last batch
            that was not full, anew), and several processes may share the work. With times (0.0,)
            only kernels at t = 0 are measured.
        kernels: The highest r of the $K^{(r)}$ that are measured at t = 0; the highest order if
            left out, and at least 3.
        loss: Differentiable function of one output and one target.
        sweep: How many seeds make a batch, and who computes them, as a `Sweep`.
        progress: Whether to show a progress bar when on a terminal.

    Raises:
        ValueError: When an argument is not as above, a single network does not fit into memory, or
            the folder holds another study.
        SweepError: When a batch fails, as one whose networks differ in more than their parameters
            does, or at Ctrl-C; it tells what is done.
    """
    sizes, run = checked_integers("widths", widths, 1), _explicit(run)
    wanted = {"kernels": kernels, "loss": loss, "chunk": checked_sweep(sweep).chunk}
    study = _study("width", make_model, data, sizes, seeds, orders, run, **wanted)
    return _measured(study, run, sweep, progress=progress)


def depth_scaling(
    make_model: Maker | Mapping[str, Maker],
    data: Dataset,
    depths: Integers,
    seeds: int | Integers,
    orders: Integers,
    run: Run | ArrayLike,
    *,
    kernels: int | None = None,
    loss: Loss = squared_error,
    sweep: Sweep = Sweep(),
    progress: bool = True,
) -> Scaling:
    r"""Measure kernels, drift and truncation errors of networks of several depths and many seeds.

    No power law is predicted: kernels of an FCN with a smooth activation that is normalised grow
    exponentially with depth, those of a ResNet stay as they are (Li, Luo & Yip 2020, arXiv
    2007.03714). The result holds the factors from the first depth to the last.

    Args:
        make_model: `make_model(depth, key)` returns a model, or a mapping of names to such
            functions, as in `width_scaling`.
        data: Training data and, perhaps, passive test points.
        depths: The depths.
        seeds: As in `width_scaling`, and so are all others.
        orders: The truncation orders p; may be empty.
        run: Save times, or a `Run`; (0.0,) for kernels at t = 0 alone.
        kernels: The highest r of the $K^{(r)}$ that are measured at t = 0.
        loss: Differentiable function of one output and one target.
        sweep: How many seeds make a batch, and who computes them.
        progress: Whether to show a progress bar when on a terminal.

    Raises:
        ValueError, SweepError: As in `width_scaling`.
    """
    sizes, run = checked_integers("depths", depths, 1), _explicit(run)
    wanted = {"kernels": kernels, "loss": loss, "chunk": checked_sweep(sweep).chunk}
    study = _study("depth", make_model, data, sizes, seeds, orders, run, **wanted)
    return _measured(study, run, sweep, progress=progress)


def _explicit(run: Run | ArrayLike) -> Run:
    """Check when to look at networks that share their steps, which are explicit."""
    found = run if isinstance(run, Run) else Run(run)
    if not isinstance(found.solver, Auto | Explicit):
        raise ValueError(
            "`solver` must be Auto or Explicit for networks that share their steps, but is "
            f"{type(found.solver).__name__}."
        )
    given = {"until": found.until != Until(), "record": found.record is not None}
    given |= {"record_ts": found.record_ts is not None}
    for name in (name for name, is_given in given.items() if is_given):
        raise ValueError(f"`{name}` must be left out for a study over sizes, but is given.")
    return dataclasses.replace(found, record=("kernel",))


def _study(
    axis: str,
    make_model: object,
    data: Dataset,
    sizes: tuple[int, ...],
    seeds: object,
    orders: object,
    run: Run,
    *,
    kernels: object,
    loss: Loss,
    chunk: object,
) -> Study:
    """Check what a user said."""
    orders = checked_integers("orders", orders, 2, empty=True)
    study = Study(
        axis=axis,
        families=_families(make_model),
        sizes=sizes,
        seeds=_seeds(seeds),
        data=data,
        orders=orders,
        kernels=highest_rank(kernels, orders),
        ts=run.ts,
        loss=loss,
        solver=run.solver,
        chunk=1,
    )
    fits = min(_fitting(study, run, f, size) for f in study.families for size in sizes)
    found = _chunk(chunk, fits, len(study.seeds), _begun(run.checkpoint))
    return eqx.tree_at(lambda s: s.chunk, study, found)


def _chunk(wanted: object, fits: int, seeds: int, begun: int | None) -> int:
    """What was asked for, or the folder was begun with; else as much as fits, as even as can be."""
    if wanted is None and begun is None:
        return ceil(seeds / ceil(seeds / min(fits, MOST)))
    chunk = begun if wanted is None else count("chunk", wanted, 1)
    assert chunk is not None
    if min(chunk, seeds) > fits:
        raise ValueError(f"`chunk` must be at most {fits} to fit into memory, but is {chunk}.")
    return chunk


def _begun(folder: Path | None) -> int | None:
    """The chunk that a folder was begun with: going on does not depend on what memory is free."""
    return None if folder is None else stored_subject(folder).get("chunk")


def _fitting(study: Study, run: Run, family: str, size: int) -> int:
    """How many networks of a size fit into memory together; one that does not fit is refused."""
    model, rates = study.model(family, size, study.seeds[0])
    concrete(f"{study.axis}_scaling", model, study.data)
    problem = pose(model, study.data, study.loss, rates)
    study.solver.tolerances(problem.dtype)
    numbers = problem_size(problem, run)
    check_flow(numbers)
    check_kernels(numbers.kernel, range(2, study.kernels + 1), name="kernels")
    for p in study.orders:
        check_hierarchy(numbers, p, "dense", name="orders")
    return max(1, available() // member_bytes(numbers, study.orders, study.kernels))


def _families(make_model: object) -> dict[str, Maker]:
    """Functions by the names of families; one alone is named after what it makes."""
    if callable(make_model):
        return {"network": make_model}
    named = dict(make_model) if isinstance(make_model, Mapping) else {}
    if not named or not all(isinstance(n, str) and callable(f) for n, f in named.items()):
        raise ValueError(
            "`make_model` must be a function of a size and a key, or map names to such functions, "
            f"but is {make_model!r}."
        )
    names = [slug(name) for name in named]
    if "" in names or len(set(names)) < len(names):
        raise ValueError(
            "`make_model` must have names that differ in letters or digits, but has "
            f"{', '.join(map(repr, named))}."
        )
    return named


def _seeds(seeds: object) -> tuple[int, ...]:
    if not (isinstance(seeds, Sequence | np.ndarray | jax.Array) and np.ndim(seeds)):
        return tuple(range(count("seeds", seeds, 1)))
    found = checked_integers("seeds", seeds, 0)
    if found[-1] >= 2**63:
        raise ValueError(f"`seeds` must be integers below 2**63, but one is {found[-1]}.")
    return found


def _measured(study: Study, run: Run, sweep: Sweep, *, progress: bool) -> Scaling:
    """Compute all cells, and put their rows together."""
    cells = study.cells()
    records = computed(
        study, cells, folder=run.checkpoint, cluster=sweep.cluster, progress=progress
    )
    place = (len(study.families), len(study.sizes), -1)
    per_size = len(cells) // (place[0] * place[1])
    groups = [records[i : i + per_size] for i in range(0, len(records), per_size)]
    arrays = {}
    for name in records[0].arrays:
        rows = [np.concatenate([record.arrays[name] for record in group]) for group in groups]
        arrays[name] = np.stack(rows).reshape(*place, *rows[0].shape[1:])
    seconds = [sum(record.facts["seconds"] for record in group) for group in groups]
    return Scaling(
        axis=study.axis,
        families=tuple(study.families),
        sizes=np.array(study.sizes),
        seeds=np.array(study.seeds),
        orders=study.orders,
        ts=study.ts,
        data=study.data,
        loss=study.loss,
        solver=study.solver,
        seconds=np.array(seconds).reshape(place[:2]),
        networks=tuple(study.descriptions().values()),
        steps=records[0].facts["solver"],
        subject=study.subject(),
        predicted=_predicted(study, cells, records),
        remarks=_remarks(cells, records),
        origin=origin() | {"workers": signatures(records)},
        **arrays,
    )


def _predicted(
    study: Study, cells: Sequence[Cell], records: Sequence[Record]
) -> tuple[str | None, ...]:
    """The parametrisation of families whose networks differ in width and key alone, else None."""
    pairs = list(zip(cells, records, strict=True))
    forms = [[r.facts.get("form") for cell, r in pairs if cell.family == f] for f in study.families]
    several = len(study.sizes) > 1  # what depends on a single one cannot be told
    return tuple(
        each[0]["parametrisation"] if several and each[0] and each == each[:1] * len(each) else None
        for each in forms
    )


def _remarks(cells: Sequence[Cell], records: Sequence[Record]) -> tuple[str, ...]:
    """Which flows of which cells ended before the last save time, and why."""
    return tuple(
        f"{cell.name}, {name}: {stop['message']}"
        for cell, record in zip(cells, records, strict=True)
        for name, stop in record.facts["stops"].items()
        if stop["reason"] != "horizon"
    )
