"""Studies over sizes: what they measure, print, draw and keep."""

import dataclasses
import functools

import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from studies import TS, absolute_quartic, points, same

import nthsim as nth
from nthsim.models import FCN, ResNet
from nthsim.solvers import Auto

SIZES, SEEDS = np.array([8, 16, 32]), np.arange(30)


def _made_up(**changes) -> nth.Scaling:
    """Pure power laws with the predicted exponents, times a factor of median one by seed.

    Both families are predicted; here that is a fact like any other.
    """
    factor = np.exp(np.random.default_rng(0).normal(0, 0.3, (2, 3, 30)))
    ranks, orders = np.array([0.0, -1, -1, -2]), np.array([-1.0, -1, -2])
    m = SIZES[None, :, None, None]
    kernels = factor[..., None] * m**ranks
    errors = (factor[..., None] * 1e-2 * m**orders)[..., None] * np.linspace(0, 1, 4)
    fields = {
        "axis": "width",
        "families": ("gaussian", "orthogonal"),
        "sizes": SIZES,
        "seeds": SEEDS,
        "orders": (2, 3, 4),
        "ts": np.linspace(0.0, 2.0, 4),
        "data": nth.sphere(3, 2, dim=4),
        "loss": nth.squared_error,
        "solver": Auto(rtol=1e-6),
        "initial_f": factor[..., None] * np.ones(3),
        "initial_kernels": factor[..., None, None] * np.eye(3),
        "kernel_rms": kernels,
        "kernel_max": 2 * kernels,
        "kernel_mean": -kernels,
        "drift": errors[..., 0, :],
        "seconds": np.ones((2, 3)),
        "networks": ("a network", "another"),
        "steps": "some steps",
        "subject": {"data": "of no study"},
        "predicted": ("ntk", "ntk"),
        "error_f": errors,
        "error_f_test": errors,
        "error_kernel": errors,
        "blown_up": np.zeros((2, 3, 30, 3), np.int8),
    }
    return nth.Scaling(**(fields | changes))


def _blown_up() -> nth.Scaling:
    """One whose order 3 blew up for most seeds of the second family at width 8."""
    study = _made_up()
    assert study.blown_up is not None
    assert study.error_f is not None
    blown, errors = study.blown_up.copy(), study.error_f.copy()
    blown[1, 0, :20, 1], errors[1, 0, :20, 1, 2:] = 1, np.nan
    return dataclasses.replace(study, blown_up=blown, error_f=errors)


@functools.cache
def _real(axis: str) -> nth.Scaling:
    """What is compiled for widths is what test_cells.py compiles too."""
    if axis == "depth":
        draw = lambda L, key: ResNet(4, 5, L, key=key)  # noqa: E731
        return nth.depth_scaling(draw, points(tests=0), (1, 2), [5, 3], (), np.zeros(1))
    families = {"FCN": lambda m, key: FCN(4, m, 1, key=key)}
    solver = Auto(rtol=1e-5)
    return nth.width_scaling(
        families, points(), (8,), 3, (2, 3), nth.Run(TS, solver=solver), sweep=nth.Sweep(chunk=2)
    )


def test_families_widths_seeds_and_orders_have_their_axes():
    study = _real("width")
    assert study.families == ("FCN",)
    assert study.sizes.tolist() == [8]
    assert study.seeds.tolist() == [0, 1, 2]
    assert study.kernel_rms.shape == (1, 1, 3, 2)  # K^(2) and K^(3)
    assert study.initial_kernels.shape == (1, 1, 3, 3, 3)
    assert study.error_f is not None
    assert study.error_f.shape == (1, 1, 3, 2, 6)
    assert study.remarks == ()


def test_networks_stand_where_their_seed_is_whatever_the_chunks():
    study = _real("width")
    for seed in range(3):
        net = FCN(4, 8, 1, key=jr.key(seed))
        f = jnp.stack([net(x) for x in study.data.x])
        np.testing.assert_allclose(study.initial_f[0, 0, seed], f, rtol=1e-12)


def test_depths_may_be_studied_without_any_dynamics():
    study = _real("depth")
    assert study.axis == "depth"
    assert study.seeds.tolist() == [3, 5]
    assert study.error_f is None
    np.testing.assert_array_equal(study.drift, np.zeros((1, 2, 2, 1)))
    for i, depth in enumerate((1, 2)):
        net = ResNet(4, 5, depth, key=jr.key(5))
        f = jnp.stack([net(x) for x in study.data.x])
        np.testing.assert_allclose(study.initial_f[0, i, 1], f, rtol=1e-12)
    assert not {"drift", "f, p = 2"} & set(study.quantities())


def test_fitted_exponents_stand_beside_the_predicted_ones():
    study = _made_up()
    for family in study.families:
        for name, quantity in study.quantities(family).items():
            assert quantity.predicted is not None, name
            assert quantity.predicted in study.exponent(name, family), name


def test_growth_is_from_the_first_size_to_the_last():
    study = _made_up(axis="depth")
    # The medians of 30 factors are off by some 7%.
    assert study.growth("rms K^(3)").value == pytest.approx(1 / 4, rel=0.2)
    assert study.growth("rms K^(5)").value == pytest.approx(1 / 16, rel=0.2)


def test_table_has_two_rows_for_each_quantity_of_each_family():
    study = _made_up()
    lines = str(study).splitlines()
    for name, each in study.quantities().items():
        rows = [line for line in lines if line.startswith(f"{name}  ")]
        assert len(rows) == (4 if each.panel else 2), name  # slopes of what is drawn
    [row, spread] = lines[lines.index(next(li for li in lines if li.startswith("rms K^(3)"))) :][:2]
    assert row.split()[-1] == "-1"
    assert spread.count("-") == 3  # three quartile ranges
    assert len([line for line in lines if line.lstrip().startswith("±")]) == 8
    assert max(map(len, lines)) <= 100


def test_table_and_figure_say_where_an_interval_excludes_the_prediction():
    study = _made_up()
    assert "excludes" not in str(study)
    drift = study.drift.copy()
    drift[1] *= SIZES[:, None, None] ** 0.5
    study = dataclasses.replace(study, drift=drift)
    rows = [line for line in str(study).splitlines() if line.startswith("drift")]
    assert [row.split()[-2:] == ["excludes", "-1"] for row in rows[:2]] == [False, True]
    figure = study.plot()
    excluding = "predicted power that the 95% interval excludes"
    assert _said(figure.legends[0])[-2:] == ["predicted power", excluding]
    [note] = [text.get_text() for text in figure.axes[4].texts if "excludes" in text.get_text()]
    assert note == f"{study.exponent('drift', 'orthogonal').value:.2f}, excludes -1"


def test_table_has_the_slopes_between_neighbouring_widths():
    study = _made_up()
    lines = str(study).splitlines()
    at = lines.index("orthogonal, width to width  8 to 16  16 to 32")
    drawn = {name: each for name, each in study.quantities("orthogonal").items() if each.panel}
    for name, line in zip(drawn, lines[at + 1 :], strict=False):
        slopes = [f"{slope:.2f}" for slope in study.slopes(name, "orthogonal")]
        assert line.startswith(f"{name} ")
        assert line.split()[-2:] == slopes


def test_what_is_not_predicted_is_fitted_and_one_line_says_so(tmp_path):
    study = _made_up(predicted=("ntk", None))
    study.save(tmp_path / "a.nc")
    assert str(nth.Scaling.load(tmp_path / "a.nc")) == str(study)
    lines = str(study).splitlines()
    [at] = [i for i, line in enumerate(lines) if line.startswith("no prediction for ")]
    sentence = "no prediction for orthogonal: predictions are known for FCN and ResNet alone, "
    assert lines[at].startswith(sentence)
    heads = [line for line in lines if line.endswith("95%") or line.endswith("predicted")]
    assert [head.split()[0] for head in heads] == ["gaussian", "orthogonal"]
    assert [head.endswith("predicted") for head in heads] == [True, False]
    for name, each in study.quantities("orthogonal").items():
        assert each.predicted is None, name
        assert np.isfinite(study.exponent(name, "orthogonal").value), name
    figure = study.plot()
    assert sentence.rstrip() in figure.get_suptitle().replace("\n", " ")
    dotted = [line for line in figure.axes[4].get_lines() if line.get_linestyle() == ":"]
    assert len(dotted) == 1
    none = _made_up(predicted=(None, None)).plot()
    assert _said(none.legends[0]) == ["gaussian", "orthogonal"]


def test_drift_and_errors_are_predicted_for_squared_error_alone():
    study = _made_up(loss=absolute_quartic)
    predicted = {name: each.predicted for name, each in study.quantities().items()}
    assert predicted["rms K^(3)"] == -1
    assert predicted["drift"] is None
    assert predicted["f, p = 4"] is None
    assert "no prediction for drift and errors: they are known for squared error alone" in str(
        study
    )


def test_sizes_of_a_fit_may_be_chosen():
    study = _made_up()
    sizes = slice(1, None)
    later = {
        field.name: getattr(study, field.name)[:, sizes]
        for field in dataclasses.fields(study)
        if np.ndim(getattr(study, field.name)) > 1
    }
    cut = dataclasses.replace(study, sizes=SIZES[sizes], **later)
    found, wanted = study.exponent("f, p = 4", sizes=[32, 16]), cut.exponent("f, p = 4")
    assert (found.value, found.low, found.high) == (wanted.value, wanted.low, wanted.high)
    sentence = r"^`sizes` must be two or more of 8, 16, 32, but is 16, 64\.$"
    with pytest.raises(ValueError, match=sentence):
        study.exponent("f, p = 4", sizes=(16, 64))


def test_table_of_depths_has_growth_and_nothing_predicted():
    text = str(_made_up(axis="depth"))
    assert "growth" in text
    assert "predicted" not in text


def test_table_tells_how_many_blew_up():
    study = _blown_up()
    assert "orthogonal, order 3 blew up for 20 at width 8 of 30 seeds" in str(study)
    assert study.quantities("orthogonal")["f, p = 3"].middles()[0] == np.inf
    # Two widths are left to fit.
    assert -1.0 in study.exponent("f, p = 3", "orthogonal")


def test_table_of_one_seed_has_no_spread():
    study = _made_up(axis="width", families=("FCN",), networks=("a network",), predicted=("ntk",))
    one = {
        field.name: getattr(study, field.name)[:1, :, :1]
        for field in dataclasses.fields(study)
        if np.ndim(getattr(study, field.name)) > 2
    }
    text = str(dataclasses.replace(study, seeds=SEEDS[:1], seconds=study.seconds[:1], **one))
    assert "±" not in text
    assert "1 seed;" in text


def test_remarks_are_printed():
    assert "fcn-8-seeds-0-3: step limit" in str(_made_up(remarks=("fcn-8-seeds-0-3: step limit",)))


@pytest.mark.parametrize("make", [_blown_up, lambda: _real("width"), lambda: _real("depth")])
def test_study_is_saved_and_loaded_bit_by_bit(make, tmp_path):
    study = make()
    study.save(tmp_path / "a.nc")
    assert same(nth.Scaling.load(tmp_path / "a.nc"), study)


def test_strange_loss_comes_back_by_its_name_or_when_given(tmp_path):
    _made_up(loss=absolute_quartic).save(tmp_path / "a.nc")
    assert nth.Scaling.load(tmp_path / "a.nc").loss == "absolute_quartic"
    assert nth.Scaling.load(tmp_path / "a.nc", loss=absolute_quartic).loss is absolute_quartic


def test_other_results_are_refused(tmp_path):
    _made_up().save(tmp_path / "a.nc")
    with pytest.raises(ValueError, match=r"^`path` must hold a Comparison, but .* holds a Scaling"):
        nth.Comparison.load(tmp_path / "a.nc")


def test_figure_has_a_panel_for_each_kind_of_quantity(tmp_path):
    study = _made_up()
    figure = study.plot(tmp_path / "a.png")
    titles = [ax.get_title() for ax in figure.axes]
    assert len(titles) == 5
    assert {ax.get_xlabel() for ax in figure.axes} == {"width"}
    assert {ax.get_xscale() for ax in figure.axes} == {"log"}
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def _is_measured(line: Line2D, marker: str) -> bool:
    """Whether these are the medians of a family, drawn with its marker."""
    return line.get_marker() == marker and len(np.asarray(line.get_xdata())) == len(SIZES)


def _said(legend: Legend | None) -> list[str]:
    assert legend is not None
    return [text.get_text() for text in legend.get_texts()]


def _lines(legend: Legend | None) -> list[Line2D]:
    assert legend is not None
    return [handle for handle in legend.legend_handles if isinstance(handle, Line2D)]


@pytest.mark.parametrize("axis", ["width", "depth"])
def test_families_differ_by_marker_and_line_in_every_panel_and_colours_are_told_in_each(axis):
    figure = _made_up(axis=axis).plot()
    families = ["gaussian", "orthogonal"]
    [shared] = figure.legends
    assert _said(shared) == [*families, *(["predicted power"] if axis == "width" else [])]
    looks = [(h.get_color(), h.get_marker(), h.get_linestyle()) for h in _lines(shared)]
    assert looks[:2] == [("#000000", "o", "-"), ("#000000", "s", "--")]
    *several, drift = figure.axes
    for ax in several:
        colours = [line.get_color() for line in _lines(ax.get_legend())]
        for marker in "os":
            lines = [line for line in ax.get_lines() if _is_measured(line, marker)]
            assert [line.get_color() for line in lines] == colours
    assert _said(several[0].get_legend()) == [f"$K^{{({r})}}$" for r in (2, 3, 4, 5)]
    assert _said(several[1].get_legend()) == ["order 2", "order 3", "order 4"]
    assert drift.get_legend() is None
    assert {line.get_color() for line in drift.get_lines()} <= {"#000000", "0.55"}


def test_one_family_needs_no_legend_but_the_one_below():
    one = {
        field.name: getattr(_made_up(), field.name)[:1]
        for field in dataclasses.fields(nth.Scaling)
        if np.ndim(getattr(_made_up(), field.name)) > 1
    }
    figure = _made_up(families=("FCN",), networks=("a network",), predicted=("ntk",), **one).plot()
    assert [ax.get_legend() for ax in figure.axes] == [None] * 5
    orders = [f"order {p}" for p in (2, 3, 4)]
    kernels = [f"$K^{{({r})}}$" for r in (2, 3, 4, 5)]
    assert _said(figure.legends[0]) == [*kernels, *orders, "drift", "predicted power"]


def test_figure_shows_medians_quartiles_fits_and_predictions():
    study = _made_up()
    ax = study.plot().axes[0]
    rms = study.quantities("gaussian")["rms K^(3)"]
    _, shown, *_ = [line for line in ax.get_lines() if _is_measured(line, "o")]
    np.testing.assert_array_equal(shown.get_ydata(), rms.middles())
    np.testing.assert_allclose(
        np.asarray(shown.get_xdata()), SIZES, rtol=0.05
    )  # two families side by side
    bars = [each for each in ax.collections if isinstance(each, LineCollection)]
    segments = np.concatenate([each.get_segments() for each in bars])
    np.testing.assert_array_equal(segments[3:6, :, 1].T, rms.spreads())
    slopes = []
    for line in ax.get_lines():
        if not line.get_marker() or line.get_marker() == "None":
            x, y = (np.log(np.asarray(data, float)) for data in line.get_data())
            slopes.append((y[-1] - y[0]) / (x[-1] - x[0]))
    wanted = [[q.predicted, q.exponent().value] for q in (rms,)]
    np.testing.assert_allclose(slopes[2:4], wanted[0])


def test_figure_of_depths_is_linear_in_depth_and_marks_each():
    figure = _made_up(axis="depth").plot()
    FigureCanvasAgg(figure).draw()
    ax = figure.axes[0]
    assert (ax.get_xscale(), ax.get_yscale()) == ("linear", "log")
    assert [text.get_text() for text in ax.get_xticklabels()] == ["8", "16", "32"]


def test_figure_survives_what_blew_up(tmp_path):
    _blown_up().plot(tmp_path / "a.pdf")


def test_quantity_and_family_must_be_known():
    study = _made_up()
    sentence = r"^`family` must be one of 'gaussian', 'orthogonal', but is 'FCN'\.$"
    with pytest.raises(ValueError, match=sentence):
        study.quantities("FCN")
    sentence = r"^`name` must be one of 'rms K.*, 'f, p = 4', .*, but is 'f, p=4'\.$"
    with pytest.raises(ValueError, match=sentence):
        study.exponent("f, p=4")
