"""A comparison tells what it found in text and figures, and can be computed again."""

import dataclasses
import re

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import studies
from matplotlib.figure import Figure

import nthsim as nth
from nthsim.dynamics.recipes import UnknownSolver
from nthsim.models import FCN
from nthsim.results.terminal import COLUMNS
from nthsim.solvers import Stop


def test_truncation_is_found_by_its_order():
    study = studies.scalar()
    assert [study.curve(p).name for p in (2, 3)] == [
        "order-2 truncation",
        "order-3 truncation",
    ]
    chosen = (nth.Order(3), "order 3", 3, np.int64(3))
    assert len({id(study.curve(which)) for which in chosen}) == 1
    assert study.curve("exact flow") is study.exact
    sentence = r"^`which` must be one of 'exact flow', 'order 2', 'order 3', but is 4\.$"
    with pytest.raises(ValueError, match=sentence):
        study.curve(4)


class Undefined(eqx.Module):
    w: jax.Array

    def __call__(self, x):
        return jnp.log(-1 - jnp.abs(self.w @ x))


def test_network_without_outputs_is_told_by_its_flow():
    data = nth.Dataset(jnp.eye(3), jnp.array([1.0, -1.0, 1.0]))
    sentence = "exact gradient flow: the right-hand side is not finite at t = 0"
    with pytest.raises(nth.CompareError, match=f"^{sentence}"):
        nth.compare(Undefined(jnp.ones(3)), data, (2,), [0.0, 1.0], progress=False)
    study = nth.width_scaling(
        lambda width, key: Undefined(jr.normal(key, (3,))),
        data,
        (4, 5),
        2,
        (2,),
        [0.0, 1.0],
        progress=False,
    )
    assert study.remarks[0].endswith("exact gradient flow: not finite for 2 of 2 seeds")


def test_errors_fall_with_the_order():
    study = studies.scalar()
    second, third = study.errors(2), study.errors(3)
    # At the first save time after t = 0; later, orders may cross.
    assert third.train_rms[1] < second.train_rms[1]
    assert second.test_rms is not None
    assert third.test_rms is not None
    assert third.test_rms[1] < second.test_rms[1]


def test_everything_starts_from_the_same_outputs_and_kernel():
    study = studies.scalar()
    for p in (2, 3):
        # The two ways to f at t = 0 differ in rounding only.
        np.testing.assert_allclose(study.errors(p).train_max[0], 0.0, atol=1e-14)
        kernel = study.errors(p).kernel
        assert kernel is not None
        np.testing.assert_allclose(kernel[0], 0.0, atol=1e-14)


def test_order_two_keeps_its_kernel_so_that_its_error_is_the_drift():
    study = studies.scalar()
    drift, error = study.drift(), study.errors(2).kernel
    assert drift is not None
    assert error is not None
    assert drift.max() > 1e-3
    # The exact flow's own kernels are rounded in another order.
    np.testing.assert_allclose(error, drift, atol=1e-13)


@pytest.mark.parametrize("name", ["scalar", "vector", "blow_up"])
def test_text_fits_into_its_columns(name):
    lines = str(getattr(studies, name)()).splitlines()
    assert max(map(len, lines)) <= COLUMNS
    assert not [line for line in lines if line != line.rstrip()]


def test_text_tells_what_was_compared():
    text = str(studies.scalar())
    assert "FCN, width 8, depth 1, tanh: 40 parameters in float64" in text
    assert "3 training and 2 test points" in text
    assert "squared_error; Tsit5, rtol 1e-05" in text
    assert "t = 0 to 2 at 6 save times" in text
    text = str(studies.vector())
    assert "MLP, width 5, depth 1: 37 parameters in float64" in text
    assert "absolute_quartic; Tsit5, rtol 1e-05" in text


def test_text_shows_largest_errors_and_those_at_the_end():
    study = studies.scalar()
    row = next(line for line in str(study).splitlines() if line.startswith("order 3 "))
    e = study.errors(3)
    assert e.test_rms is not None
    assert e.test_max is not None
    assert e.kernel is not None
    numbers = [e.train_rms.max(), e.train_max.max(), e.train_rms[-1]]
    numbers += [e.test_rms.max(), e.test_max.max(), e.test_rms[-1], e.loss.max(), e.kernel.max()]
    assert row.split() == ["order", "3", *(f"{v:.1e}" for v in numbers), "-"]


def test_text_shows_slopes_and_a_dash_where_none_was_fitted():
    rows = str(studies.scalar()).splitlines()
    assert next(row for row in rows if row.startswith("order 2 ")).split()[-1] == "2.01"
    assert next(row for row in rows if row.startswith("order 3 ")).split()[-1] == "-"


def test_text_shows_the_work():
    study = studies.scalar()
    [row] = [line for line in str(study).splitlines() if line.startswith("exact flow")]
    s = study.exact.stats
    assert row.split()[2] == "2"
    assert row.split()[-5:-1] == [
        str(s.steps),
        str(s.rejected),
        str(s.evaluations),
        f"{s.seconds:.2f}",
    ]


def test_text_shows_the_seconds_of_all_the_kernels_that_an_order_starts_from():
    study = dataclasses.replace(studies.scalar(), kernel_seconds=(1.25, 2.5))
    _, work = str(study).split("kernels s\n")
    assert [line.split()[-1] for line in work.splitlines()[:3]] == ["-", "1.25", "3.75"]


def test_kernels_are_timed_one_by_one():
    seconds = studies.scalar().kernel_seconds
    assert len(seconds) == 2
    assert min(seconds) > 0


def test_text_says_where_save_times_set_the_steps():
    study = studies.vector()
    stats = [dataclasses.replace(study.exact.stats, steps=steps) for steps in (7, 8)]
    few, more = (dataclasses.replace(study.exact, stats=s) for s in stats)
    # TS has five intervals, so that 7 steps are at most 1.5 per interval and 8 are more.
    text = str(dataclasses.replace(study, exact=few, curves={"order 2": more}))
    assert "stepped from save time to save time though longer steps do: exact flow\n" in text + "\n"
    text = str(dataclasses.replace(study, exact=more, curves={"order 2": few}))
    assert "stepped from save time to save time though longer steps do: order 2\n" in text + "\n"


def wanting(study, **changes):
    """The same comparison, had something else been asked for."""
    return dataclasses.replace(study, asked=dataclasses.replace(study.asked, **changes))


def test_text_says_that_float32_has_no_slopes_only_if_they_were_wanted():
    study = studies.blow_up()
    f = study.exact.f.astype(np.float32)
    study = dataclasses.replace(study, exact=dataclasses.replace(study.exact, f=f))
    sentence = "no slopes: the small-time certificate needs float64, and this is float32"
    assert sentence not in str(study)
    assert sentence in str(wanting(study, certify=True)).splitlines()


@pytest.mark.parametrize("outputs", [None, 2])
def test_drift_counts_from_time_zero_although_the_first_save_time_is_later(outputs, tmp_path):
    data = studies.points(outputs)
    out = () if outputs is None else (outputs,)
    net = eqx.nn.MLP(4, outputs or "scalar", 5, 1, activation=jnp.tanh, key=jr.key(0))
    study = nth.compare(net, data, (2,), [1.0, 2.0], certify=False, progress=False)
    drift, kernel = study.drift(), study.exact.kernel
    assert drift is not None
    assert kernel is not None
    start = np.asarray(nth.kernel(net, data.x, 2)).reshape(3, *out, 3, *out)
    distances = [np.linalg.norm(k - start) / np.linalg.norm(start) for k in kernel]
    np.testing.assert_allclose(drift, distances, rtol=1e-10)
    assert drift[0] > 1e-3
    assert "kernel drift of exact flow since t = 0" in str(study)
    study.save(tmp_path / "a.nc")
    loaded = nth.Comparison.load(tmp_path / "a.nc")
    np.testing.assert_array_equal(loaded.drift(), drift)


def test_rerun_of_an_interrupted_comparison_repeats_what_was_asked(tmp_path):
    curves = (nth.Order(2, method="series"), nth.Order(4, method="dense"), nth.Taylor(1))
    part = dataclasses.replace(studies.blow_up(), curves={}, ranks={})
    study = wanting(part, curves=curves, certify=True)
    study.save(tmp_path / "a.nc")
    again = nth.rerun(nth.Comparison.load(tmp_path / "a.nc", model=study.asked.model))
    assert list(again.curves) == ["order 2", "order 4", "Taylor 1"]
    assert [(again.curve(p).method or "").split()[0] for p in (2, 4)] == ["series", "dense"]
    assert again.certificate is not None
    assert again.certificate.orders == (2, 4)


def interrupting(at: int) -> nth.Observable:
    """Records zeros, and presses Ctrl-C at one of the times."""
    calls = []

    def press(net):
        calls.append(net)
        if len(calls) == 2 + at:  # it is tried before the run
            raise KeyboardInterrupt
        return 0.0

    return nth.Observable.of("press", press)


def test_comparison_that_was_interrupted_knows_what_was_asked():
    asked = studies.blow_up().asked
    run = nth.Run([0.0, 0.1], record=("kernel", interrupting(1)))
    with pytest.raises(nth.CompareError, match=r"interrupted at t = 0\.1") as caught:
        nth.compare(asked.model, asked.data, (2, 3), run, certify=False, progress=False)
    assert caught.value.comparison.curves == {}
    assert caught.value.comparison.asked.curves == (nth.Order(2), nth.Order(3))


def test_text_says_where_a_higher_order_stops_helping_and_what_to_change():
    data = nth.sphere(5, 0, dim=3)
    far = nth.Dataset(data.x, 3 * data.y)

    def text(width: int, t: float) -> str:
        net = FCN(3, width, 2, key=jr.key(0))
        ts = [0.0, t / 2, t]
        return " ".join(
            str(nth.compare(net, far, (2, 3), ts, certify=False, progress=False)).split()
        )

    lost = text(3, 2.0)
    assert "order 3 is no nearer to exact flow than order 2 from t = 2 on, when the" in lost
    assert re.search(r"tangent kernel has moved by 2\d% of itself\. .* a larger width", lost)
    assert "no nearer" not in text(3, 0.01)


def test_text_shows_kernel_drift():
    drift = studies.scalar().drift()
    assert drift is not None
    assert f"{drift.max():.1e} (end: {drift[-1]:.1e})" in str(studies.scalar())


def test_text_without_test_points_has_no_column_for_them():
    assert "f test:" in str(studies.scalar())
    assert "f test:" not in str(studies.vector())


def test_text_says_why_a_run_ended_early():
    study = studies.blow_up()
    lines = str(study).splitlines()
    method, line = (line for line in lines if line.startswith("order 3: "))
    assert method.startswith("order 3: dense (about ")
    assert line == f"order 3: {study.curve(3).stop.message}"
    assert "blow-up at t = 1.71" in line
    assert not [line for line in lines if line.startswith("exact flow: ")]


def test_text_of_a_comparison_that_was_interrupted_needs_no_orders():
    study = studies.scalar()
    part = dataclasses.replace(study, curves={}, certificate=None)
    assert "exact flow" in str(part)
    assert [line for line in str(part).splitlines() if "order" in line] == [
        f"order {p}: not started" for p in (2, 3)
    ]


def _texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_figure_shows_loss_errors_and_kernels():
    figure = studies.scalar().plot()
    assert [ax.get_title() for ax in figure.axes] == [
        "loss (solid: training, dashed: test)",
        "error of $f$ on training points",
        "error of $f$ on test points",
        "error and drift of $K^{(2)}$",
    ]
    assert _texts(figure)[:3] == ["exact flow", "order 2", "order 3"]
    assert [ax.get_yscale() for ax in figure.axes[1:]] == ["log"] * 3


def test_figure_draws_the_errors_themselves():
    study = studies.scalar()
    lines = {line.get_label(): line for line in study.plot().axes[1].get_lines()}
    for p in (2, 3):
        np.testing.assert_array_equal(lines[f"order {p}"].get_xdata(), studies.TS[1:])
        np.testing.assert_array_equal(
            lines[f"order {p}"].get_ydata(), study.errors(p).train_rms[1:]
        )


def test_figure_without_test_points_has_three_panels():
    figure = studies.vector().plot()
    assert len(figure.axes) == 3
    assert figure.axes[0].get_title() == "training loss"


def test_figure_marks_a_blow_up():
    assert "order 3: blow-up" in _texts(studies.blow_up().plot())


def test_figure_is_written_where_asked(tmp_path):
    studies.scalar().plot(tmp_path / "orders.png")
    assert (tmp_path / "orders.png").read_bytes().startswith(b"\x89PNG")


def test_figure_of_unknown_format_is_refused(tmp_path):
    path = tmp_path / "orders.doc"
    sentence = f"`path` must end in .png, .pdf, .svg, but is {path}."
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        studies.scalar().plot(path)
    assert not path.exists()


@pytest.mark.parametrize("name", ["vector", "blow_up"])
def test_rerun_gives_the_same_again(name):
    study = getattr(studies, name)()
    again = nth.rerun(study, progress=False)
    assert list(again.curves) == list(study.curves)
    assert again.certificate is None
    for one, other in zip(
        (study.exact, *study.curves.values()), (again.exact, *again.curves.values()), strict=True
    ):
        np.testing.assert_array_equal(one.ts, other.ts)
        # Sums may be rounded in another order; a blow-up makes the most of it.
        np.testing.assert_allclose(one.f, other.f, rtol=1e-6)


def test_rerun_of_a_loaded_file_gives_the_same_again(tmp_path):
    study = wanting(studies.scalar(), certify=False)
    study.save(tmp_path / "a.nc")
    again = nth.rerun(nth.Comparison.load(tmp_path / "a.nc"), progress=False)
    np.testing.assert_allclose(again.exact.f, study.exact.f, rtol=1e-12)
    np.testing.assert_allclose(again.curve(3).f, study.curve(3).f, rtol=1e-12)
    assert again.certificate is None


def test_rerun_needs_the_model(tmp_path):
    studies.blow_up().save(tmp_path / "a.nc")
    study = nth.Comparison.load(tmp_path / "a.nc")
    assert study.asked.model is None
    sentence = (
        "`model` must be known to compute this again, but is None: load the file with `model=`, "
        "a module of the same structure."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        nth.rerun(study)
    with pytest.raises(ValueError, match=r"^`model` must be known to save this again, but is None"):
        study.save(tmp_path / "b.nc")


def test_rerun_needs_the_loss(tmp_path):
    study = studies.vector()
    study.save(tmp_path / "a.nc")
    loaded = nth.Comparison.load(tmp_path / "a.nc", model=study.asked.model)
    assert loaded.asked.loss == "absolute_quartic"
    sentence = (
        "`loss` must be a function to compute this again, but only its name is known: load the "
        "file with `loss=`, the function absolute_quartic."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        nth.rerun(loaded)


def test_rerun_needs_the_solver():
    run = dataclasses.replace(
        studies.scalar().asked.run, solver=UnknownSolver(description="Explicit(method=Mine)")
    )
    study = wanting(studies.scalar(), run=run)
    sentence = (
        "`solver` must be one of nthsim's to compute this again, but is Explicit(method=Mine)."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        nth.rerun(study)


def test_comparison_in_float32_comes_back_whole(tmp_path):
    study = jax.tree.map(
        lambda leaf: (
            leaf.astype(jnp.float32) if eqx.is_array_like(leaf) and np.ndim(leaf) else leaf
        ),
        studies.scalar(),
    )
    study = eqx.tree_at(lambda s: s.asked.run, study, studies.scalar().asked.run)
    assert "in float32" in str(study)
    study.save(tmp_path / "a.nc")
    loaded = nth.Comparison.load(tmp_path / "a.nc")
    assert studies.same(loaded, study)
    assert str(loaded) == str(study)


@pytest.mark.parametrize("reached", [0, 1, 3])
def test_comparison_that_ended_early_is_shown_and_kept(reached, tmp_path):
    study = studies.scalar()
    arrays = ("ts", "f", "f_test", "loss", "test_loss", "record_ts")
    cut = {name: getattr(study.exact, name)[:reached] for name in arrays}
    cut |= {"records": {name: a[:reached] for name, a in study.exact.records.items()}}
    stop = Stop("step limit", 0.5, "step limit of 3 reached at t = 0.5 of 2")
    study = dataclasses.replace(study, exact=dataclasses.replace(study.exact, stop=stop, **cut))
    assert "exact flow: step limit of 3 reached at t = 0.5 of 2" in str(study).splitlines()
    study.plot(tmp_path / "a.png")
    study.save(tmp_path / "a.nc")
    loaded = nth.Comparison.load(tmp_path / "a.nc")
    assert studies.same(loaded, study)
    assert str(loaded) == str(study)


def test_slope_that_is_too_small_is_told_in_table_and_figure():
    study = studies.scalar()
    fits = study.certificate
    assert fits is not None
    early = fits.ts[-1] * np.array([[0.001, 0.004], [0.001, 0.004]])
    broken = dataclasses.replace(fits, slopes=np.array([2.0, 2.0]), windows=early)
    doubted = dataclasses.replace(study, certificate=broken)
    assert re.search(r"^order 3 .* 2\.00!", str(doubted), re.MULTILINE)
    assert "slope 2.00 at order 3: not the order" in str(doubted)
    notes = [text.get_text() for ax in doubted.plot().axes for text in ax.texts]
    assert notes == ["slope 2.0, not 3"]
    assert not re.search(r"\d!", str(study))


class Broken(nth.Taylor):
    """A curve that fails once it is computed."""

    def trajectory(self, run, start, *, progress):
        raise ZeroDivisionError("by zero")


def test_curve_that_fails_costs_nothing_of_the_others():
    asked = studies.blow_up().asked
    sentence = r"^ZeroDivisionError: by zero; exact flow, order 2 are kept in `\.comparison`$"
    with pytest.raises(nth.CompareError, match=sentence) as caught:
        nth.compare(asked.model, asked.data, (2, Broken(1)), [0.0, 0.1], certify=False)
    assert list(caught.value.comparison.curves) == ["order 2"]
    assert "Taylor 1: not started" in str(caught.value.comparison)
