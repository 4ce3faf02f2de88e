"""The kernels of the Neural Tangent Hierarchy."""

import jax.numpy as jnp
from jaxtyping import Array, DTypeLike, Float, PyTree

from nthsim.checks import count, finite, real
from nthsim.footprints import check_kernel
from nthsim.lie import CHUNK_BYTES, lie_kernel
from nthsim.network import output_shape, precision, split
from nthsim.progress import Progress


def kernel(
    model: PyTree,
    x: Float[Array, "n ..."],
    order: int,
    *,
    x_first: Float[Array, "t ..."] | None = None,
    chunk_bytes: int = CHUNK_BYTES,
    progress: bool = True,
) -> Float[Array, "..."]:
    r"""The kernel $K^{(r)}$ of `model` on inputs `x`, for any order r ≥ 2.

    $K^{(2)}_{ab} = \langle \nabla f_a, \nabla f_b \rangle$ is the empirical neural tangent kernel
    and $K^{(r+1)}_{a_1 \dots a_r b} = \langle \nabla K^{(r)}_{a_1 \dots a_r}, \nabla f_b \rangle$,
    the Lie derivative of $K^{(r)}$ along the parameter-dependent field $\nabla f_b$ (Huang & Yau
    2019, arXiv 1909.08156; no factor 1/n, no factorials). It is symmetric in its first two slots
    only. ReLU and other kinked activations are differentiated as JAX does, without the delta
    functions at their kinks: for them $K^{(r)}$ with r ≥ 3 misses those terms.

    Args:
        model: Any Equinox module that maps one input to a scalar or a vector of k outputs.
        x: Inputs of all slots, shape (n, ...).
        order: The order r, at least 2.
        x_first: Inputs of the first slot, if they are others: test points, say.
        chunk_bytes: Working memory beside the result, about; entries are computed in chunks.
        progress: Whether to show a progress bar when on a terminal.

    Returns:
        Shape (n, ..., n) with r axes for a scalar output and (n, k, ..., n, k) with 2r axes for a
        vector output; the first n is the number of `x_first`, if given.

    Raises:
        ValueError: When an argument is not as above, or the kernel does not fit into memory.
    """
    order = count("order", order, 2)
    chunk_bytes = count("chunk_bytes", chunk_bytes, 1)
    network, theta = split(model)
    x = _inputs("x", x, precision(theta))
    first = x if x_first is None else _inputs("x_first", x_first, x.dtype)
    if first.shape[1:] != x.shape[1:]:
        raise ValueError(
            f"`x_first` must hold inputs of shape {x.shape[1:]}, but holds {first.shape[1:]}."
        )
    out_shape = output_shape(network, theta, x)
    evaluate = lie_kernel(
        network, theta, x, order, first=first, out_shape=out_shape, chunk_bytes=chunk_bytes
    )
    check_kernel(evaluate, theta, joined=x_first is None)
    with Progress(f"K^({order})", progress) as bar:
        flat = evaluate(theta, bar)
    return flat.reshape(len(first), *out_shape, *(len(x), *out_shape) * (order - 1))


def _inputs(name: str, value: object, dtype: DTypeLike) -> Array:
    array = real(name, value)
    if array.ndim < 2 or not array.size:
        raise ValueError(f"`{name}` must have shape (n, ...) with n ≥ 1, but has {array.shape}.")
    finite(name, array)
    return jnp.asarray(array, dtype)
