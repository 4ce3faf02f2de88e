"""The tests of the checkout run with checks of types and shapes."""

import jax.numpy as jnp
import jax.random as jr
import pytest
import shapes
from jaxtyping import Array, Float, TypeCheckError, jaxtyped

from nthsim.models import FCN


@jaxtyped(typechecker=shapes.checked)
def shortened(x: Float[Array, " n"]) -> Float[Array, " n"]:
    return x[1:]


def test_what_functions_of_nthsim_take_is_checked(request: pytest.FixtureRequest):
    if not request.config.getoption("--jaxtyping-packages"):
        pytest.skip("the wheel, and what is compiled as users do, run without these checks")
    with pytest.raises(TypeCheckError, match="parameter 'x'"):
        FCN(3, 2, 1, key=jr.key(0))(jnp.zeros((3, 3)))


def test_first_calls_in_a_test_are_checked():
    for _ in range(shapes.OFTEN):
        with pytest.raises(TypeCheckError, match="return value"):
            shortened(jnp.zeros(3))
    shortened(jnp.zeros(3))


@pytest.fixture(scope="module")
def _called_often() -> None:
    shapes.CHECKED["nthsim.models.fcn", "FCN.__call__", True] = shapes.OFTEN


@pytest.mark.usefixtures("_called_often")
def test_each_test_begins_to_count_anew():
    assert not shapes.CHECKED
