"""What theory predicts of a training, to be drawn beside it."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType

from jaxtyping import PyTree

from nthsim.budget.fits import check_hierarchy, check_perturbation
from nthsim.budget.size import Size
from nthsim.dynamics.limit_flow import check_limit, limiting
from nthsim.dynamics.perturbation import check_quadratic, perturbed
from nthsim.dynamics.problem import Problem
from nthsim.dynamics.run import Schedule
from nthsim.dynamics.trajectory import Trajectory
from nthsim.dynamics.truncations import Truncations
from nthsim.inputs.arrays import choice
from nthsim.inputs.loss import Loss

#: Theories by the word that asks for each, and the names that table and figure have for them.
THEORIES: Mapping[str, str] = MappingProxyType(
    {"limit": "limit kernel", "perturbation": "perturbation"}
)


def checked_theories(theories: object) -> tuple[str, ...]:
    """The theories that are wanted, once each.

    Raises:
        ValueError: When `theories` is no sequence of such words.
    """
    if not isinstance(theories, Sequence) or isinstance(theories, str):
        listed = ", ".join(repr(name) for name in THEORIES)
        raise ValueError(f"`theories` must be a sequence of {listed}, but is {theories!r}.")
    words = [choice("theories", word, tuple(THEORIES)) for word in theories]
    return tuple(word for word in THEORIES if word in words)


def check_theories(
    theories: Sequence[str], model: PyTree, loss: Loss, size: Size, *, bounded: bool
) -> None:
    """Refuse theories, and bounds if they are wanted too, that this training has not.

    Raises:
        ValueError: When the model or the loss is another, or memory does not suffice.
    """
    if "limit" in theories:
        check_limit(model)
        check_hierarchy(size, 2, "dense", name="data")
    for wanted, name in (("perturbation" in theories, "perturbation theory"), (bounded, "bounds")):
        if wanted:
            check_quadratic(loss, name)
            check_perturbation(size)


def predicting(
    theory: str, problem: Problem, model: PyTree, known: Truncations, *, progress: bool
) -> Callable[[Schedule], Trajectory]:
    """The run of a theory, from kernels at t = 0 as far as they are known."""
    if theory == "limit":
        return partial(limiting, problem, model, progress=progress)
    return partial(perturbed, problem, known=known, progress=progress)
