"""What arguments are called in the sentences about them."""

import contextlib
import re
from collections.abc import Iterator


@contextlib.contextmanager
def called(**names: str) -> Iterator[None]:
    """Call arguments what the user calls them, as in `called(path="data")`, in whatever is raised.

    Raises:
        ValueError: When that is raised inside; the same one where it names nothing that is renamed.
    """
    try:
        yield
    except ValueError as error:
        sentence = re.sub(r"`(\w+)`", lambda name: f"`{names.get(name[1], name[1])}`", str(error))
        if sentence == str(error):
            raise
        raise ValueError(sentence) from error
