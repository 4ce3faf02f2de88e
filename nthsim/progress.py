"""A progress bar on a terminal or in a notebook, and silence elsewhere."""

from tqdm.auto import tqdm

#: A notebook is no terminal, and shows bars all the same.
NOTEBOOK = any(base.__module__ == "tqdm.notebook" for base in tqdm.__mro__)


class Progress:
    """A bar from 0 to 1 for one piece of work, if wanted and if there is where to show it."""

    def __init__(self, title: str, shown: bool = True) -> None:
        """Open the bar."""
        self._bar = tqdm(
            total=1.0,
            desc=title,
            disable=not shown or (None if not NOTEBOOK else False),
            bar_format="{desc:<22} {percentage:3.0f}%|{bar}| {elapsed}<{remaining}",
            leave=False,
        )

    @property
    def shown(self) -> bool:
        """Whether there is a bar at all."""
        return not self._bar.disable

    def forward(self, part: float) -> None:
        """Move on by a part of the whole."""
        self._bar.update(min(part, 1.0 - self._bar.n))

    def to(self, part: float) -> None:
        """Move to a part of the whole."""
        self.forward(max(0.0, part - self._bar.n))

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()
