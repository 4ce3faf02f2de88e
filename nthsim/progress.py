"""A progress bar on a terminal, and silence elsewhere."""

from tqdm.auto import tqdm


class Progress:
    """A bar from 0 to 1 for one piece of work; shown only on a terminal, and only if wanted."""

    def __init__(self, title: str, shown: bool = True) -> None:
        """Open the bar."""
        self._bar = tqdm(
            total=1.0,
            desc=title,
            disable=None if shown else True,
            bar_format="{desc:<18} {percentage:3.0f}%|{bar}| {elapsed}<{remaining}",
            leave=False,
        )

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
