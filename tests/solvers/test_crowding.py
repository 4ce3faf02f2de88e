"""The memory maps of a process that compiles programs without end."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nthsim.solvers.crowding import FULL, REPORTS, Crowding, maps, system_limit

pytestmark = pytest.mark.skipif(system_limit() is None, reason="of Linux")


def test_programs_without_end_stay_within_the_maps_allowed():
    counts = [maps()]
    enough = counts[0] + 500
    crowding = Crowding(int(enough / FULL))
    for n in range(1, 200):  # each takes some ten maps
        crowding.relieve()
        assert jax.jit(jnp.sum)(jnp.ones(n)) == n
        counts.append(maps())
    gained = np.diff(counts).clip(min=0)
    assert counts[0] + gained.sum() > enough + gained[: REPORTS // 3].sum() > max(counts)


def test_few_programs_are_kept():
    crowding = Crowding(1)
    jax.jit(jnp.sin)(jnp.ones(3))
    before = maps()
    crowding.relieve()
    assert maps() >= before
