"""Inputs that are whole numbers stay so for a network that takes only those."""

from collections.abc import Callable

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import nthsim as nth

TOKENS = np.array([[0, 3, 6], [2, 2, 5], [1, 4, 0], [6, 1, 3]], np.uint8)
WORDS, FEATURES = 7, 3
STARTS = nth.Run([0.0, 0.5])


class Lookup(eqx.Module):
    """Looks each token up in a table, and goes on with all of them."""

    table: eqx.nn.Embedding
    rest: eqx.nn.MLP

    def __call__(self, x):
        return self.rest(jax.vmap(self.table)(x).reshape(-1))


class Product(eqx.Module):
    """The same network of one-hot rows, as a product with the table."""

    table: jax.Array
    rest: eqx.nn.MLP

    def __call__(self, x):
        return self.rest((x @ self.table).reshape(-1))


@pytest.fixture(scope="module")
def networks():
    rest = eqx.nn.MLP(3 * FEATURES, "scalar", 5, 1, activation=jnp.tanh, key=jr.key(0))
    table = eqx.nn.Embedding(WORDS, FEATURES, key=jr.key(1))
    return Lookup(table, rest), Product(table.weight, rest)


@pytest.fixture(scope="module")
def data():
    y, rows = [1.0, -1.0, 0.5, 0.2], np.eye(WORDS)[TOKENS]
    return nth.Dataset(TOKENS, y, TOKENS[:1]), nth.Dataset(rows, y, rows[:1])


@pytest.mark.parametrize("method", ["nested", "structured"])
def test_kernels_of_tokens_are_those_of_one_hot_rows(networks, data, method):
    lookup, product = (
        nth.kernel(net, each.x, 3, method=method, progress=False)
        for net, each in zip(networks, data, strict=True)
    )
    np.testing.assert_allclose(lookup, product, rtol=1e-12, atol=1e-12)


@pytest.fixture(scope="module")
def studies(networks, data):
    curves = (nth.Order(3, method="dense"), nth.Order(2, method="series"), nth.Taylor(2))
    return [
        nth.compare(net, each, curves, STARTS, certify=False, progress=False)
        for net, each in zip(networks, data, strict=True)
    ]


def test_dynamics_on_tokens_are_those_on_one_hot_rows(studies):
    lookup, product = studies
    for one, other in (
        (lookup.exact, product.exact),
        *zip(lookup.curves.values(), product.curves.values(), strict=True),
    ):
        assert one.f_test is not None
        assert other.f_test is not None
        np.testing.assert_allclose(one.f, other.f, rtol=1e-10)
        np.testing.assert_allclose(one.f_test, other.f_test, rtol=1e-10)
        for name, values in one.records.items():
            np.testing.assert_allclose(values, other.records[name], rtol=1e-9, atol=1e-10)


def test_study_of_tokens_is_saved_with_them(studies, networks, tmp_path):
    studies[0].save(tmp_path / "tokens.nc")
    again = nth.Comparison.load(tmp_path / "tokens.nc", model=networks[0])
    assert again.asked.data.x.dtype == studies[0].asked.data.x.dtype
    np.testing.assert_array_equal(again.asked.data.x, TOKENS)


class Wrapped(Lookup):
    """The same, which takes tokens modulo the size of its table first."""

    def __call__(self, x):
        return super().__call__(x % WORDS)


NONE = r"`x(_test)?` must hold indices from 0 on, below .*, 7, but x(_test)?\[2\] makes"


def with_token(token):
    x = np.array(TOKENS, np.int64)
    x[2, 1] = token
    return x


@pytest.mark.parametrize("token", [WORDS, -1, 2**40])
def test_tokens_that_the_table_has_no_row_for_are_refused(networks, token):
    with pytest.raises(ValueError, match=NONE):
        nth.kernel(networks[0], jnp.asarray(with_token(token)), 2, progress=False)


def test_data_with_tokens_that_the_table_has_no_row_for_are_refused(networks):
    x, y = with_token(WORDS), np.ones(4)
    for data in (nth.Dataset(x, y), nth.Dataset(TOKENS, y, x)):
        with pytest.raises(ValueError, match=NONE):
            nth.gradient_flow(networks[0], data, [0.0])


def test_tokens_that_a_model_brings_into_its_table_are_its_own_affair(networks):
    x = with_token(-1)
    wrapped = Wrapped(networks[0].table, networks[0].rest)
    kernel = nth.kernel(wrapped, jnp.asarray(x), 2, progress=False)
    right = nth.kernel(networks[0], jnp.asarray(x % WORDS), 2, progress=False)
    np.testing.assert_allclose(kernel, right, rtol=1e-12)


class Padded(Lookup):
    """The same, for which -1 stands where no token is."""

    def __call__(self, x):
        rows = jax.vmap(self.table)(x) * jnp.where(x >= 0, 1.0, 0.0)[:, None]
        return self.rest(rows.reshape(-1))


def test_rows_that_outputs_do_not_depend_on_may_be_missing(networks):
    x = np.array([[0, 1, -1], [1, -1, -1]])
    masked = Padded(networks[0].table, networks[0].rest)
    assert np.isfinite(nth.kernel(masked, jnp.asarray(x), 2, progress=False)).all()


def test_missing_rows_that_a_readout_of_zero_hides_are_refused(networks):
    last = lambda net: net.rest.layers[-1]  # noqa: E731
    silent = eqx.tree_at(last, networks[0], jax.tree.map(jnp.zeros_like, last(networks[0])))
    with pytest.raises(ValueError, match=r"but x\[0\] makes the model look up others"):
        nth.kernel(silent, jnp.array([[0, 1, -1], [1, 0, 0]]), 2, progress=False)


class Rows(eqx.Module):
    """Rows of an array of its own, found in some way, and all of them weighed."""

    rows: jax.Array
    readout: jax.Array
    find: Callable[[jax.Array, jax.Array], jax.Array] = eqx.field(static=True)

    def __call__(self, x):
        return jnp.tanh(self.find(self.rows, x)).reshape(-1) @ self.readout


def looked_up(find, readout=1.0):
    rows = jr.normal(jr.key(2), (WORDS, FEATURES))
    return Rows(rows, readout * jr.normal(jr.key(3), (3 * FEATURES,)), find)


def added(rows, x):
    return rows[x] + jnp.zeros(3).at[x % 3].add(1.0)[:, None]


class Wide(eqx.Module):
    """Rows of an array of its own in front of many more parameters."""

    rows: jax.Array
    rest: eqx.nn.MLP

    def __call__(self, x):
        return self.rest(self.rows[x].reshape(-1))


def wide(width, dtype):
    rest = eqx.nn.MLP(3 * FEATURES, "scalar", width, 1, activation=jnp.tanh, key=jr.key(0))
    net = Wide(jr.normal(jr.key(2), (WORDS, FEATURES)), rest)
    return jax.tree.map(lambda a: a.astype(dtype) if eqx.is_inexact_array(a) else a, net)


BEYOND = jnp.array([[0, 3, -1], [1, WORDS, 2]])
NETS = {
    "index": looked_up(lambda rows, x: rows[x]),
    "behind a readout of zero": looked_up(lambda rows, x: rows[x], 0.0),
    "beside a scatter": looked_up(added),
    "rematerialised": looked_up(jax.checkpoint(lambda rows, x: rows[x])),
    "before many parameters": wide(500, jnp.float32),
    "half precision": wide(5, jnp.bfloat16),
}


@pytest.mark.parametrize("name", NETS)
def test_entries_that_arrays_of_a_model_have_not_are_refused(name):
    # JAX takes the last row, and leaves it out of gradients alone: K^(2) is not symmetric.
    sentence = r"`x` must hold indices that arrays of the model have entries for, but x\[1\] makes"
    with pytest.raises(ValueError, match=sentence):
        nth.kernel(NETS[name], BEYOND, 2, progress=False)
    with pytest.raises(ValueError, match=sentence):
        nth.gradient_flow(NETS[name], nth.Dataset(BEYOND, np.ones(2)), [0.0])


@pytest.mark.parametrize("half", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_one_missing_entry_among_many_is_found_in_low_precision(half):
    rows, readout = (jr.normal(jr.key(i), shape, half) for i, shape in ((2, (5, 3)), (3, (3,))))
    net = Rows(rows, readout, lambda rows, x: jnp.mean(rows[x], axis=0))
    x = jr.randint(jr.key(4), (2, 1001), 0, 5)
    assert jnp.isfinite(nth.kernel(net, x, 2, progress=False)).all()
    with pytest.raises(ValueError, match=r"x\[1\] makes it look beyond an end"):
        nth.kernel(net, x.at[1, 7].set(5), 2, progress=False)


def test_entries_that_arrays_of_a_model_have_are_not_refused():
    kernel = nth.kernel(NETS["beside a scatter"], BEYOND[:1], 2, progress=False)
    assert np.isfinite(kernel).all()


class Solved(eqx.Module):
    """A neural ODE, of which Diffrax looks at what is saved beyond its end."""

    rate: jax.Array

    def __call__(self, x):
        term = diffrax.ODETerm(lambda t, y, rate: -rate * y)
        ys = diffrax.diffeqsolve(
            term, diffrax.Heun(), 0.0, 1.0, 0.1, x[0], args=self.rate,
            saveat=diffrax.SaveAt(ts=jnp.array([0.5, 1.0])), adjoint=diffrax.DirectAdjoint(),
        ).ys  # fmt: skip
        return jnp.sum(jnp.asarray(ys))


@pytest.mark.parametrize(
    "net",
    [
        looked_up(lambda rows, x: jnp.where((x < WORDS)[:, None], rows[x], 0.0)),
        looked_up(lambda rows, x: rows.at[x].get(mode="clip") + rows[x % WORDS]),
        looked_up(lambda rows, x: rows.at[x].get(mode="fill", fill_value=0.5) + rows[x % WORDS]),
        Solved(jnp.array(0.7)),
    ],
    ids=["masked", "clipped", "filled", "neural ODE"],
)
def test_entries_beyond_an_end_that_gradients_agree_on_are_what_the_model_is(net):
    x = BEYOND.astype(float) if isinstance(net, Solved) else BEYOND
    kernel = nth.kernel(net, x, 2, progress=False)
    np.testing.assert_allclose(kernel, kernel.T, rtol=1e-12)
    assert np.isfinite(jax.jit(lambda: nth.kernel(net, x, 2, progress=False))()).all()


def test_tables_are_those_of_the_moment():
    size = {"is": WORDS}
    net = looked_up(lambda rows, x: rows[x % size["is"]])
    assert np.isfinite(nth.kernel(net, BEYOND, 2, progress=False)).all()
    size["is"] = 100
    with pytest.raises(ValueError, match="beyond an end"):
        nth.kernel(net, BEYOND, 2, progress=False)


def test_tokens_that_half_precision_lacks_stay_themselves():
    table = eqx.nn.Embedding(300, FEATURES, key=jr.key(1))
    rest = eqx.nn.MLP(3 * FEATURES, "scalar", 5, 1, activation=jnp.tanh, key=jr.key(0))
    half = jax.tree.map(
        lambda a: a.astype(jnp.bfloat16) if eqx.is_inexact_array(a) else a, Lookup(table, rest)
    )
    x = jnp.array([[257, 0, 1], [256, 0, 1]])
    found = nth.kernel(half, x, 2, progress=False)
    assert found[0, 0] != found[1, 1]


def test_whole_numbers_that_the_precision_lacks_are_refused_where_the_network_takes_no_others():
    single = eqx.nn.Linear(1, "scalar", dtype=jnp.float32, key=jr.key(0))
    sentence = "must hold whole numbers that float32 has"
    big, small = jnp.array([[2**24 + 1], [2]]), jnp.array([[1], [2]])
    for promotion in ("strict", "standard"):
        with jax.numpy_dtype_promotion(promotion):
            with pytest.raises(ValueError, match=f"`x` {sentence}"):
                nth.kernel(single, big, 2, progress=False)
            with pytest.raises(ValueError, match=f"`x_first` {sentence}"):
                nth.kernel(single, small, 2, x_first=big, progress=False)


def test_targets_that_the_precision_lacks_are_refused_where_a_loss_may_read_indices_off_them():
    single = eqx.nn.Linear(1, "scalar", dtype=jnp.float32, key=jr.key(0))
    data = nth.Dataset([[1.0], [2.0]], np.array([2**24 + 1, 2]))
    own = lambda f, y: (f - y.astype(int) % 2) ** 2  # noqa: E731
    with jax.numpy_dtype_promotion("standard"):
        with pytest.raises(ValueError, match="`y` must hold whole numbers that float32 has"):
            nth.gradient_flow(single, data, [0.1], loss=own, progress=False)
        nth.gradient_flow(single, data, [1e-9], progress=False)  # to be come near to, no more


def by_indices(f, y):
    """The cross-entropy of a label, by an array of indices and one more term of its own."""
    return -jnp.sum(jax.nn.log_softmax(f)[y.astype(int)[None]]) + jnp.log1p(jnp.sum(f**2))


def of_probability(f, y):
    return -jnp.sum(jnp.log(f)[jnp.stack([y.astype(int)])])


@pytest.mark.parametrize("loss", [by_indices, of_probability])
@pytest.mark.parametrize("name", ["y", "y_test"])
def test_labels_that_a_loss_has_no_output_for_are_refused(loss, name):
    net = eqx.nn.Sequential([eqx.nn.Linear(2, 3, key=jr.key(0)), eqx.nn.Lambda(jax.nn.softmax)])
    x, good, bad = jr.normal(jr.key(1), (4, 2)), [0.0, 1.0, 2.0, 2.0], [1.0, 2.0, 3.0, 1.0]
    labels = {"y": good, "y_test": good} | {name: bad}
    data = nth.Dataset(x, labels["y"], x, labels["y_test"])
    with pytest.raises(ValueError, match=rf"^`{name}` must hold .* {name}\[2\] makes it look"):
        nth.gradient_flow(net, data, STARTS, loss=loss, progress=False)
    nth.plan(net, nth.Dataset(x, good, x, good), (2,), STARTS, loss=loss)
