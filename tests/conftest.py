"""Every test runs in float64 and under the strictest promotion that JAX offers."""

import gc

import jax
import pytest
import shapes

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

# Tracing makes millions of objects that stay: looking through them for cycles takes a tenth of it.
gc.set_threshold(200_000, 20, 100)


@pytest.fixture(autouse=True)
def _shapes_are_checked_anew() -> None:
    shapes.CHECKED.clear()
