"""Initial weight matrices by name, all with entries of mean zero and variance one."""

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray


def gaussian(key: PRNGKeyArray, out_size: int, in_size: int) -> Float[Array, "out_size in_size"]:
    """Draw independent standard normal entries."""
    return jr.normal(key, (out_size, in_size))


def orthogonal(key: PRNGKeyArray, out_size: int, in_size: int) -> Float[Array, "out_size in_size"]:
    r"""Draw $\sqrt{\max(\text{out}, \text{in})}$ times a Haar-distributed matrix.

    Rows or columns are orthonormal in it, whichever are fewer. The factor gives every entry the
    variance one that `gaussian` has, so that both stand under the same $1/\sqrt m$.
    """
    haar = jax.nn.initializers.orthogonal(scale=math.sqrt(max(out_size, in_size)))
    return haar(key, (out_size, in_size), jnp.result_type(float))


INITIALISATIONS: Mapping[str, Callable[[PRNGKeyArray, int, int], Array]] = MappingProxyType(
    {"gaussian": gaussian, "orthogonal": orthogonal}
)


def resolve(init: str) -> Callable[[PRNGKeyArray, int, int], Array]:
    """Look an initialisation `(key, out_size, in_size) -> matrix` up by its name.

    Raises:
        ValueError: if the name is not in `INITIALISATIONS`.
    """
    if init not in INITIALISATIONS:
        listed = ", ".join(map(repr, INITIALISATIONS))
        raise ValueError(f"`init` must be one of {listed}, but is {init!r}.")
    return INITIALISATIONS[init]
