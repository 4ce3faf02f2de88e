"""$K^{(2)}$ by neural-tangents, in an environment of its own; driven by foreign.py."""

import sys
from functools import partial

import jax
import jax.numpy as jnp
import neural_tangents as nt  # pyright: ignore[reportMissingImports]
import numpy as np
from turns import serve

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_default_matmul_precision", "highest")


def network(weights: list, x: jax.Array) -> jax.Array:
    """The fully connected tanh network of nthsim.models on a batch of inputs.

    Weights are handed over transposed: neural-tangents knows the structure of `x @ W` alone, and
    takes a hundred times longer for `x @ W.T`.
    """
    *hidden, readout = weights
    for W in hidden:
        x = jnp.tanh(x @ W) / np.sqrt(W.shape[1])
    return x @ readout


def main() -> None:
    """Offer every implementation."""
    with np.load(sys.argv[1]) as problem:
        x = jnp.asarray(problem["x"])
        weights = [jnp.asarray(problem[f"W{i}"].T) for i in range(len(problem) - 1)]
    methods = {}
    for implementation in nt.NtkImplementation:
        if implementation is nt.NtkImplementation.AUTO:
            continue
        kernel = nt.empirical_ntk_fn(
            network, trace_axes=(-1,), vmap_axes=0, implementation=implementation
        )
        compiled = jax.jit(lambda x, weights, kernel=kernel: kernel(x, None, weights))
        methods[implementation.name.lower()] = partial(_ready, compiled, x, weights)
    serve(methods, sys.argv[2])


def _ready(compiled, x: jax.Array, weights: list) -> np.ndarray:
    return compiled(x, weights).block_until_ready()


if __name__ == "__main__":
    main()
