"""Divided differences of the exponential, against rational arithmetic."""

from decimal import Decimal, localcontext
from math import factorial

import jax.numpy as jnp
import numpy as np
import pytest

from nthsim.solvers.divided import divided_exp, divided_exp_to_zero

pytestmark = pytest.mark.compiled


def exact(nodes) -> float:
    """The series about the largest node, in a hundred digits."""
    with localcontext() as context:
        context.prec = 100
        z = [Decimal(float(node)) for node in nodes]
        m, top = len(z) - 1, max(z)
        h = [Decimal(1)] * len(z)
        total = h[-1] / factorial(m)
        for k in range(1, 300):
            h[0] *= z[0] - top
            for j in range(1, len(z)):
                h[j] = h[j - 1] + (z[j] - top) * h[j]
            total += h[-1] / factorial(k + m)
        return float(total * top.exp())


# Equal, nearly equal, spread on both sides of one, and wide apart; in any order.
NODES = np.array(
    [
        [-0.3, -0.3, -0.3, -0.3],
        [-2.0, -2.0, -2.0, 0.0],
        [-1.0, -1.0 - 1e-9, -1.0 + 1e-9, -1.0],
        [-1.0, -30.0, -1e-7, -29.9],
        [0.0, 0.0, -1e-12, -40.0],
        [-0.5, -1.49, -0.51, -1.51],
        [-7.0, -3.0, -5.0, 0.0],
    ]
)


@pytest.mark.parametrize("m", [1, 2, 3])
def test_difference_has_nearly_all_digits(m):
    found = divided_exp([jnp.asarray(NODES[:, i]) for i in range(m + 1)])
    expected = [exact(row[: m + 1]) for row in NODES]
    # A recursion over a span of about one loses a digit.
    np.testing.assert_allclose(found, expected, rtol=1e-14)


def test_node_at_zero_joins_the_others():
    nodes = [jnp.asarray(NODES[:, i]) for i in range(4)]
    found, joined = divided_exp_to_zero(nodes)
    np.testing.assert_allclose(found, [exact(row) for row in NODES], rtol=1e-14)
    np.testing.assert_allclose(joined, [exact([*row, 0.0]) for row in NODES], rtol=2e-14)
