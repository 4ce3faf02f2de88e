"""What keeps XLA's CPU backend from compiling some programs into wrong ones.

From jaxlib 0.10.1 on that backend hands fusions of a product and a reduction to a library that gets
some of them wrong, among them z · (A x) with a matrix A of equal entries, and the squared length of
W x at thousands of x (https://github.com/jax-ml/jax/issues/39103). Handing it single products only
is right.

And it computes numbers anew in each fusion that takes them, rounded in another way where a product
and a sum become one instruction. A derivative of a maximum compares its entries with it, and of
entries that are computed anew none may be equal: gradients are lost. So are those of whatever
compares numbers that are computed. Without fusions each is computed once; but there the releases
0.10 take a copy in another layout for none where a reshape follows it, and forget a transposition,
unless they are kept from simplifying once layouts are assigned.
"""

import functools
import importlib.metadata
import os
import re
import warnings

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

OPTION = "xla_cpu_experimental_ynn_fusion_type"

#: The releases whose XLA is known to know the option: others end the process at a flag they lack.
KNOWN = ((0, 10, 1), (0, 13))

FLAG = f"--{OPTION}=individual_dot"

#: Rows and sides of the product that is tried: wrong at these in all releases that go wrong.
ROWS, IN, OUT = 300, 3, 16


#: No fusions; and not the older emitters, which without them get loops of Diffrax wrong.
UNFUSED = {"xla_disable_hlo_passes": "fusion"}, {"xla_cpu_use_fusion_emitters": True}

#: Nor what is simplified once layouts are assigned: without simplifications before, loops are slow.
PLAIN = {"xla_disable_hlo_passes": "fusion,simplification after layout assignment"}


class Traced(eqx.Module):
    """What a function that somebody brought is, found by tracing it.

    `digest` tells it from itself before something changed that it reads. If its derivative
    `compares` numbers that it computes, programs with it in are compiled without fusions.
    """

    digest: str = eqx.field(static=True, default="")
    compares: bool = eqx.field(static=True, default=False)


class MiscompilationWarning(UserWarning):
    """This process compiles wrong programs."""


def guard_process() -> None:
    """Have the whole process compile right programs, if it has not computed anything by JAX yet.

    nthsim's own programs are right without it; this is for those that you compile yourself. It adds
    a flag to `XLA_FLAGS` in the environment, which JAX reads at its first computation and which
    the processes that this one starts will find too. What a user set there already stays.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    version = tuple(map(int, re.findall(r"\d+", importlib.metadata.version("jaxlib"))))
    if OPTION not in flags and KNOWN[0] <= version < KNOWN[1]:
        os.environ["XLA_FLAGS"] = f"{flags} {FLAG}".strip()


@functools.cache
def compiler_options(*, unfused: bool = False) -> dict[str, str | bool]:
    """The options that programs are compiled by; none where XLA does not know them."""
    wanted = [{OPTION: "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"}, *(UNFUSED if unfused else ())]
    found = {name: value for each in filter(_knows, wanted) for name, value in each.items()}
    return found if not unfused or _transposes(found) else found | PLAIN


def _knows(options: dict[str, str | bool]) -> bool:
    """Whether XLA has these options."""
    try:
        with jax.ensure_compile_time_eval():  # the first use may be inside of a trace
            jax.jit(jnp.negative, compiler_options=options)(np.zeros(()))
    except Exception:  # its type is not public
        return False
    return True


@functools.cache
def look_once() -> None:
    """Try whether this process compiles right programs, and say so if it does not.

    Warns:
        MiscompilationWarning: When it does not, with the cure.
    """
    if _is_right(None):
        return
    version = jax.__version__
    if _is_right(compiler_options()):
        words = (
            f"JAX {version} compiles some products of matrices into wrong programs here. nthsim's "
            "own are compiled so that they are right; those that you compile yourself are right "
            f"once the environment has XLA_FLAGS={FLAG} before JAX computes anything, which "
            "`nthsim.guard_process()` sees to."
        )
    else:
        words = (
            f"JAX {version} compiles some products of matrices into wrong programs here, nthsim's "
            "own too: do not trust any number, and install another version of JAX."
        )
    warnings.warn(words, MiscompilationWarning, stacklevel=2)


def _is_right(options: dict[str, str | bool] | None) -> bool:
    """Whether z · (A x) comes out right for many z and x, where A holds ones."""
    z = np.sin(np.arange(1.0 * ROWS * OUT, dtype=np.float32)).reshape(ROWS, OUT)
    x = np.cos(np.arange(1.0 * ROWS * IN, dtype=np.float32)).reshape(ROWS, IN)
    with jax.ensure_compile_time_eval():
        found = np.asarray(jax.jit(_product, compiler_options=options)(z, x))
    return np.allclose(found, np.sum(z, axis=1) * np.sum(x, axis=1), rtol=1e-3, atol=1e-3)


def _transposes(options: dict[str, str | bool]) -> bool:
    """Whether programs by these options remember transpositions."""
    z = np.array([[0.3, 0.1, 0.2], [0.1, 0.2, 0.3], [0.2, 0.3, 0.1]], np.float32)
    ranks = np.argsort(np.argsort(z, axis=1), axis=1)
    with jax.ensure_compile_time_eval():
        found = np.asarray(jax.jit(_ranked, compiler_options=options)(z, np.eye(3, dtype=z.dtype)))
    return np.array_equal(found, ranks)


def _ranked(x: Float[Array, "rows 3"], a: Float[Array, "3 3"]) -> Float[Array, "rows 3"]:
    """The gradient of a weighed sum of sorted numbers: the weight of each, here its rank."""
    weights = jnp.arange(3, dtype=x.dtype)
    return jax.vmap(lambda row: jax.grad(lambda z: jnp.sum(jnp.sort(z) * weights))(a @ row))(x)


def _product(z: Float[Array, "rows out"], x: Float[Array, "rows in"]) -> Float[Array, " rows"]:
    return jnp.sum(z * (x @ jnp.ones((IN, OUT), x.dtype)), axis=1)
