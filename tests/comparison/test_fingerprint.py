"""A study is computed again by the functions that it was made with, or not at all."""

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import pytest
import studies

import nthsim as nth
from nthsim.models import FCN

TS = [0.0, 0.7]

#: What the functions below read while they are called.
READ = {"model": 1.0, "loss": 0.3, "regulariser": 0.1}


def bent(z):
    return jnp.where(z > 0, z, READ["model"] * jnp.expm1(z))


def huber(f, y):
    a, width = jnp.abs(f - y), READ["loss"]
    return jnp.sum(jnp.where(a < width, a * a / 2, width * (a - width / 2)))


def drawn(model):
    return READ["regulariser"] * jnp.sum(model.layers[0].weight ** 4)


@pytest.fixture(scope="module")
def study():
    net = eqx.nn.MLP(4, "scalar", 5, 1, activation=bent, key=jr.key(0))
    options = {"loss": huber, "regulariser": drawn, "certify": False}
    return nth.compare(net, studies.points(), (2,), TS, **options)


@pytest.mark.parametrize(
    ("name", "value"), [("model", 1.1), ("loss", 7.0), ("regulariser", 0.1001)]
)
def test_rerun_refuses_functions_that_read_something_else_now(study, monkeypatch, name, value):
    monkeypatch.setitem(READ, name, value)
    sentence = f"^`{name}` must compute what it did when the study was made, but does not"
    with pytest.raises(ValueError, match=sentence):
        nth.rerun(study)
    monkeypatch.undo()
    assert studies.same(nth.rerun(study).exact.f, study.exact.f)


def test_file_refuses_functions_that_were_changed_before_it_was_saved(study, monkeypatch, tmp_path):
    monkeypatch.setitem(READ, "regulariser", 0.2)
    study.save(tmp_path / "a.nc")
    model = study.asked.model
    with pytest.raises(
        ValueError, match=r"^`regulariser` must be the one of the file, drawn, but "
    ):
        nth.Comparison.load(tmp_path / "a.nc", model=model, loss=huber, regulariser=drawn)
    monkeypatch.undo()
    found = nth.Comparison.load(tmp_path / "a.nc", model=model, loss=huber, regulariser=drawn)
    assert studies.same(nth.rerun(found).exact.f, study.exact.f)


def test_losses_of_equal_means_at_the_start_are_told_apart(tmp_path):
    data = studies.points()
    net = FCN(4, width=5, depth=1, activation="tanh", key=jr.key(1))
    study = nth.compare(net, data, (2,), TS, loss=lambda f, y: (f - y) ** 2, certify=False)
    study.save(tmp_path / "a.nc")
    start, mean = study.exact.f[0], study.exact.loss[0]
    share = mean / jnp.mean((start - data.y[: len(start)]) ** 4)
    with pytest.raises(ValueError, match=r"^`loss` must be the one of the file"):
        nth.Comparison.load(tmp_path / "a.nc", loss=lambda f, y: share * (f - y) ** 4)


def test_all_samples_count():
    x, late = jnp.linspace(-1.0, 1.0, 400).reshape(100, 4), 0.9
    weigh = {"loss": 1.0}
    loss = lambda f, y: jnp.where(y > late, weigh["loss"], 1.0) * (f - y) ** 2  # noqa: E731
    net = FCN(4, width=5, depth=1, activation="tanh", key=jr.key(1))
    study = nth.compare(net, nth.Dataset(x, x[:, 0]), (2,), TS, loss=loss, certify=False)
    weigh["loss"] = 1.01
    with pytest.raises(ValueError, match=r"^`loss` must compute what it did when"):
        nth.rerun(study)


def test_test_points_count(tmp_path):
    scale = {"far": 1.0}
    outer = lambda z: jnp.where(jnp.abs(z) > 50, scale["far"], 1.0) * jnp.tanh(z)  # noqa: E731
    net = eqx.nn.MLP(4, "scalar", 5, 1, activation=outer, key=jr.key(0))
    data = studies.points()
    data = nth.Dataset(data.x, data.y, 1e3 * jnp.ones((1, 4)))
    study = nth.compare(net, data, (2,), TS, certify=False)
    study.save(tmp_path / "a.nc")
    scale["far"] = 2.0
    with pytest.raises(ValueError, match=r"^`model` must be the one of the file"):
        nth.Comparison.load(tmp_path / "a.nc", model=net)


def test_loss_that_bears_the_name_of_another_is_known_by_what_it_computes(tmp_path):
    def squared_error(f, y):
        return jnp.sum((f - y) ** 2)

    net = FCN(4, width=5, depth=1, activation="tanh", key=jr.key(1))
    study = nth.compare(net, studies.points(), (2,), TS, loss=squared_error, certify=False)
    study.save(tmp_path / "a.nc")
    with pytest.raises(ValueError, match="one of the file, squared_error, but what is given comp"):
        nth.Comparison.load(tmp_path / "a.nc", loss=nth.squared_error)
    found = nth.Comparison.load(tmp_path / "a.nc", loss=squared_error)
    assert studies.same(nth.rerun(found).exact.f, study.exact.f)


def test_module_that_refuses_other_parameters_is_known_where_it_starts(tmp_path):
    class Small(eqx.Module):
        w: jnp.ndarray

        def __call__(self, x):
            w = eqx.error_if(self.w, jnp.max(jnp.abs(self.w)) > 2, "too large")
            return jnp.tanh(w @ x)

    model = Small(jnp.array([0.3, -0.2, 0.1, 0.4]))
    study = nth.compare(model, studies.points(), (2,), TS, certify=False)
    study.save(tmp_path / "a.nc")
    found = nth.Comparison.load(tmp_path / "a.nc", model=model)
    assert studies.same(nth.rerun(found).exact.f, study.exact.f)
