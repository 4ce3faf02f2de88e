"""The kernels of the Neural Tangent Hierarchy."""

from math import prod

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree, Real

from nthsim.inputs.arrays import choice, finite, real, whole
from nthsim.inputs.integers import count
from nthsim.kernels.block_kernel import CHUNK_BYTES, Slots
from nthsim.kernels.derivatives import check_derivatives
from nthsim.kernels.method import METHODS, block_kernel
from nthsim.kernels.work import check_kernel, kernel_size
from nthsim.network.cast import in_precision
from nthsim.network.lookups import check_lookups
from nthsim.network.split import split
from nthsim.results.terminal import Progress
from nthsim.solvers.compiled import is_staged


def kernel(
    model: PyTree,
    x: Real[Array, "n ..."],
    order: int,
    *,
    x_first: Real[Array, "t ..."] | None = None,
    rates: PyTree = None,
    method: str = "auto",
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

    A `custom_vjp` in the model makes its gradients, and all kernels are made of those: of what
    its backward pass gives for a unit of each output, which need not be the derivative of its
    forward pass, and of derivatives of that.

    It may be transformed by `jax.jit`, `jax.grad` and `jax.vmap`, with respect to the inputs and to
    the parameters of `model`; progress is not shown then, and `jax.grad` keeps what every chunk
    leaves behind.

    Args:
        model: Any Equinox module that maps one input to a scalar or a vector of k outputs.
        x: Inputs of all slots, shape (n, ...).
        order: The order r, at least 2.
        x_first: Inputs of the first slot, if they are others: test points, say.
        rates: How fast each array trains, as in `nthsim.gradient_flow`: gradients by it count that
            much, $K^{(2)} = J D J^\top$ with D the rates, and $\nabla f_b$ is $D \nabla f_b$.
        method: "structured" works with layer inputs and back-propagated signals, for modules whose
            weights act through `eqx.nn.Linear` and `eqx.nn.Conv`, called any number of times;
            "nested" with nested derivatives, for any module. "auto" takes "structured" where there
            is enough work to repay its longer compilation, and where it cannot, it says why.
        chunk_bytes: Working memory beside the result, about; entries are computed in chunks.
        progress: Whether to show a progress bar when on a terminal.

    Returns:
        Shape (n, ..., n) with r axes for a scalar output and (n, k, ..., n, k) with 2r axes for a
        vector output; the first n is the number of `x_first`, if given.

    Raises:
        ValueError: When an argument is not as above, the kernel does not fit into memory, inputs
            are indices that an array of the model has no entry for, or the model holds a
            `custom_vjp` that does not allow its derivatives.

    Warns:
        nthsim.kernels.method.SlowKernelWarning: When "auto" must take nested derivatives for a
            large kernel.
    """
    order = count("order", order, 2)
    choice("method", method, METHODS)
    chunk_bytes = count("chunk_bytes", chunk_bytes, 1)
    network, theta = split(model, rates)
    given = {"x": _points("x", x)}
    if x_first is not None:
        given["x_first"] = _points("x_first", x_first)
    inputs = in_precision(network, theta, {name: jnp.asarray(a) for name, a in given.items()})
    x, first = inputs["x"], inputs.get("x_first", inputs["x"])
    if first.shape[1:] != x.shape[1:]:
        raise ValueError(
            f"`x_first` must hold inputs of shape {x.shape[1:]}, but holds {first.shape[1:]}."
        )
    network, out_shape = network.as_now(theta, x)
    for name, points in inputs.items():
        whole(name, given[name], points)
        check_lookups(network, theta, name, points)
    n, t = len(x), len(first)
    if x_first is None:
        slots = Slots(x, (0, n), (0, n), prod(out_shape))
    else:
        slots = Slots(jnp.concatenate([first, x]), (0, t), (t, t + n), prod(out_shape))
    check_kernel(kernel_size(network, theta, slots), order)
    evaluate = block_kernel(network, theta, slots, order, method=method, chunk_bytes=chunk_bytes)
    if not network.forward(theta, x):
        check_derivatives(evaluate, theta, order)
    if is_staged(theta, slots.points):
        with jax.default_matmul_precision("highest"):
            flat = evaluate.traced(theta)
    else:
        with Progress(f"K^({order})", progress) as bar:
            flat = evaluate(theta, bar)
    return flat.reshape(len(first), *out_shape, *(len(x), *out_shape) * (order - 1))


def _points(name: str, value: object) -> Array | np.ndarray:
    array = real(name, value)
    if array.ndim < 2 or not array.size:
        raise ValueError(f"`{name}` must have shape (n, ...) with n ≥ 1, but has {array.shape}.")
    finite(name, array)
    return array
