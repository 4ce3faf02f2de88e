"""Dynamics as ordinary differential equations, and their integration; networks are unknown here."""

from nthsim.solvers.auto import Auto as Auto
from nthsim.solvers.explicit import Explicit as Explicit
from nthsim.solvers.exponential import Exponential as Exponential
from nthsim.solvers.implicit import Implicit as Implicit
from nthsim.solvers.solution import Solution as Solution
from nthsim.solvers.solution import Stats as Stats
from nthsim.solvers.stabilised import Stabilised as Stabilised
from nthsim.solvers.stop import Stop as Stop
from nthsim.solvers.until import Until as Until
