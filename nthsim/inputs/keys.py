"""Random keys."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from nthsim.inputs.integers import shown


def checked_key(key: Any, what: str) -> Key[Array, ""]:
    """Return one random key, for `what`.

    Raises:
        ValueError: When it is none.
    """
    if not (
        isinstance(key, jax.Array)
        and not key.shape
        and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    ):
        raise ValueError(
            f"`key` must be a random key for {what}, such as jax.random.key(0), but is "
            f"{shown(key)}."
        )
    return key
