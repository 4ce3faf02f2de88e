"""What a run recorded so far."""

import numpy as np

Row = dict[str, np.ndarray]


class History:
    """Save times that were reached, and a row of named arrays for each."""

    def __init__(self) -> None:
        """Nothing yet."""
        self.reached: list[float] = []
        self.records: list[Row] = []

    def add(self, t: float, row: Row) -> None:
        """One more save time."""
        self.reached.append(t)
        self.records.append(row)

    def forget_after(self, t: float) -> None:
        """Drop the row of a time at which a run stopped that now goes on."""
        if self.reached and self.reached[-1] >= t:
            self.reached.pop()
            self.records.pop()

    def stacked(self) -> Row:
        """Each name's arrays along a first axis, over the times at which it was recorded."""
        names = dict.fromkeys(name for row in self.records for name in row)
        return {name: np.stack([r[name] for r in self.records if name in r]) for name in names}

    def rows(self) -> list[list[str]]:
        """Which names each row holds."""
        return [list(row) for row in self.records]

    @staticmethod
    def unstacked(reached: list[float], rows: list[list[str]], arrays: Row) -> "History":
        """The history that had these arrays, stacked."""
        iterators = {name: iter(array) for name, array in arrays.items()}
        history = History()
        for t, names in zip(reached, rows, strict=True):
            history.add(t, {name: np.asarray(next(iterators[name])) for name in names})
        return history
