"""The exponential pair: exact where it should be, of fourth order, and indifferent to stiffness."""

import diffrax as dfx
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from networks import NETWORKS
from oracles import Product
from scipy.integrate import solve_ivp
from scipy.linalg import expm

import nthsim as nth
from nthsim.solvers import Auto, Explicit, Exponential, Implicit, Until
from nthsim.solvers.dense_hierarchy import DenseHierarchy
from nthsim.solvers.integration import integrate
from nthsim.solvers.krogstad import Krogstad
from nthsim.solvers.linearisation import Increment, linearised

pytestmark = pytest.mark.slow

N = 5


def hierarchy(top_rate, order=3, seed=0):
    """A truncation with tangent kernel eigenvalues from 1 to `top_rate`, times n, and a weak K3."""
    keys = jr.split(jr.key(seed), 4)
    basis = jnp.linalg.qr(jr.normal(keys[0], (N, N)))[0]
    kernel = N * (basis * jnp.geomspace(1.0, top_rate, N)[None]) @ basis.T
    kernels = [jr.normal(keys[1], (N,)), kernel]
    for r in range(3, order + 1):
        tensor = jr.normal(keys[r - 1], (N,) * r)
        kernels.append(tensor + jnp.swapaxes(tensor, 0, 1))
    y = jr.normal(keys[3], (N,))
    return DenseHierarchy(
        kernels=tuple(kernels),
        residual=lambda f: (f - y.reshape(f.shape)) / N,
        risk=lambda f: jnp.mean((f.reshape(-1) - y) ** 2) / 2,
        samples=N,
        quadratic=True,
    )


def flat(state):
    return np.concatenate([np.asarray(level).ravel() for level in state])


def by_scipy(system, t1):
    """Radau's solution, with a tolerance far below what is compared."""
    state = system.initial()
    sizes = np.cumsum([level.size for level in state])[:-1]

    @jax.jit
    def field(vector):
        parts = jnp.split(vector, sizes)
        levels = tuple(p.reshape(level.shape) for p, level in zip(parts, state, strict=True))
        return jnp.concatenate([level.ravel() for level in system.field(levels)])

    jacobian = jax.jit(jax.jacfwd(field))
    done = solve_ivp(
        lambda t, v: np.asarray(field(v)),
        (0, t1),
        flat(state),
        "Radau",
        rtol=1e-12,
        atol=1e-13,
        jac=lambda t, v: np.asarray(jacobian(v)),
    )
    return done.y[:, -1]


@eqx.filter_jit
def stepped(system, dt0, t1):
    """The state after equal steps; one compilation for any number of them."""
    term = dfx.ODETerm(lambda t, y, args: args.field(y))
    steps = {"t0": 0.0, "t1": t1, "dt0": dt0, "max_steps": None}
    return dfx.diffeqsolve(term, Krogstad(), y0=system.initial(), args=system, **steps).ys


def by_steps(system, t1, steps):
    return flat(jax.tree.map(lambda y: y[-1], stepped(system, jnp.array(t1 / steps), t1)))


@pytest.mark.parametrize(("top_rate", "least"), [(2.0, 3.8), (1e4, 2.0)], ids=["mild", "stiff"])
def test_order_is_four_and_less_where_it_is_stiff(top_rate, least):
    # Measured: 4.00, and 2.6 where all steps are longer than the fast time scales.
    system, t1 = hierarchy(top_rate, order=3), 0.8
    exact, counts = by_scipy(system, t1), [16, 64, 256]
    errors = [np.abs(by_steps(system, t1, count) - exact).max() for count in counts]
    slope = -np.polyfit(np.log(counts), np.log(errors), 1)[0]
    assert least < slope < 5.5
    assert errors[-1] < 1e-7


@pytest.mark.parametrize("top_rate", [1e2, 1e6])
def test_steps_do_not_grow_with_the_condition_number(top_rate):
    system, solver = hierarchy(top_rate), Exponential(rtol=1e-6)
    solution = integrate(system, np.array([3.0]), solver)
    assert solution.stats.steps < 60
    np.testing.assert_allclose(flat(solution.state), by_scipy(system, 3.0), rtol=1e-5, atol=1e-5)


def test_order_two_with_squared_loss_is_solved_in_closed_form():
    system, ts = hierarchy(1e6, order=2), np.array([0.0, 1e-3, 0.7, 100.0])
    solution = integrate(system, ts, Auto())
    f0, kernel = (np.asarray(level) for level in system.kernels)
    y = f0 - N * np.asarray(system.residual(system.kernels[0]))
    rates, basis = np.linalg.eigh(kernel)
    decay = np.exp(-rates * ts[:, None] / N)
    expected = y + (basis @ (decay * (basis.T @ (f0 - y))).T).T
    np.testing.assert_allclose(solution.records["f"], expected, atol=1e-12)
    assert solution.stats.steps == 0
    # No Runge-Kutta stage is left in it, so that no method of that kind is named.
    assert solution.choice == "closed form: constant kernel, quadratic loss"


def test_logistic_curve_of_a_product_of_two():
    # V7, Saxe's mode equation, as in test_parameter_flow.
    y, w, ts = 2.0, 0.3, np.linspace(0.0, 30.0, 7)
    data = nth.Dataset([[1.0]], [y])
    flow = nth.gradient_flow(
        Product(jnp.full(2, w)), data, nth.Run(ts, solver=Exponential(rtol=1e-10))
    )
    expected = y / (1 + (y / w**2 - 1) * np.exp(-2 * y * ts))
    np.testing.assert_allclose(flow.f[:, 0], expected, rtol=1e-8)


def data_for(outputs: bool):
    keys = jr.split(jr.key(7), 3)
    x, x_test = jr.normal(keys[0], (5, 4)), jr.normal(keys[1], (2, 4))
    y = jax.nn.one_hot(jnp.arange(5) % 3, 3) if outputs else jr.normal(keys[2], (5,))
    return nth.Dataset(x, y, x_test)


@pytest.mark.parametrize(
    ("name", "order", "method"),
    [
        ("mlp with biases", None, ""),
        ("mlp of three outputs", None, ""),
        ("fcn", 3, "dense"),
        ("mlp of three outputs", 3, "dense"),
        ("fcn", 3, "series"),
    ],
    ids=["flow", "entropy flow", "dense", "entropy dense", "series"],
)
def test_exponential_and_explicit_steps_end_alike(name, order, method):
    outputs, model, ts = "outputs" in name, NETWORKS[name], [0.0, 1.0, 8.0]
    loss = nth.softmax_cross_entropy if outputs else nth.squared_error

    def run(solver):
        how = nth.Run(ts, solver=solver)
        if order is None:
            return nth.gradient_flow(model, data_for(outputs), how, loss=loss)
        return nth.hierarchy(model, data_for(outputs), order, how, method=method, loss=loss)

    one, other = run(Exponential(rtol=1e-8)), run(Explicit(rtol=1e-9))
    np.testing.assert_allclose(one.f, other.f, atol=1e-6)
    assert one.f_test is not None and other.f_test is not None  # noqa: PT018
    np.testing.assert_allclose(one.f_test, other.f_test, atol=1e-6)
    assert np.ptp(other.f) > 0.1


def test_linear_part_acts_as_its_matrix_does():
    system, h = hierarchy(50.0), 0.3
    state, linear = system.initial(), linearised(system, system.initial())
    vector, unravel = ravel_pytree(state)

    def linear_part(v):
        pulled = system.pull(state, system.push(state, unravel(v)) / N)
        return -ravel_pytree(pulled)[0]

    matrix = np.asarray(jax.jacfwd(linear_part)(vector))
    direction = jnp.cos(1.0 + jnp.arange(vector.size, dtype=float))
    start = Increment(unravel(direction), jnp.zeros(N), linear.seen(system, unravel(direction)))
    damped = linear.combined(jnp.array(h), 1.0, [({0: 1.0}, start)])
    found = flat(linear.whole(system, damped))
    np.testing.assert_allclose(found, h * expm(h * matrix) @ direction, atol=1e-12)
    seen = linear.seen(system, unravel(jnp.asarray(found)))
    np.testing.assert_allclose(damped.seen, seen, atol=1e-12)


def test_diffrax_interpolates_between_exponential_steps():
    system, t = hierarchy(3.0), 0.35
    solution = dfx.diffeqsolve(
        dfx.ODETerm(lambda t, y, args: args.field(y)),
        Krogstad(),
        t0=0.0,
        t1=0.4,
        dt0=0.02,
        y0=system.initial(),
        args=system,
        saveat=dfx.SaveAt(dense=True),
    )
    np.testing.assert_allclose(flat(solution.evaluate(t)), by_scipy(system, t), atol=1e-6)


def test_stiff_run_is_given_to_exponential_steps_with_the_reason():
    system = hierarchy(1e5)
    solution = integrate(system, np.array([20.0]), Auto(rtol=1e-5))
    assert solution.choice.startswith("Krogstad")
    assert "stiff: explicit steps would be" in solution.choice


@pytest.mark.parametrize(("horizon", "needed"), [(1.0, "one step"), (10.0, "6 steps")])
def test_gentle_run_is_given_to_explicit_steps_with_the_reason(horizon, needed):
    # The fastest rate is 2, and Tsit5 is stable with steps of 3.5 over that.
    gentle = integrate(hierarchy(2.0), np.array([horizon]), Auto(rtol=1e-5))
    assert gentle.choice.startswith("Tsit5")
    assert gentle.choice.endswith(f"; not stiff: stability alone would need {needed})")


def test_progress_counts_save_times_where_steps_grow_and_falls_of_the_loss_that_is_the_aim():
    system, ts = hierarchy(1e4), np.geomspace(1e-3, 1e3, 8)
    parts: list[float] = []
    integrate(system, ts, Exponential(rtol=1e-4), report=parts.append)
    assert parts == sorted(parts)
    assert {round(8 * part, 9) for part in parts} >= set(range(1, 9))  # each time ends a call
    first, parts = float(system.loss(system.initial())), []
    until = Until(loss=1e-3 * first)
    integrate(system, ts[-1:], Exponential(rtol=1e-4), until=until, report=parts.append)
    assert parts == sorted(parts)
    assert parts[-1] == 1


def test_single_precision_stays_near_the_double_one():
    double, data = NETWORKS["mlp with biases"], data_for(outputs=False)
    single = jax.tree.map(lambda a: a.astype(jnp.float32) if eqx.is_array(a) else a, double)
    run = nth.gradient_flow(single, data, nth.Run([8.0], solver=Exponential(rtol=1e-4)))
    exact = nth.gradient_flow(double, data, nth.Run([8.0], solver=Exponential(rtol=1e-8)))
    assert run.f.dtype == np.float32
    np.testing.assert_allclose(run.f, exact.f, atol=1e-4)
    with pytest.raises(ValueError, match=r"`rtol` must be at least .* in float32"):
        nth.gradient_flow(single, data, nth.Run([8.0], solver=Exponential(rtol=1e-7)))


def test_explicit_steps_go_on_where_exponential_ones_fail(monkeypatch):
    # As if the error of a long step could never be met: the step size falls to the rounding of t.
    system, step = hierarchy(1e4), Krogstad.step

    def hopeless(self, terms, t0, t1, y0, args, solver_state, made_jump):
        y1, error, *others = step(self, terms, t0, t1, y0, args, solver_state, made_jump)
        return y1, jax.tree.map(lambda e: e + jnp.where(t0 > 0.5, 1e9, 0.0), error), *others

    exact = by_scipy(system, 3.0)
    monkeypatch.setattr(Krogstad, "step", hopeless)
    solution = integrate(system, np.array([3.0]), Auto(rtol=1e-5))
    assert solution.stop.reason == "horizon"
    assert "; from t = 0.5" in solution.choice
    assert "on Tsit5" in solution.choice
    np.testing.assert_allclose(flat(solution.state), exact, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("half", [jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("solver", [Exponential, Implicit])
def test_solvers_that_factor_matrices_are_refused_in_half_precision(solver, half):
    net = eqx.nn.Linear(3, "scalar", dtype=half, key=jr.key(0))
    data = nth.Dataset(jnp.eye(3), jnp.ones(3))
    name = jnp.dtype(half).name
    with pytest.raises(ValueError, match=f"`solver` must be Auto or Explicit in {name}, but is"):
        nth.gradient_flow(net, data, nth.Run([0.0, 0.5], solver=solver(rtol=0.2)))
    with pytest.raises(ValueError, match=f"must be in float32 or float64 for .*, but is in {name}"):
        nth.perturbation(net, data, nth.Run([0.0, 0.5], solver=Auto(rtol=0.2)))
    study = nth.compare(net, data, (2,), nth.Run([0.0, 0.5], solver=Auto(rtol=0.2)), certify=False)
    assert len(study.to_dataframe()) == 4


def kinked():
    """A network of relu, and targets near its outputs, which stay near kinks."""
    x = np.random.default_rng(1).normal(size=(5, 3))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    net = eqx.nn.MLP(3, "scalar", 6, 1, jax.nn.relu, key=jr.key(3))
    y = jax.vmap(net)(jnp.asarray(x)) + 0.12 * jnp.array([1.0, -1.0, 0.5, 0.3, -0.8])
    return nth.Dataset(x, y), net


def test_explicit_steps_go_on_where_kinks_cost_exponential_ones_as_much_as_they_would():
    data, net = kinked()
    flow = nth.gradient_flow(net, data, [0.0, 10.0, 3000.0], progress=False)
    assert flow.stop.reason == "horizon"
    assert "Krogstad" in str(flow)
    assert "on Dopri8" in str(flow)
    assert flow.stats.forced > 0


def test_run_goes_on_from_a_checkpoint_by_the_steps_that_it_fell_back_to(tmp_path):
    data, net = kinked()
    run = nth.Run([0.0, 10.0, 3000.0], checkpoint=tmp_path)
    whole = nth.gradient_flow(net, data, run.ts, progress=False)
    short = nth.Run(run.ts, checkpoint=tmp_path, solver=Auto(max_steps=2000), throw=False)
    begun = nth.gradient_flow(net, data, short, progress=False)
    assert begun.stop.reason == "step limit"
    assert "on Dopri8" in str(begun)
    found = nth.gradient_flow(net, data, run, progress=False)
    assert found.stats.steps == whole.stats.steps
    np.testing.assert_array_equal(found.f, whole.f)
