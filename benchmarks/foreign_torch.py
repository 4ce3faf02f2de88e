"""$K^{(2)}$ by PyTorch's own recipes, in an environment of its own; driven by foreign.py.

Both are those of PyTorch's tutorial on neural tangent kernels with torch.func: Jacobian contraction
and products with the kernel.
"""

import sys
from functools import partial

import numpy as np
import torch  # pyright: ignore[reportMissingImports]
from torch.func import jacrev, jvp, vjp, vmap  # pyright: ignore[reportMissingImports]
from turns import serve


def network(weights: tuple, x: torch.Tensor) -> torch.Tensor:
    """The fully connected tanh network of nthsim.models on one input."""
    *hidden, readout = weights
    for W in hidden:
        x = torch.tanh(W @ x) / len(W) ** 0.5
    return readout @ x


def contraction(weights: tuple, x: torch.Tensor) -> torch.Tensor:
    """Jacobians of all samples, multiplied."""
    jacobians = vmap(jacrev(network), (None, 0))(weights, x)
    flat = [jacobian.flatten(2) for jacobian in jacobians]
    blocks = [torch.einsum("naf,mbf->nmab", j, j) for j in flat]
    return torch.stack(blocks).sum(0)[..., 0, 0]


def products(weights: tuple, x: torch.Tensor) -> torch.Tensor:
    """One product with each pair's kernel, from one vjp and one jvp."""

    def entry(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        out, pull = vjp(lambda at: network(at, a), weights)
        (tangent,) = pull(torch.ones_like(out))
        return jvp(lambda at: network(at, b), (weights,), (tangent,))[1][0]

    return vmap(vmap(entry, (None, 0)), (0, None))(x, x)


def main() -> None:
    """Offer both recipes."""
    torch.set_num_threads(int(sys.argv[3]))
    with np.load(sys.argv[1]) as problem:
        x = torch.from_numpy(problem["x"])
        weights = tuple(torch.from_numpy(problem[f"W{i}"]) for i in range(len(problem) - 1))
    methods = {
        "contraction": partial(contraction, weights, x),
        "products": partial(products, weights, x),
    }
    serve(methods, sys.argv[2])


if __name__ == "__main__":
    main()
