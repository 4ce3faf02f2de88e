"""Networks are taken apart where calls are all that they do with their layers."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from networks import with_slope
from oracles import relative_error

import nthsim as nth
from nthsim.network.calls import Obstacle, calls_of
from nthsim.network.split import split

X = jr.normal(jr.key(0), (3, 4))


class Net(eqx.Module):
    """Two layers, used as `how` says."""

    a: eqx.nn.Linear
    b: eqx.nn.Linear
    square: eqx.nn.Linear | None
    how: object = eqx.field(static=True)

    def __call__(self, x):
        return self.how(self, x)  # pyright: ignore[reportCallIssue]


def net(how, *, square=False):
    keys = jr.split(jr.key(1), 3)
    a, b = eqx.nn.Linear(4, 5, key=keys[0]), eqx.nn.Linear(5, "scalar", key=keys[1])
    between = eqx.nn.Linear(5, 5, use_bias=False, key=keys[2]) if square else None
    return Net(a, b, between, how)


def chosen(layer, x):
    return jnp.tanh(layer(x)) if isinstance(layer, eqx.nn.Linear) else layer(x)


def branching(self, x):
    h = self.a(x)
    return jax.lax.cond(x[0] > 0, lambda h: jnp.tanh(h).sum(), lambda h: h.sum(), h) + self.b(h)


ANSWERED = {
    "isinstance": lambda self, x: self.b(chosen(self.a, x)),
    "attributes": lambda self, x: self.b(self.a(x) ** 2) / self.a.weight.shape[0],
    "a default": lambda self, x: self.b(jnp.sin(self.a(x)) * getattr(self.a, "out_features", 1)),
    "twice": lambda self, x: self.b(jnp.tanh(self.a(jnp.tanh(self.a(x)[:4])))),
    "a branch between calls": branching,
}


@pytest.mark.parametrize("order", [2, 3])
@pytest.mark.parametrize("how", ANSWERED)
def test_layers_answer_what_they_are_asked(how, order):
    model = net(ANSWERED[how])
    kernels = [
        nth.kernel(model, X, order, method=method, progress=False)
        for method in ("structured", "nested")
    ]
    assert relative_error(*kernels) < 1e-12


def frozen(layer):
    return jax.tree.map(lambda p: jax.lax.stop_gradient(p) if p.ndim == 1 else p, layer)


REFUSED = {
    "a frozen bias": (lambda s, x: s.b(jnp.tanh(frozen(s.a)(x))), "`model.a`.*changes its bias"),
    "its exact type": (
        lambda s, x: s.b(jnp.tanh(s.a(x)) if type(s.a) is eqx.nn.Linear else s.a(x)),
        "only call `model.a`.*its exact type",
    ),
    "a penalty": (lambda s, x: s.b(s.a(x)) + jnp.sum(s.a.weight**2), "the weight of `model.a`"),
    "its bias": (lambda s, x: s.b(s.a(x)) + jnp.sum(s.b.bias), "the bias of `model.b`"),
    "another call": (lambda s, x: s.b(eqx.nn.Linear.__call__(s.a, x)), "call `model.a`"),
    "columns": (
        lambda s, x: s.b(jnp.tanh(s.square(s.a(x)[:, None]))[:, 0]),
        "`model.square` on one v",
    ),
    "a batch": (lambda s, x: s.b(jax.vmap(s.a)(x[None])[0]), "`model.a` on one input at a time"),
}


@pytest.mark.parametrize("how", REFUSED)
def test_model_that_does_more_is_left_whole_and_told_why(how):
    function, piece = REFUSED[how]
    model = net(function, square=how == "columns")
    with pytest.raises(ValueError, match=rf"^`model` must .*{piece}"):
        nth.kernel(model, X, 2, method="structured", progress=False)
    data = nth.Dataset(X, np.array([1.0, -1.0, 0.5]))
    runs = [
        nth.hierarchy(model, data, 2, [0.0, 0.2], method=method, progress=False)
        for method in ("series", "dense")
    ]
    # Both meet their tolerance of 1e-7.
    np.testing.assert_allclose(runs[0].f, runs[1].f, rtol=1e-5)
    assert "Taylor arithmetic all through (`model` must" in str(runs[0].method)


def with_gradient(slope):
    @jax.custom_vjp
    def act(z):
        return jnp.tanh(z)

    act.defvjp(lambda z: (act(z), None), lambda _, dz: (slope * dz,))
    return act


def with_curvature(slope):
    """The derivative is the same; its derivative is not."""
    inner = with_slope(slope)

    @jax.custom_jvp
    def act(z):
        return jnp.sin(z)

    @act.defjvp
    def act_jvp(z, dz):
        return act(*z), inner(*z) * dz[0]

    return act


#: Pairs of functions that one exact type is given one of, and others the other.
TWINS = {
    made.__name__: (made(1.0), made(2.0)) for made in (with_slope, with_gradient, with_curvature)
}


def by_type(one, other):
    return lambda s, x: s.b((one if type(s.a) is eqx.nn.Linear else other)(s.a(x)))


def closing_over_what_is_traced(self, x):
    scale = 1 + x[0]

    @jax.custom_jvp
    def act(z):
        return jnp.sin(z) * scale

    act.defjvp(lambda at, by: (act(*at), jnp.cos(at[0]) * by[0] * scale))
    jax.debug.callback(lambda z: None, x)
    return self.b(act(self.a(x)))


def test_derivative_of_what_is_made_in_the_call_is_no_obstacle():
    model = net(closing_over_what_is_traced)
    kernels = [nth.kernel(model, X, 2, method=m, progress=False) for m in ("structured", "nested")]
    assert relative_error(*kernels) < 1e-12


@pytest.mark.filterwarnings("ignore::nthsim.network.same_functions.RecompilationWarning")
@pytest.mark.parametrize("name", TWINS)
def test_exact_type_is_seen_to_choose_between_functions_of_one_name(name):
    model = net(by_type(*TWINS[name]))
    with pytest.raises(ValueError, match=r"only call `model.a`.*its exact type"):
        nth.kernel(model, X, 2, method="structured", progress=False)


def test_bias_of_another_shape_makes_no_layer():
    model = net(lambda s, x: s.b(jnp.tanh(s.a(x))))
    with jax.numpy_rank_promotion("allow"):
        model = eqx.tree_at(lambda m: m.a.bias, model, jnp.array(0.3))
        kernel = nth.kernel(model, X, 2, progress=False)
        theta, static = eqx.partition(model, eqx.is_inexact_array)
        f = lambda theta: jax.vmap(eqx.combine(theta, static))(X)  # noqa: E731
        jacobian = [g.reshape(3, -1) for g in jax.tree.leaves(jax.jacrev(f)(theta))]
    J = jnp.concatenate(jacobian, axis=1)
    assert relative_error(kernel, J @ J.T) < 1e-12


def test_proof_is_made_once_for_shapes():
    count = []

    def counting(self, x):
        count.append(1)
        return self.b(jnp.tanh(self.a(x)))

    network, theta = split(net(counting))
    first = calls_of(network, theta, X[0])
    traces = len(count)
    assert calls_of(network, jax.tree.map(jnp.negative, theta), X[1]) == first
    assert len(count) == traces
    with pytest.raises(Obstacle):
        calls_of(*split(net(REFUSED["a batch"][0])), X[0])
