"""Powers of the width that theory predicts, and the networks that it predicts them for."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray, PyTree

from nthsim.inputs.loss import Loss, squared_error
from nthsim.models import FCN, ResNet
from nthsim.models.activation import ACTIVATIONS, kinked, resolve
from nthsim.results.terminal import wrapped

#: Networks that exponents are derived for.
DERIVED = (FCN, ResNet)

#: Parametrisations that exponents are derived for, and what each output adds to them beyond the
#: second. In "standard" time itself scales with the width.
COVERED = {"ntk": 0.0, "mup": 0.5, "mean-field": 0.5}


def kernel_exponent(order: int, parametrisation: str = "ntk") -> float:
    r"""Of the size of $K^{(r)}$ at t = 0: -1 for r = 3 and 4, -2 for r = 5 and 6, and so on.

    That is in "ntk" parametrisation (Huang & Yau 2019, arXiv 1909.08156; Dyer & Gur-Ari 2019, arXiv
    1909.11304). In "mup", and so in "mean-field", $K^{(r)}$ is made of r outputs, each of which is
    $1/\sqrt m$ times as large, and of r - 1 contractions over parameters, each at the rate m: it is
    $m^{r/2 - 1}$ times that of "ntk", with the exponents 0 for even and -1/2 for odd r (derived
    here; `demos/what_moves.py` measures them).
    """
    return COVERED[parametrisation] * (order - 2) - (order - 1) // 2


def mean_exponent(order: int, parametrisation: str = "ntk") -> float:
    r"""Of $E K^{(r)}$ for even and of $E K^{(r)} f$ for odd r: the size's, times that of f."""
    return kernel_exponent(order, parametrisation) - COVERED[parametrisation] * (order % 2)


def drift_exponent(parametrisation: str = "ntk") -> float:
    r"""Of the tangent kernel's movement at any fixed time, that of $K^{(4)}$: -1, or 0 in mup."""
    return kernel_exponent(4, parametrisation)


def error_exponent(order: int, parametrisation: str = "ntk") -> float:
    """Of the error of truncation order p at any fixed time: -1 for p = 2 and 3, -2 for 4 and 5.

    In "mup" it is 0, as kernels of all even orders act on networks of infinite width too.
    """
    return (2 * COVERED[parametrisation] - 1) * (order // 2) + 0.0


def form(model: PyTree, width: int, key: PRNGKeyArray) -> dict[str, Any] | None:
    r"""All that a network was made of but its width and key, if theory covers it; else None.

    The exponents are derived for FCN (Huang & Yau 2019) and ResNet (Li, Luo & Yip 2020, arXiv
    2007.03714) in the parametrisations of `COVERED`, with weights and readout that are
    independent and Gaussian, of variances that do not depend on the width, and for activations all
    of whose derivatives are bounded. So a network is covered if it has this width, if `key` draws
    it again, up to rounding, and if its activation is a smooth one of
    `nthsim.models.activation.ACTIVATIONS`.
    """
    if type(model) not in DERIVED:
        return None
    made = {
        field.name: getattr(model, field.name)
        for field in dataclasses.fields(model)
        if field.metadata.get("static", False)
    }
    names = {function: name for name, function in ACTIVATIONS.items()}
    activation = resolve(model.activation)
    covered = activation in names and not kinked(activation) and model.init == "gaussian"
    covered = covered and model.parametrisation in COVERED
    if not (covered and model.width == width and model.readout_scale > 0):
        return None
    if not _alike(model, type(model)(**made, key=key)):
        return None
    made["activation"] = names[activation]
    return {name: value for name, value in made.items() if name != "width"}


def unpredicted(families: Mapping[str, bool], loss: Loss | str, *, trained: bool) -> list[str]:
    """Lines on what is fitted but not predicted.

    Args:
        families: Whether exponents are predicted, by the names of families.
        loss: What was trained with, if anything was `trained`.
        trained: Whether there is more than the start.
    """
    lines, others = [], [family for family, known in families.items() if not known]
    if others:
        networks = (
            "FCN and ResNet alone, in ntk or mup parametrisation, Gaussian and smooth, as drawn "
            "from the key"
        )
        lines = [f"no prediction for {', '.join(others)}: predictions are known for {networks}"]
    if trained and len(others) < len(families) and loss is not squared_error:
        lines += ["no prediction for drift and errors: they are known for squared error alone"]
    return [wrapped(line) for line in lines]


def _alike(model: PyTree, drawn: PyTree) -> bool:
    """Whether two networks differ by rounding alone, that of the coarser precision."""
    if jax.tree.structure(model) != jax.tree.structure(drawn):
        return False
    pairs = zip(jax.tree.leaves(model), jax.tree.leaves(drawn), strict=True)
    return all(_close(one, other) for one, other in pairs)


def _close(one: Array, other: Array) -> bool:
    if one.shape != other.shape:
        return False
    if np.array_equal(one, other):
        return True
    # What is drawn has entries of order one, so that this is a bound on absolute errors too.
    rounding = 16 * max(float(jnp.finfo(each.dtype).eps) for each in (one, other))
    a, b = (np.asarray(each, np.float64) for each in (one, other))
    return bool(np.all(np.abs(a - b) <= rounding * (1 + np.abs(b))))
