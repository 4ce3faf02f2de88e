"""Networks of the tests' own that raise an error, so that no inside need be replaced."""

import functools
from typing import ClassVar

from nthsim.models import FCN


class Counted(FCN):
    """A network that counts its calls."""

    calls: ClassVar[list]


def failing(error: type[BaseException] | BaseException | None, after: int = -1) -> type[Counted]:
    """A kind of network that raises an error, if any, after so many calls, or when it is drawn.

    It is a new class each time, of which nothing is compiled yet.
    """

    class Failing(Counted):
        calls: ClassVar[list] = []

        @functools.wraps(FCN.__init__)
        def __init__(self, *arguments, **settings):
            if error is not None and after < 0:
                raise error
            super().__init__(*arguments, **settings)

        def __call__(self, x):
            self.calls.append(x.shape)
            if error is not None and len(self.calls) > after:
                raise error
            return super().__call__(x)

    return Failing
