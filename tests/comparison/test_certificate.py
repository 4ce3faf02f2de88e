"""The error of order p vanishes like t^p, for any network and loss."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from failing import failing

import nthsim as nth
from nthsim.comparison.certificate import SlopeWarning
from nthsim.inputs.jump import JumpingLossWarning
from nthsim.models import FCN, ResNet

pytestmark = pytest.mark.slow


def data(outputs=None):
    x_key, y_key = jr.split(jr.key(0))
    shape = (3,) if outputs is None else (3, outputs)
    return nth.Dataset(jr.normal(x_key, (3, 4)), jr.normal(y_key, shape)).normalised()


@pytest.mark.parametrize(
    "model",
    [
        eqx.nn.MLP(4, "scalar", 6, 1, activation=jax.nn.softplus, key=jr.key(1)),
        FCN(4, 8, 2, key=jr.key(2)),
        ResNet(4, 8, 2, activation="gelu", key=jr.key(3)),
    ],
    ids=["mlp with biases", "fcn", "resnet"],
)
def test_slopes_are_the_orders(model):
    found = nth.certificate(model, data(), (2, 3, 4, 5))
    np.testing.assert_allclose(found.slopes, [2, 3, 4, 5], atol=0.15)


def test_slopes_are_the_orders_for_vector_outputs_and_cross_entropy():
    one_hot = nth.Dataset(data().x, jax.nn.one_hot(jnp.array([0, 2, 1]), 3))
    model = FCN(4, 5, 1, out_size=3, activation="erf", key=jr.key(4))
    found = nth.certificate(model, one_hot, (2, 3, 4, 5), loss=nth.softmax_cross_entropy)
    np.testing.assert_allclose(found.slopes, [2, 3, 4, 5], atol=0.15)


def test_slopes_are_the_orders_for_the_logistic_loss_and_any_other():
    signs = nth.Dataset(data().x, jnp.sign(data().y))
    model = FCN(4, 6, 1, key=jr.key(5))
    quartic = lambda f, y: (f - y) ** 4  # noqa: E731
    for loss, orders in ((nth.logistic, (2, 3)), (quartic, (2,))):
        found = nth.certificate(model, signs, orders, loss=loss)
        np.testing.assert_allclose(found.slopes, orders, atol=0.15)


def test_truncation_that_is_exact_has_no_slope():
    # A linear model's kernel never moves: order 2 is its training.
    found = nth.certificate(eqx.nn.Linear(4, "scalar", key=jr.key(6)), data(), (2,))
    assert np.isnan(found.slopes).all()
    assert "order 2: below rounding" in str(found)


def test_loss_without_curvature_has_a_time_scale_all_the_same():
    # |f - y| pulls with constant force: f moves along straight lines until the kernel drifts.
    absolute = lambda f, y: jnp.abs(f - y)  # noqa: E731
    with pytest.warns(JumpingLossWarning):
        found = nth.certificate(FCN(4, 6, 1, key=jr.key(8)), data(), (2, 3), loss=absolute)
    np.testing.assert_allclose(found.slopes, [2, 3], atol=0.15)


@jax.custom_jvp
def half_wrong(z):
    """The sine with the right derivative and a wrong second one, zero."""
    return jnp.sin(z)


half_wrong.defjvp(lambda at, by: (half_wrong(at[0]), jax.lax.stop_gradient(jnp.cos(at[0])) * by[0]))


def test_function_whose_derivative_is_not_its_own_is_told_by_its_slope():
    model = eqx.nn.MLP(4, "scalar", 6, 1, activation=half_wrong, key=jr.key(1))
    orders = [nth.Order(p, method="dense") for p in (2, 3)]
    with pytest.warns(SlopeWarning, match=r"slope 2.00 at order 3: not the order, which"):
        found = nth.certificate(model, data(), orders)
    # Kernels differentiate once more than the field: from order 3 on they are another network's.
    np.testing.assert_allclose(found.slopes, [2, 2], atol=0.05)
    assert found.broken == (3,)


def certificate_of(orders, slopes, ends, reached=True):
    """A certificate with these slopes, fitted up to these parts of the last time."""
    ts = np.geomspace(1e-4, 1.0, 5)
    errors = np.full((len(orders), 5), 1.0 if reached else np.nan)
    windows = np.stack([np.array(ends) / 4, np.array(ends)], axis=1)
    return nth.Certificate(orders, ts, errors, np.array(slopes), windows)


def test_slopes_near_their_orders_say_nothing():
    found = certificate_of((2, 3, 4, 5), [1.99, 3.0, 4.2, 4.6], [0.01] * 4)
    assert found.verdicts() == []
    assert found.broken == ()


@pytest.mark.parametrize(
    ("slope", "end", "said"),
    [
        (2.0, 0.01, "slope 2.00 at order 4: not the order"),
        (6.0, 0.01, "slope 6.00 at order 4: larger than the order"),
        (3.0, 0.5, "slope 3.00 at order 4: says little"),
        (5.0, 0.5, "slope 5.00 at order 4: says little"),
        (np.nan, np.nan, "order 4: no slope, as the error hardly leaves rounding"),
    ],
)
def test_slope_that_is_not_near_its_order_is_told_in_words(slope, end, said):
    found = certificate_of((2, 4), [2.0, slope], [0.01, end])
    (verdict,) = found.verdicts()
    assert verdict.startswith(said)
    assert " ".join(verdict.split()[:6]) in " ".join(str(found).split())
    assert found.broken == ((4,) if "not the order" in said else ())


def test_order_that_did_not_reach_small_times_has_no_slope_and_says_why():
    (verdict,) = certificate_of((3,), [np.nan], [np.nan], reached=False).verdicts()
    assert verdict.startswith("order 3: no slope, as it was not integrated")


def test_interrupt_is_passed_on_whenever_it_comes():
    def computed(kind):
        nth.certificate(kind(4, 6, 1, key=jr.key(9)), data(), (nth.Order(2, method="dense"),))
        return len(kind.calls)

    for after in range(computed(failing(None))):
        with pytest.raises(KeyboardInterrupt):
            computed(failing(KeyboardInterrupt, after))


def test_single_precision_is_refused():
    single = jax.tree.map(lambda a: a.astype(jnp.float32), FCN(4, 6, 1, key=jr.key(7)))
    with pytest.raises(ValueError, match="`model` must be in float64 to be certified, but is fl"):
        nth.certificate(single, data(), (2,))
