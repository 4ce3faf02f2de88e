"""Types and shapes of what functions take and return, checked while the tests of the checkout run.

`--jaxtyping-packages=nthsim,shapes.checked` hands over a function for each signature in nthsim, and
one for each function within a function whenever that is made.
"""

import collections
from collections.abc import Callable
from typing import Any

from beartype import beartype

#: How many calls of each function are checked in one test: tracing makes thousands.
OFTEN = 3

#: How many were in this test, by the name of the function.
CHECKED: collections.Counter[tuple[str, str, bool]] = collections.Counter()


def checked(signature: Callable[..., Any]) -> Callable[..., Any]:
    """Check the first calls only."""
    returns = signature.__annotations__.get("return") is not Any
    name = signature.__module__, signature.__qualname__, returns
    check = None

    def first_calls(*args: Any, **kwargs: Any) -> None:
        nonlocal check
        if CHECKED[name] >= OFTEN:
            return
        CHECKED[name] += 1
        check = check or beartype(signature)
        check(*args, **kwargs)

    return first_calls
