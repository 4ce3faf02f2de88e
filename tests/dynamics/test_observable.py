"""Quantities of a user's own are recorded along runs: shown, drawn, saved and resumed."""

import dataclasses
import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import xarray as xr
from studies import points, same

import nthsim as nth
from nthsim.models import FCN
from nthsim.results.record import Label
from nthsim.solvers import Explicit, Until

NET = FCN(4, 5, 1, key=jr.key(0))
DATA = points()
TS = np.array([0.0, 0.5, 2.0])


def norm(net: FCN) -> jax.Array:
    """How long the readout is."""
    return jnp.linalg.norm(net.readout.weight)


def spectrum(net: FCN) -> np.ndarray:
    """Singular values, by NumPy, which JAX cannot trace."""
    return np.linalg.svd(np.asarray(net.layers[0].weight), compute_uv=False)


NORM = nth.Observable.of("norm", norm, unit="weights")
SPECTRUM = nth.Observable.of("spectrum", spectrum, axes={"mode": range(4)})
RUN = nth.Run(TS, solver=Explicit(rtol=1e-8), record=("kernel", NORM, SPECTRUM))


@pytest.fixture(scope="module")
def flow():
    return nth.gradient_flow(NET, DATA, RUN)


@pytest.fixture(scope="module")
def study():
    return nth.compare(NET, DATA, (2, nth.Taylor(1)), RUN, certify=False)


def test_quantities_are_those_of_the_networks_along_the_flow(flow):
    assert flow.records["spectrum"].shape == (3, 4)
    np.testing.assert_array_equal(flow.record_ts, TS)
    for i, t in enumerate(TS):
        net = nth.gradient_flow(NET, DATA, nth.Run([t], solver=Explicit(rtol=1e-8))).model
        np.testing.assert_allclose(flow.records["norm"][i], norm(net), rtol=1e-6)
        np.testing.assert_allclose(flow.records["spectrum"][i], spectrum(net), rtol=1e-6)
    # They move by more than the flows may differ.
    assert np.ptp(flow.records["norm"]) > 1e-3


def test_quantities_in_a_buffer_that_is_used_again_are_kept_as_they_were(flow):
    buffer = np.zeros(())

    def reused(net):
        buffer[...] = norm(net)
        return buffer

    run = nth.Run(RUN.ts, solver=RUN.solver, record=(nth.Observable.of("norm", reused),))
    again = nth.gradient_flow(NET, DATA, run)
    np.testing.assert_allclose(again.records["norm"], flow.records["norm"], rtol=1e-12)


def test_quantities_are_recorded_at_the_chosen_times_and_leave_the_flow_as_it_is(flow):
    some = nth.gradient_flow(NET, DATA, dataclasses.replace(RUN, record_ts=[0.5]))
    np.testing.assert_array_equal(some.records["norm"], flow.records["norm"][1:2])
    np.testing.assert_array_equal(some.f, flow.f)


def test_quantity_is_recorded_where_a_run_was_told_to_stop(flow):
    until = Until(loss=0.5 * (flow.loss[1] + flow.loss[2]))
    ended = nth.gradient_flow(NET, DATA, dataclasses.replace(RUN, until=until))
    assert ended.stop.asked
    assert ended.record_ts is not None
    assert ended.record_ts[-1] == ended.stop.t
    np.testing.assert_allclose(ended.records["norm"][-1], norm(ended.model), rtol=1e-12)


def test_table_shows_where_quantities_begin_and_end(study, flow):
    first, last = flow.records["norm"][[0, -1]]
    line = f"norm: {first:.4g} weights at t = 0, {last:.4g} weights at t = 2"
    assert line in str(flow).splitlines()
    assert f"exact flow, {line}" in str(study).splitlines()


def test_figure_draws_a_line_for_each_number(study, flow):
    panels = {ax.get_title(): ax for ax in study.plot().axes}
    [line] = panels["norm"].get_lines()
    np.testing.assert_allclose(line.get_ydata(), flow.records["norm"], rtol=1e-12)
    assert panels["norm"].get_ylabel() == "weights"
    assert len(panels["spectrum of exact flow"].get_lines()) == 4


def test_truncations_record_the_kernel_alone(study):
    assert set(study.exact.records) == {"kernel", "kernel_test", "norm", "spectrum"}
    for key in ("order 2", "Taylor 1"):
        assert set(study.curves[key].records) == {"kernel", "kernel_test"}


def test_file_keeps_quantities_with_their_axes_and_units(study, flow, tmp_path):
    study.save(tmp_path / "a.nc")
    loaded = nth.Comparison.load(tmp_path / "a.nc")
    assert same(loaded.exact, study.exact)
    assert str(loaded) == str(study)
    with xr.open_datatree(tmp_path / "a.nc", engine="h5netcdf") as tree:
        found = tree["exact/spectrum"]
        assert found.dims == ("record_time", "mode")
        np.testing.assert_array_equal(found["mode"], range(4))
        assert tree["exact/norm"].attrs["units"] == "weights"
    flow.save(tmp_path / "b.nc")
    assert same(nth.Trajectory.load(tmp_path / "b.nc"), flow)


def test_rerun_of_a_file_asks_for_functions_that_it_does_not_hold(study, tmp_path):
    again = nth.rerun(study, progress=False)
    np.testing.assert_array_equal(again.exact.records["norm"], study.exact.records["norm"])
    study.save(tmp_path / "a.nc")
    sentence = "^`record` must hold functions to compute this again, but of 'norm', 'spectrum'"
    with pytest.raises(ValueError, match=sentence):
        nth.rerun(nth.Comparison.load(tmp_path / "a.nc"))


def test_failure_in_between_keeps_what_was_recorded_and_goes_on_once_mended(flow, tmp_path):
    calls = []

    def failing(net):
        calls.append(net)
        if len(calls) == 5:  # twice before the run, then at each time
            raise ZeroDivisionError("by zero")
        return norm(net)

    broken = nth.Observable.of("norm", failing)
    run = nth.Run(TS, solver=Explicit(rtol=1e-8), record=(broken,), checkpoint=tmp_path)
    with pytest.raises(nth.SolveError, match="norm fails: by zero at t = 2; 2 save times") as end:
        nth.gradient_flow(NET, DATA, run)
    assert end.value.trajectory.stop.reason == "recording"
    np.testing.assert_array_equal(end.value.trajectory.records["norm"], flow.records["norm"][:2])
    again = nth.gradient_flow(NET, DATA, run)
    np.testing.assert_allclose(again.records["norm"], flow.records["norm"], rtol=1e-12)


def entry(i):
    """One of the readout's weights, which a closure chooses."""
    return lambda net: net.readout.weight[0, i]


def distance(power):
    """How far the readout is from where it began, which is zero there."""
    return lambda net: jnp.sum(jnp.abs(net.readout.weight - NET.readout.weight) ** power)


class Bound(eqx.Module):
    """Whether a readout's weight is small, which two bounds mostly agree on."""

    settings: dict[str, float]

    def __call__(self, net):
        return float(net.readout.weight[0, 0] < self.settings["most"])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Bound({"most": 90.0}), Bound({"most": 99.0})),
        (Bound({"most": 90.0}).__call__, Bound({"most": 99.0}).__call__),
        (lambda net: float(net.readout.weight[0, 0] < 90), lambda net: 1.0),
        (entry(0), entry(1)),
        (jax.jit(entry(0)), jax.jit(entry(1))),
        (functools.partial(lambda i, net: entry(i)(net), 0), lambda net: entry(1)(net)),
        (distance(1), distance(2)),
    ],
)
def test_checkpoint_of_another_quantity_of_the_same_name_is_refused(one, other, tmp_path):
    run = lambda fn: nth.Run(TS[:2], record=(nth.Observable.of("a", fn),), checkpoint=tmp_path)  # noqa: E731
    first, again = (nth.gradient_flow(NET, DATA, run(one)) for _ in range(2))
    np.testing.assert_array_equal(first.records["a"], again.records["a"])
    with pytest.raises(ValueError, match="another record"):
        nth.gradient_flow(NET, DATA, run(other))


def test_names_of_axes_and_coordinates_collide_with_nothing_in_a_file(tmp_path):
    of = nth.Observable.of
    record = (
        of("layer", lambda net: np.array([1.0, 2.0]), axes={"norm": ["first", "last"]}),
        of("layer_norm", lambda net: 7.0),
        of("test", lambda net: np.ones(2), axes={"loss": [8.0, 9.0]}),
    )
    flow = nth.gradient_flow(NET, DATA, nth.Run(TS, record=record))
    flow.save(tmp_path / "a.nc")
    loaded = nth.Trajectory.load(tmp_path / "a.nc")
    assert list(loaded.labels["layer"].coordinates["norm"]) == ["first", "last"]
    for name in ("layer", "layer_norm", "test"):
        np.testing.assert_array_equal(loaded.records[name], flow.records[name])
    np.testing.assert_array_equal(loaded.loss, flow.loss)
    assert str(loaded) == str(flow)


def test_run_that_ended_before_anything_was_recorded_is_shown_drawn_and_saved(tmp_path):
    until, late = Until(loss=1e9), {"record": (NORM, SPECTRUM), "record_ts": [2.0]}
    study = nth.compare(NET, DATA, (2,), nth.Run(TS, until=until, **late), certify=False)
    assert study.exact.records == {}
    study.plot(tmp_path / "a.png")
    study.save(tmp_path / "a.nc")
    assert str(nth.Comparison.load(tmp_path / "a.nc")) == str(study)


def test_network_of_a_moment_is_a_module_like_the_one_that_is_trained():
    seen = []
    net = eqx.nn.MLP(4, "scalar", 3, 1, activation=jnp.tanh, key=jr.key(1))
    look = nth.Observable.of("out", lambda net: seen.append(net) or net(DATA.x[0]))
    flow = nth.gradient_flow(net, DATA, nth.Run(TS, record=(look,)))
    np.testing.assert_allclose(flow.records["out"], flow.f[:, 0], rtol=1e-12)
    assert isinstance(seen[-1], eqx.nn.MLP)
    assert jax.tree.structure(seen[-1]) == jax.tree.structure(net)


class Sharpness(nth.Observable):
    """The largest eigenvalue of the tangent kernel, which all dynamics have."""

    name: str = "sharpness"
    of_parameters: bool = False

    def evaluate(self, moment):
        n = len(moment.problem.x)
        return {"sharpness": np.linalg.eigvalsh(moment.kernel[:n])[-1]}

    def labels(self, problem):
        return {"sharpness": Label((), "1", {})}


SHARP = Sharpness()


@pytest.mark.parametrize(
    "curve",
    [
        None,
        nth.Order(3, method="dense"),
        nth.Order(3, method="series"),
        nth.Taylor(2),
        nth.LimitKernel(),
        nth.Perturbation(),
    ],
)
def test_observable_of_the_kernel_is_recorded_along_every_dynamics(curve):
    curves = (2,) if curve is None else (curve,)
    alone, beside = (
        nth.compare(NET, DATA, curves, nth.Run(TS, record=record), certify=False)
        for record in ((SHARP,), ("kernel", SHARP))
    )
    found, known = (
        study.exact if curve is None else study.curve(curve) for study in (alone, beside)
    )
    assert known.kernel is not None
    expected = [np.linalg.eigvalsh((kernel + kernel.T) / 2)[-1] for kernel in known.kernel]
    np.testing.assert_allclose(known.records["sharpness"], expected, rtol=1e-6)
    np.testing.assert_allclose(found.records["sharpness"], known.records["sharpness"], rtol=1e-12)
    assert set(found.records) == {"sharpness"}
    assert "sharpness: " in str(found)


class Clashing(Sharpness):
    """Records under the name of something else."""

    def evaluate(self, moment):
        return {"f": np.zeros(3)}


def test_name_of_what_another_one_records_is_refused_before_the_run():
    norm = nth.Observable.of("norm", lambda net: jnp.sum(net.readout.weight**2))
    with pytest.raises(ValueError, match="but norm records norm, which is there already"):
        nth.gradient_flow(NET, DATA, nth.Run(TS, record=("movement", norm)))


def test_observable_that_records_what_is_there_already_ends_the_run_in_a_sentence():
    with pytest.raises(nth.SolveError, match="sharpness records f, which is there already"):
        nth.gradient_flow(NET, DATA, nth.Run(TS, record=(Clashing(),)))
