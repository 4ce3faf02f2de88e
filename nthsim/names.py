"""What arguments are called in the sentences about them."""

import contextlib
import re
from collections.abc import Iterator


@contextlib.contextmanager
def called(**names: str) -> Iterator[None]:
    """Call arguments what the user calls them, as in `called(path="data")`, in whatever is raised.

    Raises:
        ValueError: When that is raised inside.
    """
    try:
        yield
    except ValueError as error:
        sentence = re.sub(r"`(\w+)`", lambda name: f"`{names.get(name[1], name[1])}`", str(error))
        raise ValueError(sentence) from error
