"""Which activations Taylor arithmetic gets through, and kernels are structured with.

Writes `docs/activations.md`, or the columns of this JAX in it. Nothing is computed.
"""

import inspect
from collections.abc import Callable
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array

from nthsim.models.activation import ACTIVATIONS
from nthsim.network.calls import worthwhile_calls
from nthsim.network.expansion_method import expansion_method
from nthsim.network.split import split

PAGE = Path(__file__).parents[1] / "docs" / "activations.md"

HEAD = """# Activations

What `nthsim` does with every function of `jax.nn` that maps one array to another, and with its own
activations: as a field of the module ("held", as in `eqx.nn.MLP`), and called by name in the
module's `__call__` ("called"). "Taylor" means Taylor arithmetic, whose work grows like the square
of the order; "nested" derivatives, like its exponential, where a function has a derivative of its
own or an operation has no rule, which is named. Held ones of `jax.nn` are replaced by plain
operations where `nthsim` knows them; JAX gives no public way to do the same within a `__call__`, so
call those of `nthsim.models.plain` there. Either way the numbers are the same. On data where Taylor
arithmetic goes wrong (a power of a negative number) derivatives are nested, and the result says so.
Kernels are "structured" with what lies between layers, whatever it is.

Written by `benchmarks/activations.py`, run on each version of JAX.
"""

#: Of each version.
COLUMNS = ("held", "called", "kernels")


class Held(eqx.Module):
    """Two layers with a function between them, which is a leaf."""

    entry: eqx.nn.Linear
    readout: eqx.nn.Linear
    function: Callable

    def __call__(self, x: Array) -> Array:
        """Evaluate at one input."""
        return self.readout(self.function(self.entry(x)))


def called(held: Held) -> Held:
    """The same, of which nobody sees the function."""
    function = held.function
    return eqx.tree_at(lambda net: net.function, held, lambda z: function(z))


def functions() -> dict[str, Callable]:
    """By their names, those that map four numbers to some."""
    theirs = {f"jax.nn.{name}": f for name, f in inspect.getmembers(jax.nn, callable)}
    ours = {f'"{name}"': f for name, f in ACTIVATIONS.items()}
    return {name: f for name, f in (theirs | ours).items() if _returned(f) is not None}


def _returned(function: Callable) -> int | None:
    try:
        out = jax.eval_shape(function, jnp.ones(4))
    except (TypeError, ValueError):  # it takes something else, or more
        return None
    numbers = isinstance(out, jax.ShapeDtypeStruct) and jnp.issubdtype(out.dtype, jnp.floating)
    return out.size if numbers else None


def row(function: Callable) -> tuple[str, ...]:
    """What is done with it, one cell per column."""
    keys, size = jr.split(jr.key(0), 2), _returned(function)
    readout = eqx.nn.Linear(size or "scalar", "scalar", key=keys[1])
    held = Held(eqx.nn.Linear(3, 4, key=keys[0]), readout, lambda z: jnp.ravel(function(z)))
    if jax.eval_shape(function, jnp.ones(4)).ndim:
        held = eqx.tree_at(lambda net: net.function, held, function)
    x = jnp.ones((2, 3))
    methods = [expansion_method(*split(net), x, 1) for net in (held, called(held))]
    words = ["Taylor" if r.obstacle is None else _nested(r.obstacle) for r in methods]
    apart = worthwhile_calls(*split(held), x[0])
    return (*words, "nested" if isinstance(apart, str) else "structured")


def _nested(obstacle: str) -> str:
    return f"nested: {obstacle.removeprefix('holds ')}"


def page(columns: dict[str, dict[str, tuple[str, ...]]]) -> str:
    """The whole text, for each version a cell per function and column."""
    names = list(dict.fromkeys(name for cells in columns.values() for name in cells))
    heads = [f"{version}: {column}" for version in columns for column in COLUMNS]
    lines = [["", *heads], ["---"] * (len(heads) + 1)]
    for name in names:
        absent = ("–",) * len(COLUMNS)
        cells = [cell for found in columns.values() for cell in found.get(name, absent)]
        lines.append([f"`{name}`", *cells])
    return HEAD + "\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def read(text: str) -> dict[str, dict[str, tuple[str, ...]]]:
    """The columns of a page."""
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    if not rows:
        return {}
    versions = list(dict.fromkeys(head.split(":")[0] for head in rows[0]))
    width = len(COLUMNS)
    return {
        version: {
            cells[0].strip("`"): tuple(cells[1 + i * width : 1 + (i + 1) * width])
            for cells in rows[2:]
        }
        for i, version in enumerate(versions)
    }


if __name__ == "__main__":
    known = read(PAGE.read_text(encoding="utf-8")) if PAGE.exists() else {}
    known[f"jax {jax.__version__}"] = {name: row(f) for name, f in functions().items()}
    order = sorted(known, key=lambda version: [int(part) for part in version[4:].split(".")])
    text = page({version: known[version] for version in order})
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(text, encoding="utf-8")
    print(text)
