"""Columns of images and sounds in two forms: String, the path of a file, and Binary, its bytes or an array as .npy."""

import io
from typing import Any

import numpy as np
import polars as pl

from fastrec.data.checks import Place, first

#: Names of the columns, in any case.
MEDIA = ("image", "audio")


def files(series: pl.Series, place: Place) -> pl.Series:
    """A column of paths, bytes, arrays, images of Pillow, or {"bytes", "path"} as datasets of Hugging Face have them.

    Raises DataError for anything else. Whether a file can be read is found out by who reads it.
    """
    dtype = series.dtype
    if dtype in (pl.String, pl.Categorical, pl.Enum, pl.Null):
        return series.cast(pl.String)
    if dtype == pl.Binary:
        return series
    if isinstance(dtype, pl.Struct) and {f.name for f in dtype.fields} >= {"bytes", "path"}:
        data = series.struct.field("bytes")
        return (data if data.null_count() < len(data) else series.struct.field("path")).alias(series.name)
    if isinstance(dtype, (pl.List, pl.Array)) or dtype == pl.Object:
        values = [None if value is None else _saved(value) for value in series.to_list()]
        return pl.Series(series.name, values, pl.Binary)
    raise place.error(f"holds {dtype}, expected paths, bytes or arrays", first(series.is_not_null()))


def _saved(value: Any) -> bytes:
    """An array as .npy; what is none becomes an empty one, which no reader takes."""
    if isinstance(value, bytes):
        return value
    try:
        array = np.asarray(value)
    except ValueError:  # rows of different lengths
        array = np.empty(0)
    array = array if array.dtype.kind in "iufb" else np.empty(0)
    out = io.BytesIO()
    np.save(out, array.astype(np.uint8) if _small(array) else array, allow_pickle=False)
    return out.getvalue()


def _small(array: Any) -> bool:
    return array.dtype.kind in "iu" and array.ndim > 1 and array.size > 0 and array.min() >= 0 and array.max() <= 255
