"""The memory maps of a process that compiles programs without end."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nthsim.solvers.crowding import FULL, Crowding, maps, system_limit

pytestmark = pytest.mark.skipif(system_limit() is None, reason="of Linux")


def test_programs_without_end_are_let_go():
    counts = [maps()]
    crowding = Crowding(int((counts[0] + 250) / FULL))
    for n in range(1, 120):  # each takes some ten maps
        crowding.relieve()
        assert jax.jit(jnp.sum)(jnp.ones(n)) == n
        if n % 5 == 0:
            counts.append(maps())
    gained = np.diff(counts).clip(min=0).sum()
    assert max(counts) + 250 < counts[0] + gained


def test_few_programs_are_kept():
    crowding = Crowding(1)
    jax.jit(jnp.sin)(jnp.ones(3))
    before = maps()
    crowding.relieve()
    assert maps() >= before
