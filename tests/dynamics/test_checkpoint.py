"""Runs that are killed and go on: the same answer, or a sentence."""

import dataclasses
import os
import signal
import subprocess
import sys
import textwrap
import time

import disks
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import xarray as xr
from networks import NETWORKS

import nthsim as nth
from nthsim.dynamics.checkpoint import Checkpoint, CheckpointWarning
from nthsim.solvers import Explicit, Exponential, Until

TS = np.linspace(0.0, 8.0, 9)


@pytest.fixture(scope="module")
def data():
    keys = jr.split(jr.key(0), 3)
    return nth.Dataset(
        jr.normal(keys[0], (5, 4)), jr.normal(keys[1], (5,)), jr.normal(keys[2], (2, 4))
    )


def flow(data, folder=None, **settings):
    settings = {"solver": SOLVERS[flow], "record": ("kernel",), **settings}
    return nth.gradient_flow(NETWORKS["fcn"], data, nth.Run(TS, checkpoint=folder, **settings))


def dense(data, folder=None, **settings):
    settings = {"solver": SOLVERS[dense], **settings}
    return nth.hierarchy(
        NETWORKS["fcn"], data, 3, nth.Run(TS, checkpoint=folder, **settings), method="dense"
    )


SOLVERS = {flow: Explicit(rtol=1e-8), dense: Exponential(rtol=1e-6)}


@pytest.mark.parametrize("run", [flow, dense])
def test_run_stopped_by_a_limit_goes_on_to_the_same_end(data, run, tmp_path):
    whole = run(data)
    for steps in (3, 7):
        limited = dataclasses.replace(SOLVERS[run], max_steps=steps)
        with pytest.raises(nth.SolveError, match=f"step limit of {steps} reached"):
            run(data, tmp_path, solver=limited)
    # Begun anew, it would not come as far as it was in so short a time.
    moment = Until(seconds=1e-9)
    assert run(data, until=moment).stats.steps < 7 < run(data, tmp_path, until=moment).stats.steps
    resumed = run(data, tmp_path)
    for name in ("ts", "f", "f_test", "loss", "kernel"):
        one, other = getattr(resumed, name), getattr(whole, name)
        assert (one is None) == (other is None)
        if one is not None:
            np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12)
    assert resumed.stats.steps == whole.stats.steps
    assert resumed.stop == whole.stop


def test_finished_run_is_read_and_not_computed(data, tmp_path):
    first = flow(data, tmp_path)
    # What is computed ends after so short a time.
    again = flow(data, tmp_path, until=Until(seconds=1e-9))
    assert again.stop == first.stop
    assert flow(data, until=Until(seconds=1e-9)).stop.reason == "seconds"
    np.testing.assert_array_equal(again.f, first.f)
    np.testing.assert_array_equal(again.kernel, first.kernel)
    assert eqx.tree_equal(again.model, first.model)


@pytest.mark.parametrize("run", [flow, dense])
def test_run_that_is_stopped_while_it_locates_a_limit_comes_to_the_same_time(data, run, tmp_path):
    until = Until(loss=0.3 * run(data).loss[0])
    whole = run(data, until=until)
    assert whole.stats.rejected > 1
    for before_the_end in (3, 2, 1):
        steps = whole.stats.steps - before_the_end
        limited = dataclasses.replace(SOLVERS[run], max_steps=steps)
        with pytest.raises(nth.SolveError, match=f"step limit of {steps} reached"):
            run(data, tmp_path, solver=limited, until=until)
    resumed = run(data, tmp_path, until=until)
    assert (resumed.stop, resumed.stats.steps) == (whole.stop, whole.stats.steps)
    np.testing.assert_array_equal(resumed.f, whole.f)


def test_limit_on_the_loss_may_be_lowered_in_between(data, tmp_path):
    whole = flow(data)
    first = flow(data, tmp_path, until=Until(loss=0.5 * whole.loss[0]))
    same = flow(data, tmp_path, until=Until(loss=0.5 * whole.loss[0]))
    np.testing.assert_array_equal(same.ts, first.ts)
    further = flow(data, tmp_path, until=Until(loss=0.1 * whole.loss[0]))
    assert further.stop.t > first.stop.t
    assert first.stop.t not in further.ts
    np.testing.assert_allclose(flow(data, tmp_path).f, whole.f, atol=1e-6)


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("model", {"model": NETWORKS["resnet"]}),
        ("data", {"data": "doubled"}),
        ("loss", {"loss": lambda f, y: (f - y) ** 4}),
        ("solver", {"solver": Explicit(rtol=1e-9)}),
        ("save times", {"ts": TS[:-1]}),
        ("record times", {"record_ts": TS[:2]}),
        ("record", {"record": ("kernel", nth.Observable.of("norm", lambda net: 1.0))}),
    ],
)
def test_checkpoint_of_another_run_is_refused_by_what_differs(data, part, change, tmp_path):
    flow(data, tmp_path)
    if "data" in change:
        change = {"data": eqx.tree_at(lambda d: d.y, data, 2 * data.y)}
    settings = {"solver": Explicit(rtol=1e-8), "record": ("kernel",), "ts": TS}
    trained = {"model": NETWORKS["fcn"], "data": data, "loss": nth.squared_error}
    others = {name: one for name, one in change.items() if name not in trained}
    run = nth.Run(**(settings | others), checkpoint=tmp_path)
    trained |= {name: one for name, one in change.items() if name in trained}
    with pytest.raises(ValueError, match=f"must be a folder of the same run, .*other {part}"):
        nth.gradient_flow(**trained, run=run)


@pytest.mark.parametrize("half", [jnp.bfloat16, jnp.float16])
def test_run_in_half_precision_is_kept_in_checkpoints_and_files(data, half, tmp_path):
    small = eqx.nn.Linear(4, "scalar", dtype=half, key=jr.key(0))
    of_bias = nth.Observable.of("of_bias", lambda net: net.bias[0])
    run = nth.Run([0.0, 0.5], solver=Explicit(rtol=0.2), checkpoint=tmp_path, record=(of_bias,))
    flow = nth.gradient_flow(small, data, run)
    flow.save(tmp_path / "flow.nc")
    for again in (
        nth.gradient_flow(small, data, run),
        nth.Trajectory.load(tmp_path / "flow.nc", model=small),
    ):
        assert again.f.dtype == again.model.weight.dtype == half
        np.testing.assert_array_equal(again.f, flow.f)
        np.testing.assert_array_equal(again.records["of_bias"], flow.records["of_bias"])
        np.testing.assert_array_equal(again.model.weight, flow.model.weight)
    with xr.open_datatree(tmp_path / "flow.nc") as tree:  # netCDF has no half precision
        stored = {each.dtype for group in tree.subtree for each in group.variables.values()}
    assert np.dtype("float32") in stored
    assert np.dtype(half) not in stored


@pytest.mark.parametrize("run", [flow, dense])
def test_finished_run_is_prolonged_to_the_end_of_a_whole_one(data, run, tmp_path):
    def prolonged(ts, folder=None):
        settings = {"solver": SOLVERS[run], "record": ("kernel",), "checkpoint": folder}
        if run is flow:
            return nth.gradient_flow(NETWORKS["fcn"], data, nth.Run(ts, **settings))
        return nth.hierarchy(NETWORKS["fcn"], data, 3, nth.Run(ts, **settings), method="dense")

    longer = TS[:8]
    prolonged(TS[:6], tmp_path)
    whole, resumed = prolonged(longer), prolonged(longer, tmp_path)
    np.testing.assert_array_equal(resumed.ts, longer)
    for name in ("f", "kernel"):
        one, other = getattr(resumed, name), getattr(whole, name)
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12)
    assert resumed.stats.steps == whole.stats.steps
    assert resumed.stop == whole.stop


def test_limit_that_was_met_before_a_checkpoint_is_refused(data, tmp_path):
    whole = flow(data, tmp_path)
    with pytest.raises(ValueError, match=r"`until` must be met later .* at t = 8, where its loss"):
        flow(data, tmp_path, until=Until(loss=2 * whole.loss[-1]))


def test_checkpoint_that_is_beyond_the_last_save_time_is_refused(data, tmp_path):
    settings = {"solver": dataclasses.replace(SOLVERS[flow], max_steps=3), "checkpoint": tmp_path}
    with pytest.raises(nth.SolveError, match=r"step limit of 3 reached at t = 0\.8"):
        nth.gradient_flow(NETWORKS["fcn"], data, nth.Run([0.0, 0.5, 8.0], **settings))
    with pytest.raises(ValueError, match=r"`ts` must reach as far as a checkpoint, but .* end at"):
        nth.gradient_flow(NETWORKS["fcn"], data, nth.Run([0.0, 0.5], **settings))


def test_losses_of_one_name_are_told_apart(data, tmp_path):
    cubic, quartic = (lambda f, y: jnp.abs(f - y) ** 3), (lambda f, y: (f - y) ** 4)
    nth.gradient_flow(NETWORKS["fcn"], data, nth.Run(TS[:2], checkpoint=tmp_path), loss=cubic)
    with pytest.raises(ValueError, match="another loss"):
        nth.gradient_flow(NETWORKS["fcn"], data, nth.Run(TS[:2], checkpoint=tmp_path), loss=quartic)


def test_file_cut_anywhere_is_refused(data, tmp_path):
    flow(data, tmp_path)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    for cut in np.linspace(0, len(whole) - 1, 50).astype(int):
        path.write_bytes(whole[:cut])
        with pytest.raises(ValueError, match=r"must hold whole files, but .*delete it"):
            Checkpoint(path, {}, {}).read()
    with pytest.raises(ValueError, match="must hold whole files"):
        flow(data, tmp_path)


def test_damaged_byte_is_noticed(data, tmp_path):
    flow(data, tmp_path)
    (path,) = tmp_path.iterdir()
    whole = bytearray(path.read_bytes())
    for place in np.linspace(0, len(whole) - 1, 25).astype(int):
        damaged = whole.copy()
        damaged[place] ^= 4
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="`checkpoint` must hold whole files"):
            Checkpoint(path, {}, {}).read()


def test_disk_that_fills_up_costs_no_result(data, tmp_path):
    whole = flow(data)
    sentence = r"`checkpoint` must be writable, but .* is not: .*; the run goes on without\.$"
    with pytest.warns(CheckpointWarning, match=sentence), disks.full():
        run = flow(data, tmp_path)
    np.testing.assert_array_equal(run.f, whole.f)


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes anywhere")
def test_folder_that_cannot_be_written_to_is_refused_at_once(data, tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(ValueError, match="`checkpoint` must be a folder to write to"):
        flow(data, tmp_path)


def test_file_in_place_of_a_folder_is_refused_at_once(data, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="`checkpoint` must be a folder to write to, but"):
        flow(data, tmp_path / "file")


KILLED = """
    import sys
    import jax; jax.config.update("jax_enable_x64", True)
    import jax.random as jr, numpy as np
    import nthsim as nth
    from nthsim.dynamics import checkpoint
    import equinox as eqx
    from nthsim.solvers import Explicit, run

    run.CALL_SECONDS, checkpoint.LEAST_SECONDS, checkpoint.PART = 1e-3, 0.0, 1.0
    keys = jr.split(jr.key(0), 3)
    data = nth.Dataset(jr.normal(keys[0], (5, 4)), jr.normal(keys[1], (5,)))
    net = eqx.nn.MLP(4, "scalar", 32, 2, jax.nn.softplus, key=keys[2])
    flow = nth.gradient_flow(
        net, data,
        nth.Run(np.linspace(0.0, 3.0, 4), solver=Explicit(rtol=1e-12), checkpoint=sys.argv[1]),
    )
    print(repr(flow.f[-1].tolist()))
"""


def test_killed_process_goes_on_to_the_same_end(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(KILLED))
    folder = tmp_path / "kept"
    command = [sys.executable, str(script)]
    process = subprocess.Popen([*command, str(folder)], stdout=subprocess.DEVNULL)
    while process.poll() is None and not list(folder.glob("*.ckpt")):
        time.sleep(0.002)
    assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = subprocess.run([*command, str(folder)], capture_output=True, text=True, check=True)
    keys = jr.split(jr.key(0), 3)
    data = nth.Dataset(jr.normal(keys[0], (5, 4)), jr.normal(keys[1], (5,)))
    net = eqx.nn.MLP(4, "scalar", 32, 2, jax.nn.softplus, key=keys[2])
    whole = nth.gradient_flow(
        net, data, nth.Run(np.linspace(0.0, 3.0, 4), solver=Explicit(rtol=1e-12))
    )
    np.testing.assert_allclose(eval(done.stdout), whole.f[-1], rtol=1e-11)


def test_comparison_goes_on_where_it_was_interrupted(data, tmp_path):
    arguments, calls = (NETWORKS["fcn"], data, (2, 3)), []

    def press(net):
        """Ctrl-C at the third save time, once."""
        calls.append(net)
        if len(calls) == 5:  # it is tried twice before the run
            raise KeyboardInterrupt
        return net.readout.weight[0, 0]

    run = nth.Run(TS, solver=Explicit(rtol=1e-7), checkpoint=tmp_path)
    whole = nth.compare(*arguments, dataclasses.replace(run, checkpoint=None), certify=False)
    run = dataclasses.replace(run, record=("kernel", nth.Observable.of("press", press)))
    with pytest.raises(nth.CompareError, match=f"interrupted at t = {TS[2]:g}"):
        nth.compare(*arguments, run, certify=False)
    again = nth.compare(*arguments, run, certify=False)
    # The first two save times were not looked at again, the third twice: it was interrupted.
    assert len(calls) == 2 * 2 + len(TS) + 1
    for name, one in again.curves.items():
        np.testing.assert_allclose(one.f, whole.curves[name].f, rtol=1e-12)
    assert jnp.allclose(again.exact.f, whole.exact.f)


def test_rerun_computes_anew_what_a_checkpoint_has(data, tmp_path):
    run = nth.Run(TS, checkpoint=tmp_path)
    nth.compare(NETWORKS["fcn"], data, (2,), run, certify=False)
    # What is computed ends after so short a time.
    run = dataclasses.replace(run, until=Until(seconds=1e-9))
    study = nth.compare(NETWORKS["fcn"], data, (2,), run, certify=False)
    assert study.exact.stop.reason == "horizon"
    assert nth.rerun(study).exact.stop.reason == "seconds"
