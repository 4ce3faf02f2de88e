"""How a network's outputs, and the rates at which its layers train, depend on its width."""

import abc
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import equinox as eqx
import jax
from jaxtyping import Array, Float, PyTree


class Parametrisation(NamedTuple):
    """Powers of the width: of what outputs are multiplied by, and of the rates of layers."""

    outputs: float
    first: float
    others: float


MEAN_FIELD = Parametrisation(-0.5, 1.0, 1.0)

#: In units of weights whose entries have variances that do not depend on the width.
PARAMETRISATIONS: Mapping[str, Parametrisation] = MappingProxyType(
    {
        "ntk": Parametrisation(0.0, 0.0, 0.0),
        "standard": Parametrisation(0.0, 0.0, 1.0),
        "mup": MEAN_FIELD,
        "mean-field": MEAN_FIELD,
    }
)


class AbstractParametrised(eqx.Module):
    r"""A network whose weights $w$ have entries of order one, in one of several parametrisations.

    Those of the field differ in the variances of what is trained, and in factors before it. In
    units of $w$ that is a factor before the outputs, and a rate at which each layer trains,
    $w' = -D\,\partial L/\partial w$:

    | name | outputs times | rate of the first layer | of all others |
    |---|---|---|---|
    | "ntk" (Jacot et al. 2018, arXiv 1806.07572) | 1 | 1 | 1 |
    | "standard", as in most software | 1 | 1 | $m$ |
    | "mup" (Yang & Hu 2021, arXiv 2011.14522) | $1/\sqrt m$ | $m$ | $m$ |
    | "mean-field" (Mei et al. 2018, arXiv 1804.06561) | $1/\sqrt m$ | $m$ | $m$ |

    In "standard", weights behind the first layer are $w/\sqrt m$ and train at unit rate. The last
    two are one for gradient flow, and for deep networks that is what both names stand for here:
    hidden weights of size $1/m$ would let signals die out.
    """

    layers: eqx.AbstractVar[tuple[eqx.nn.Linear, ...]]
    readout: eqx.AbstractVar[eqx.nn.Linear]
    width: eqx.AbstractVar[int]
    parametrisation: eqx.AbstractVar[str]

    @abc.abstractmethod
    def __call__(self, x: Float[Array, " d"]) -> Float[Array, "..."]:
        """Evaluate at one input."""

    def rates(self) -> PyTree[float]:
        """How fast each layer trains: a tree like this network with numbers for layers.

        All dynamics and kernels take these where they are given no `rates`.
        """
        powers = PARAMETRISATIONS[self.parametrisation]
        first, others = (float(self.width) ** p for p in (powers.first, powers.others))
        speeds = [first, *[others] * len(self.layers)]
        return eqx.tree_at(lambda net: (*net.layers, net.readout), self, tuple(speeds))

    @property
    def output_scale(self) -> float:
        """What the readout is multiplied by."""
        return self.width ** PARAMETRISATIONS[self.parametrisation].outputs

    def read(self, x: Float[Array, " m"]) -> Float[Array, "..."]:
        """The outputs, from what the last hidden layer returned."""
        return self.readout(x if self.output_scale == 1 else self.output_scale * x)


def own_rates(model: PyTree[Any]) -> PyTree[float] | None:
    """The rates of all such networks in a model, one for all else; None where all are one."""
    ours = lambda node: isinstance(node, AbstractParametrised)  # noqa: E731
    if all(node.parametrisation == "ntk" for node in jax.tree.leaves(model, ours) if ours(node)):
        return None
    return jax.tree.map(lambda node: node.rates() if ours(node) else 1.0, model, is_leaf=ours)


def checked_parametrisation(name: object) -> str:
    """Return a name in `PARAMETRISATIONS`.

    Raises:
        ValueError: if it is none.
    """
    if not (isinstance(name, str) and name in PARAMETRISATIONS):
        listed = ", ".join(map(repr, PARAMETRISATIONS))
        raise ValueError(f"`parametrisation` must be one of {listed}, but is {name!r}.")
    return name
