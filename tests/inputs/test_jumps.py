"""Losses whose gradient jumps where training ends up."""

import re
import warnings

import diffrax as dfx
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import nthsim as nth
from nthsim.inputs.jump import JumpingLossWarning, jumped, jumping
from nthsim.solvers import Auto, Explicit, Exponential

TARGETS = jnp.array([0.1, 1.0, -1.0, 2.0])
VECTORS = jnp.eye(3)[jnp.array([0, 1, 2, 1])]


def absolute(f, y):
    return jnp.abs(f - y)


JUMPING = {
    "absolute": absolute,
    "quantile": lambda f, y: jnp.maximum(0.3 * (f - y), 0.7 * (y - f)),
    "hinge": lambda f, y: jnp.maximum(jnp.zeros_like(f), 1 - y * f),
    "root": lambda f, y: jnp.sqrt(jnp.abs(f - y)),
    "insensitive": lambda f, y: jnp.maximum(jnp.zeros_like(f), jnp.abs(f - y) - 0.1),
}
SMOOTH = {
    "square": lambda f, y: (f - y) ** 2,
    "huber": lambda f, y: jnp.where(
        jnp.abs(f - y) < 1e-3, (f - y) ** 2 / 2e-3, jnp.abs(f - y) - 5e-4
    ),
    "squared hinge": lambda f, y: jnp.maximum(jnp.zeros_like(f), 1 - y * f) ** 2,
    "steep logistic": lambda f, y: jnp.logaddexp(jnp.zeros_like(f), -100 * y * f),
    "with a pole": lambda f, y: f - y * jnp.log(f),
    "power": lambda f, y: jnp.abs(f - y) ** 1.5,
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_jumps_of_the_gradient_are_found_and_nothing_else_is(dtype):
    y = TARGETS.astype(dtype)
    found = {name: jumping(loss, y, ()) for name, loss in (JUMPING | SMOOTH).items()}
    assert found == dict.fromkeys(JUMPING, True) | dict.fromkeys(SMOOTH, False)


@pytest.mark.parametrize("scale", [1e-3, 1e6])
def test_jumps_are_found_at_targets_of_any_size(scale):
    assert jumping(absolute, scale * TARGETS, ())
    assert not jumping(SMOOTH["square"], scale * TARGETS, ())


def test_jumps_of_losses_of_vectors_are_found():
    losses = {
        "sum": lambda f, y: jnp.sum(jnp.abs(f - y)),
        "norm": lambda f, y: jnp.linalg.norm(f - y),
        "margin": lambda f, y: jnp.max(f + 1 - y) - jnp.vdot(f, y),
        "gate": lambda f, y: (f[0] - y[0]) ** 2 + jnp.where(f[0] > 0.25, 4.0, 1.0) * f[1] ** 2,
        "cross-entropy": lambda f, y: -jnp.vdot(y, jax.nn.log_softmax(f)),
    }
    found = {name: jumping(loss, VECTORS, (3,)) for name, loss in losses.items()}
    assert found == dict.fromkeys(losses, True) | {"cross-entropy": False}


def test_jump_that_one_output_makes_in_the_gradient_by_another_is_told():
    net = eqx.nn.Linear(2, 2, key=jr.key(0))
    gate = lambda f, y: (f[0] - y) ** 2 + jnp.where(f[0] > 0.25, 4.0, 1.0) * (f[1] - 1) ** 2  # noqa: E731
    run = nth.Run([0.0, 1.0], solver=Exponential())
    with (
        pytest.raises(ValueError, match="where the loss's gradient jumps"),
        pytest.warns(JumpingLossWarning),
    ):
        nth.gradient_flow(net, nth.Dataset(jnp.eye(2), [0.9, -0.4]), run, loss=gate)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_jumps_on_the_way_are_found_and_nothing_else_is(dtype):
    way = np.array([[2.0, 0.9, -1.2, 0.1], [-2.0, 1.05, 1.1, 2.1]], dtype)
    smooth = {name: loss for name, loss in SMOOTH.items() if name != "with a pole"}
    losses = JUMPING | smooth  # no run comes over a pole
    found = {n: jumped(loss, TARGETS.astype(dtype), way) for n, loss in losses.items()}
    assert found == dict.fromkeys(JUMPING, True) | dict.fromkeys(smooth, False)
    short = np.asarray(TARGETS, dtype) + np.array([[0.01], [0.06]], dtype)
    assert not any(jumped(loss, TARGETS.astype(dtype), short) for loss in smooth.values())
    aside = way[1:] + np.array([[0.0, 0.1, 0.1, 0.2], [0.3, 0.2, 0.2, 0.4]], dtype)
    assert not jumped(absolute, TARGETS.astype(dtype), aside)


NET = eqx.nn.MLP(3, "scalar", 8, 1, activation=jnp.tanh, key=jr.key(0))
DATA = nth.Dataset(np.arange(12.0).reshape(4, 3) / 5, TARGETS)
TELLING = "as the loss's gradient jumps, errors may exceed the tolerance"


def euler(h, t):
    """The loss at the end of many short steps of Euler's method on the plain parameters."""
    theta, rest = eqx.partition(NET, eqx.is_inexact_array)
    risk = lambda at: jnp.mean(absolute(jax.vmap(eqx.combine(at, rest))(DATA.x), DATA.y))  # noqa: E731
    step = lambda _, at: jax.tree.map(lambda a, g: a - h * g, at, jax.grad(risk)(at))  # noqa: E731
    return float(risk(jax.lax.fori_loop(0, round(t / h), step, theta)))


def test_absolute_error_ends_where_short_steps_of_euler_do():
    with pytest.warns(JumpingLossWarning, match="^`loss` has a gradient that jumps: where outputs"):
        run = nth.gradient_flow(NET, DATA, [20.0], loss=absolute, progress=False)
    # Sliding along jumps is off in proportion to the steps, Euler's and ours; where ours fall, and
    # so the fourth digit, depends on roundings. Euler's steps of 5e-5 come to 0.6500.
    np.testing.assert_allclose(run.loss[-1], euler(1e-3, 20.0), rtol=2e-3)
    np.testing.assert_allclose(run.loss[-1], 0.6500, rtol=2e-3)
    assert run.stats.forced > 0
    assert TELLING in str(run)


@pytest.mark.filterwarnings("ignore::nthsim.inputs.jump.JumpingLossWarning")
@pytest.mark.parametrize("method", ["dense", "series"])
def test_truncations_of_such_a_loss_say_so_too(method):
    run = nth.hierarchy(NET, DATA, 2, [0.5], loss=absolute, method=method, progress=False)
    assert TELLING in str(run)
    assert run.solver.startswith("Tsit5")


@pytest.mark.filterwarnings("ignore::nthsim.inputs.jump.JumpingLossWarning")
def test_comparison_says_so():
    study = nth.compare(NET, DATA, (2,), [0.0, 0.5], loss=absolute, certify=False, progress=False)
    assert TELLING in re.sub(r"\s+", " ", str(study))


@pytest.mark.filterwarnings("ignore::nthsim.inputs.jump.JumpingLossWarning")
def test_exponential_steps_are_refused_and_never_chosen():
    sentence = "^`solver` must be Auto or Explicit where the loss's gradient jumps, but is Expon"
    with pytest.raises(ValueError, match=sentence):
        nth.gradient_flow(
            NET, DATA, nth.Run([1.0], solver=Exponential()), loss=absolute, progress=False
        )
    stiff = nth.Dataset(100 * DATA.x, DATA.y)
    linear = eqx.nn.Linear(3, "scalar", key=jr.key(1))
    options = {"loss": absolute, "progress": False}
    asked = nth.Run([1.0], solver=Auto(rtol=1e-3, max_steps=9), throw=False)
    run = nth.gradient_flow(linear, stiff, asked, **options)
    assert run.solver.startswith("Tsit5")


def test_smooth_losses_are_not_doubted():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run = nth.gradient_flow(NET, DATA, [1.0], loss=SMOOTH["huber"], progress=False)
    assert "jumps" not in str(run)


@pytest.mark.filterwarnings("ignore::nthsim.inputs.jump.JumpingLossWarning")
def test_any_explicit_pair_says_so():
    solver = Explicit(rtol=1e-4, method=dfx.Dopri5())
    run = nth.gradient_flow(NET, DATA, nth.Run([0.5], solver=solver), loss=absolute, progress=False)
    assert TELLING in run.solver


#: Targets of which one is rare, and a linear network whose outputs come to all of them from afar.
MANY = np.where(np.arange(40) == 30, 0.57, np.linspace(-1.0, 1.0, 40))
APART = nth.Dataset(np.linspace(-1.0, 1.0, 40)[:, None], MANY)
LINEAR = eqx.tree_at(
    lambda m: (m.weight, m.bias),
    eqx.nn.Linear(1, "scalar", key=jr.key(0)),
    (jnp.full((1, 1), 9.0), jnp.ones(1)),
)

#: Jumps that are not where, or not of the size that, they are looked for before a run.
UNFORESEEN = {
    "far out": lambda f, y: 0.5 * (f - y) ** 2 + 2 * jnp.maximum(f - 6.0, jnp.zeros_like(f)),
    "at a rare target": lambda f, y: jnp.where(y == 0.57, jnp.abs(f - y), 0.5 * (f - y) ** 2),
    "small beside what is not come to": lambda f, y: (
        0.5 * (f - y) ** 2
        + 1e-2 * jnp.abs(f - 0.3)
        + 1e7 * jnp.maximum(-f - 3.9, jnp.zeros_like(f)) ** 2
    ),
}


@pytest.mark.parametrize("name", UNFORESEEN)
def test_jumps_that_only_the_run_comes_to_are_told(name):
    data = APART
    if name.startswith("small"):
        data = nth.Dataset(APART.x / 4, APART.y)  # outputs above -3.9
    loss = UNFORESEEN[name]
    assert not jumping(loss, data.y, ())
    with pytest.warns(JumpingLossWarning, match="among the outputs on the way of a run"):
        run = nth.gradient_flow(LINEAR, data, [0.5, 20.0], loss=loss, progress=False)
    assert TELLING in str(run)


@jax.custom_vjp
def half_squared(f, y):
    """Squared error with a gradient of its own, which JAX takes no further derivatives of."""
    return 0.5 * (f - y) ** 2


half_squared.defvjp(lambda f, y: (half_squared(f, y), f - y), lambda r, c: (c * r, -c * r))


def test_loss_with_a_gradient_of_its_own_takes_explicit_steps():
    own = nth.gradient_flow(NET, DATA, [0.5], loss=half_squared, progress=False)
    plain = nth.gradient_flow(NET, DATA, [0.5], progress=False)
    np.testing.assert_allclose(own.f, plain.f, rtol=1e-6)
    assert "no derivatives by which to tell stiffness" in str(own)


class Settled:
    """A loss by a setting that is read when it is called."""

    jumps = False

    def __call__(self, f, y):
        return jnp.abs(f - y) if type(self).jumps else (f - y) ** 2


def test_loss_that_has_come_to_jump_is_told(monkeypatch):
    loss, run = Settled(), {"run": [0.0, 0.1], "progress": False}
    assert TELLING not in str(nth.gradient_flow(NET, DATA, loss=loss, **run))
    monkeypatch.setattr(Settled, "jumps", True)
    with pytest.warns(JumpingLossWarning):
        assert TELLING in str(nth.gradient_flow(NET, DATA, loss=loss, **run))


def test_study_tells_of_jumps_that_only_its_runs_come_to():
    with pytest.warns(JumpingLossWarning, match="among the outputs on the way"):
        nth.width_scaling(
            lambda m, key: LINEAR, APART, [1], 1, (2,), [0.5], loss=UNFORESEEN["far out"],
            kernels=2, progress=False,
        )  # fmt: skip


def test_outputs_of_several_numbers_may_have_a_loss_of_ones_own():
    net = eqx.nn.MLP(3, 3, 4, 1, activation=jnp.tanh, key=jr.key(2))
    data = nth.Dataset(DATA.x, VECTORS)
    own = lambda f, y: 0.5 * jnp.sum((f - y) ** 2)  # noqa: E731
    runs = [nth.gradient_flow(net, data, [1.0], loss=loss) for loss in (own, nth.squared_error)]
    np.testing.assert_allclose(runs[0].f, runs[1].f, rtol=1e-12)
