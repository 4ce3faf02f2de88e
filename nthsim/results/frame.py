"""Labelled datasets as tidy tables: one row for each place that something was measured at."""

from collections.abc import Mapping

import pandas as pd
import xarray as xr

#: What is handed in, and measured by nobody.
GIVEN = ("x", "y", "x_test", "y_test")

#: The axes that kernels have besides those of outputs.
OTHERS = {"other_sample", "other_output", "other_entry"}


def frame(dataset: xr.Dataset, names: Mapping[str, str] | None = None) -> pd.DataFrame:
    """All numbers but data and kernels, each of them once.

    Quantities with the same axes share rows, which the coordinates of these axes tell apart; in
    rows of other axes they are missing, as are coordinates of axes that a row's quantities do not
    have. All times are in one column.

    Args:
        dataset: As `labelled` makes them.
        names: What axes are called in the table, where that is not as in the dataset.
    """
    names = {"record_time": "t", **(names or {})}
    blocks: dict[tuple[str, ...], pd.DataFrame] = {}
    for key, variable in dataset.data_vars.items():
        axes = tuple(map(str, variable.dims))
        if key in GIVEN or OTHERS & set(axes):
            continue
        places = variable.reset_coords(drop=True).to_dataframe(dim_order=axes).reset_index()
        rows, columns = places.rename(columns=names), [names.get(axis, axis) for axis in axes]
        known = blocks.get(tuple(columns))
        if known is not None:
            rows = known.merge(rows, how="outer", on=columns, sort=False)
        blocks[tuple(columns)] = rows
    axes = list(dict.fromkeys(column for columns in blocks for column in columns))
    whole = pd.concat([_nullable(rows) for rows in blocks.values()], ignore_index=True)
    others = [name for name in whole.columns if name not in axes]
    return whole.loc[:, [*_in_order(axes, dataset, names), *others]]


def _nullable(rows: pd.DataFrame) -> pd.DataFrame:
    """Whole numbers stay such where others are missing."""
    whole = [name for name in rows.columns if rows[name].dtype.kind == "i"]
    return rows.astype(dict.fromkeys(whole, "Int64"))


def _in_order(axes: list[str], dataset: xr.Dataset, names: Mapping[str, str]) -> list[str]:
    """Time behind all other axes, which come as in the dataset."""
    found = dict.fromkeys(names.get(str(axis), str(axis)) for axis in dataset.dims)
    return sorted((axis for axis in found if axis in axes), key=lambda axis: axis == "t")
