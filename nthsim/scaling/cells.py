"""A study over seeds in cells, each of which is computed in one piece."""

import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax.random as jr
import numpy as np
from jaxtyping import Float, PRNGKeyArray, PyTree

from nthsim.dynamics.pose import pose
from nthsim.dynamics.recipes import describe, store_solver
from nthsim.inputs.dataset import Dataset
from nthsim.inputs.loss import Loss
from nthsim.network.cast import in_precision
from nthsim.network.failures import kind_and_line
from nthsim.network.rates import in_words, listed
from nthsim.network.split import split
from nthsim.results.record import Record, digest, network_digest
from nthsim.scaling.population import Drawn, Population, measured, population
from nthsim.scaling.predictions import form
from nthsim.solvers.solver import AbstractSolver

#: Draws a network of a size by a key; or a pair, that and the rates at which its arrays train.
Maker = Callable[[int, PRNGKeyArray], PyTree]


class Cell(eqx.Module):
    """Networks of one family and one size, one for each of several seeds."""

    family: str
    size: int
    seeds: tuple[int, ...]

    @property
    def name(self) -> str:
        """Such as "fcn-64-seeds-0-39", which can name a file; no other cell has it."""
        first, last = self.seeds[0], self.seeds[-1]
        gaps = "" if last - first < len(self.seeds) else f"-{digest(np.array(self.seeds))[:8]}"
        return f"{slug(self.family)}-{self.size}-seeds-{first}-{last}{gaps}"


class Study(eqx.Module):
    """What all cells have in common, and which there are.

    `axis`, "width" or "depth", says what sizes are of. `families` maps names to functions that draw
    a network of a size by a key. `kernels` is the highest r of the $K^{(r)}$ that are measured at
    t = 0. At most `chunk` of the `seeds`, which rise, make a cell.
    """

    axis: str
    families: Mapping[str, Maker]
    sizes: tuple[int, ...]
    seeds: tuple[int, ...]
    data: Dataset
    orders: tuple[int, ...]
    kernels: int
    ts: Float[np.ndarray, " T"]
    loss: Loss
    solver: AbstractSolver
    chunk: int

    def cells(self) -> tuple[Cell, ...]:
        """All of them."""
        starts = range(0, len(self.seeds), self.chunk)
        chunks = [self.seeds[start : start + self.chunk] for start in starts]
        return tuple(
            Cell(family, size, seeds)
            for family in self.families
            for size in self.sizes
            for seeds in chunks
        )

    def compute(self, cell: Cell) -> Record:
        """Measure a cell: arrays with a row for each of its seeds, as `measured` names them.

        Raises:
            ValueError: When the networks do not have one structure for all seeds.
        """
        clock = time.perf_counter()
        seeds = len(cell.seeds)
        # The last chunk may be shorter; filled up with what is dropped again it compiles nothing.
        filled = cell.seeds + cell.seeds[-1:] * (min(self.chunk, len(self.seeds)) - seeds)
        models = self.models(cell.family, cell.size, filled)
        networks = population(models, self.data, self.loss)
        found = measured(networks, self.orders, self.kernels, self.ts, self.solver)
        arrays = {name: array[:seeds] for name, array in found.arrays.items()}
        facts = found.facts | {"form": self._form(cell, models[:seeds])}
        facts |= {"mark": _mark(models[:seeds]), "seconds": time.perf_counter() - clock}
        return Record(arrays, facts, coordinates=self._places(cell))

    def _places(self, cell: Cell) -> dict[str, np.ndarray]:
        """What the places along each axis of a cell's arrays stand for."""
        return {
            "family": np.array(cell.family),
            "size": np.array(cell.size),
            "seed": np.array(cell.seeds),
            "rank": np.arange(2, self.kernels + 1),
            "order": np.array(self.orders, int),
            "t": self.ts,
        }

    def population(self, family: str, size: int, seeds: tuple[int, ...]) -> Population:
        """The networks of some seeds."""
        return population(self.models(family, size, seeds), self.data, self.loss)

    def models(self, family: str, size: int, seeds: tuple[int, ...]) -> list[Drawn]:
        """A network for each of some seeds; each is drawn once."""
        models = {seed: self.model(family, size, seed) for seed in dict.fromkeys(seeds)}
        return [models[seed] for seed in seeds]

    def model(self, family: str, size: int, seed: int) -> Drawn:
        """One network, with its rates.

        Raises:
            ValueError: When there is none, whatever the caller's function raises.
        """
        try:
            made = self.families[family](size, jr.key(seed))
            return Drawn(*made) if type(made) is tuple and len(made) == 2 else Drawn(made)
        except Exception as error:  # whatever a stranger's function raises
            if isinstance(error, ValueError) and "\n" not in str(error):
                raise  # as nthsim's own networks, which say what they ask for
            raise ValueError(
                f"`make_model` must make a network of a {self.axis} and a key, but fails on "
                f"{size}: {kind_and_line(error)}."
            ) from error

    def mark(self, cell: Cell) -> str:
        """A fingerprint of a cell's networks, which are drawn anew."""
        return _mark(self.models(cell.family, cell.size, cell.seeds))

    def subject(self) -> dict[str, Any]:
        """What tells one study from another, in parts that a sentence can name.

        Of all networks it holds those of seed 0, drawn anew, by family and size, so that further
        families, sizes and seeds leave the rest as it is.
        """
        stored = store_solver(self.solver)
        models = {
            slug(family): {str(size): self._first(family, size) for size in self.sizes}
            for family in self.families
        }
        model, rates = self.model(next(iter(self.families)), self.sizes[0], 0)
        return {
            "axis": self.axis,
            "make_model": models,
            "data": digest((self.data.x, self.data.x_test, self.data.y, self.data.y_test)),
            "loss": pose(model, self.data, self.loss, rates).residual.mark,
            "solver": {"class": stored["class"], **stored["settings"]},
            "orders": list(self.orders),
            "kernels": self.kernels,
            "save times": digest(self.ts),
            "chunk": self.chunk,
        }

    def descriptions(self) -> dict[str, str]:
        """One line on each family's smallest network."""
        first = self.sizes[0], self.seeds[0]
        return {family: _described(self.model(family, *first)) for family in self.families}

    def _form(self, cell: Cell, models: Sequence[Drawn]) -> dict[str, Any] | None:
        """What all networks of a cell were made of, if exponents are predicted for such ones."""
        if self.axis != "width":
            return None
        pairs = zip(models, cell.seeds, strict=True)
        forms = [
            form(drawn.model, cell.size, jr.key(seed)) if _rates_are_its_own(drawn) else None
            for drawn, seed in pairs
        ]
        return forms[0] if all(each == forms[0] for each in forms) else None

    def _first(self, family: str, size: int) -> str:
        network, theta = split(*self.model(family, size, 0))
        now, _ = network.as_now(theta, in_precision(network, theta, self.data.x))
        return network_digest(now, theta)


def _described(drawn: Drawn) -> str:
    known = _rates(drawn)
    return describe(drawn.model) + ("" if known is None else f"; {in_words(known)}")


def _rates(drawn: Drawn) -> tuple[float, ...] | None:
    return listed(drawn.rates, drawn.model)


def _rates_are_its_own(drawn: Drawn) -> bool:
    return drawn.rates is None or _rates(drawn) == listed(None, drawn.model)


def _mark(models: Sequence[Drawn]) -> str:
    return digest((), *(network_digest(*split(*drawn)) for drawn in models))


def slug(family: str) -> str:
    """A family's name as it may stand in that of a file."""
    return re.sub(r"[^a-z0-9]+", "-", family.lower()).strip("-")
