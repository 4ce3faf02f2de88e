"""The phi functions against the matrix exponential that they are entries of."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import expm

from nthsim.solvers.phi import phi

Z = [-300.0, -31.0, -1.0001, -1.0, -0.999, -0.3, -1e-9, 0.0, 1e-5, 0.7, 3.0]


@pytest.mark.parametrize("z", Z)
def test_phi_functions_are_entries_of_a_matrix_exponential(z):
    # exp of [[z, e_1], [0, shift]] holds phi_1, phi_2, ... in its first row.
    top = 4
    matrix = np.diag(np.ones(top), 1)
    matrix[0, 0] = z
    expected = expm(matrix)[0]
    found = np.array([float(value) for value in phi(jnp.array(z), top)])
    np.testing.assert_allclose(found, expected, rtol=5e-13, atol=1e-16)


def test_phi_functions_are_evaluated_entry_by_entry():
    whole = phi(jnp.array(Z), 3)
    single = [phi(jnp.array([z]), 3) for z in Z]
    for k in range(4):
        np.testing.assert_allclose(whole[k], np.concatenate([one[k] for one in single]), rtol=1e-15)
