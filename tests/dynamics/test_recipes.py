"""A model comes back from its recipe exactly, or one sentence says what is missing."""

import json
import re
import subprocess
import sys

import diffrax as dfx
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import nthsim as nth
from nthsim.dynamics import recipes
from nthsim.models import FCN, ResNet
from nthsim.results.record import Record, fingerprint
from nthsim.solvers import Auto, Explicit

NETS = {
    "fcn": FCN(3, 4, 2, key=jr.key(0)),
    "vector fcn": FCN(
        3, 4, 1, out_size=2, activation="gelu", c_sigma="auto", weight_scale=1.5,
        readout_scale=0.0, init="orthogonal", key=jr.key(1),
    ),
    "resnet": ResNet(3, 4, 3, activation="erf", c_res=0.3, key=jr.key(2)),
}  # fmt: skip


class Dictionary(eqx.Module):
    """Names that netCDF would refuse, and one that it needs for itself."""

    parts: dict[str, jax.Array]
    time: jax.Array
    steps: jax.Array

    def __call__(self, x: jax.Array) -> jax.Array:
        return sum(self.parts.values(), self.time) * x[0]


def _through_json(record: Record) -> Record:
    return Record(record.arrays, json.loads(json.dumps(record.facts)))


@pytest.mark.parametrize("net", NETS.values(), ids=NETS)
def test_network_comes_back_from_its_recipe_alone(net):
    assert eqx.tree_equal(recipes.restore(_through_json(recipes.store(net))), net)


def test_parameters_are_named_by_their_path():
    assert list(recipes.store(NETS["fcn"]).arrays) == [
        "layers.0.weight",
        "layers.1.weight",
        "readout.weight",
    ]


def test_precision_of_the_parameters_comes_back():
    net = jax.tree.map(lambda w: w.astype(jnp.float32), NETS["resnet"])
    assert eqx.tree_equal(recipes.restore(recipes.store(net)), net)


@pytest.mark.parametrize(
    "net",
    [
        eqx.nn.MLP(3, "scalar", 4, 1, key=jr.key(0)),
        FCN(3, 4, 1, activation=jnp.tanh, key=jr.key(0)),
        eqx.tree_at(lambda n: n.readout, NETS["fcn"], eqx.nn.Linear(4, "scalar", key=jr.key(0))),
        eqx.tree_at(lambda n: n.readout.weight, NETS["fcn"], jnp.ones((1, 5))),
    ],
    ids=["another module", "callable activation", "another readout", "another shape"],
)
def test_other_networks_come_back_with_a_model_of_the_same_structure(net):
    record = _through_json(recipes.store(net))
    assert recipes.restore(record) is None
    blank = jax.tree.map(lambda w: jnp.zeros_like(w) if eqx.is_array(w) else w, net)
    assert eqx.tree_equal(recipes.restore(record, blank), net)


def test_names_of_parameters_are_fit_for_netcdf_and_all_different():
    ones = jnp.ones(2)
    net = Dictionary({"a/b": ones, "a b": 2 * ones, "": 3 * ones}, 4 * ones, jnp.array(5))
    record = recipes.store(net)
    assert len(record.arrays) == 4  # the integers are no parameters
    assert all(re.fullmatch(r"[\w.]+", name) for name in record.arrays)
    assert eqx.tree_equal(recipes.restore(record, net), net)


@pytest.mark.parametrize(
    ("width", "depth", "sentence"),
    [
        (4, 1, "of shape (4, 4) at layers.1.weight, but has no such parameter."),
        (5, 2, "of shape (4, 3) at layers.0.weight, but has shape (5, 3)."),
        (4, 3, "nothing at layers.2.weight, but has shape (4, 4)."),
    ],
)
def test_model_of_another_structure_is_refused(width, depth, sentence):
    like = FCN(3, width, depth, key=jr.key(0))
    start = "`model` must have the parameters of the file, "
    with pytest.raises(ValueError, match=f"^{re.escape(start + sentence)}$"):
        recipes.restore(recipes.store(NETS["fcn"]), like)


def test_double_precision_is_not_lost_in_silence():
    code = """
import numpy as np, jax, jax.random as jr
from nthsim.dynamics import recipes
from nthsim.models import FCN
record = recipes.store(FCN(2, 3, 1, key=jr.key(0)))
record.arrays.update({name: a.astype(np.float64) for name, a in record.arrays.items()})
try:
    recipes.restore(record)
except ValueError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == (
        "`jax_enable_x64` must be True to load parameters in float64, but is False: call "
        'jax.config.update("jax_enable_x64", True) first.\n'
    )


def test_fingerprint_changes_with_every_bit():
    arrays = {"a": np.zeros(3), "b": np.ones(2)}
    prints = [
        fingerprint(arrays),
        fingerprint({"a": np.array([0.0, -0.0, 0.0]), "b": np.ones(2)}),
        fingerprint({"a": np.zeros((3, 1)), "b": np.ones(2)}),
        fingerprint({"a": np.zeros(3, np.float32), "b": np.ones(2)}),
        fingerprint({"b": np.zeros(3), "a": np.ones(2)}),
    ]
    assert len(set(prints)) == len(prints)
    assert fingerprint(dict(reversed(arrays.items()))) == prints[0]


def test_description_is_one_line():
    assert recipes.describe(NETS["resnet"]) == (
        "ResNet, width 4, depth 3, erf: 48 parameters in float64"
    )
    mlp = eqx.nn.MLP(3, "scalar", 4, 1, key=jr.key(0))
    assert recipes.describe(mlp) == "MLP, width 4, depth 1: 21 parameters in float64"
    line = eqx.nn.Linear(3, "scalar", key=jr.key(0))
    assert recipes.describe(line) == "Linear: 4 parameters in float64"


@pytest.mark.parametrize("loss", [nth.squared_error, nth.logistic, nth.softmax_cross_entropy])
def test_own_losses_come_back_by_name(loss):
    assert recipes.restore_loss(recipes.store_loss(loss), None) is loss
    assert recipes.restore_loss(recipes.store_loss(loss), loss) is loss


def test_other_loss_is_only_a_name_until_it_is_given():
    def squared_error(f, y):
        return jnp.sum((f - y) ** 2)

    facts = recipes.store_loss(squared_error)
    assert recipes.restore_loss(facts, None) == "squared_error"
    assert recipes.restore_loss(facts, squared_error) is squared_error
    assert recipes.store_loss("squared_error") == facts


@pytest.mark.parametrize(
    "solver",
    [Auto(), Auto(rtol=1e-3, max_steps=7), Explicit(atol=1e-9), Explicit(method=dfx.Bosh3())],
)
def test_solver_comes_back(solver):
    facts = json.loads(json.dumps(recipes.store_solver(solver)))
    assert eqx.tree_equal(recipes.restore_solver(facts), solver)


@pytest.mark.parametrize("method", ["diffeqsolve", "Kvaerno5", "Mine"])
def test_solver_with_an_unknown_method_comes_back_as_its_description(method):
    facts = recipes.store_solver(Explicit())
    facts["settings"]["method"] = method
    found = recipes.restore_solver(facts)
    assert found == recipes.UnknownSolver(description=facts["description"])
    assert recipes.store_solver(found)["description"] == facts["description"]


def test_solver_of_an_unknown_class_comes_back_as_its_description():
    facts = recipes.store_solver(Auto()) | {"class": "Magnus"}
    found = recipes.restore_solver(facts)
    assert found == recipes.UnknownSolver(description=facts["description"])
