"""Columns of images and sounds in two forms: String, the path of a file, and Binary, its bytes or an array as .npy."""

import io
from pathlib import PurePath
from typing import Any

import numpy as np
import polars as pl

from fastrec.data.checks import Place, first

#: Names of the columns, in any case.
MEDIA = ("image", "audio")
#: Modes of Pillow that a PNG keeps.
_PNG = ("1", "L", "LA", "I;16", "P", "RGB", "RGBA")


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
        data, paths = (series.struct.field(name) for name in ("bytes", "path"))
        if data.null_count() == len(data):
            return paths.alias(series.name)
        if (row := first(data.is_null() & paths.is_not_null())) is not None:
            raise place.error("holds a path without bytes beside bytes, expected one or the other", row)
        return data.alias(series.name)
    if isinstance(dtype, (pl.List, pl.Array)) or dtype == pl.Object:
        rows = (value.to_list() if isinstance(value, pl.Series) else value for value in series)  # not all at once
        short = _numbers(dtype) == pl.UInt16
        saved = [None if value is None else _saved(value, short) for value in rows]
        kind = pl.String if any(isinstance(value, str) for value in saved) else pl.Binary  # ``read`` takes no mixture
        return pl.Series(series.name, saved, kind)
    raise place.error(f"holds {dtype}, expected paths, bytes or arrays", first(series.is_not_null()))


def _numbers(dtype: Any) -> Any:
    """The type of the numbers in lists of lists."""
    while isinstance(dtype, (pl.List, pl.Array)):
        dtype = dtype.inner
    return dtype


def _saved(value: Any, short: bool = False) -> str | bytes:
    """A path, an image of Pillow as a file, or an array as .npy; what is none of them becomes the reason why.

    short: lists are of numbers of 16 bits without sign, which those of Python do not know
    """
    if isinstance(value, (bytes, PurePath)):
        return value if isinstance(value, bytes) else str(value)
    if hasattr(value, "getexif"):  # only a file tells palettes, transparency and how it is to be turned
        out = io.BytesIO()
        try:
            value.save(out, "PNG" if value.mode in _PNG else "TIFF", exif=value.getexif(), compress_level=1)
            return out.getvalue()
        except Exception as error:  # it is read only now, and decoders raise what they like
            return _npy(np.array(f"no image that can be decoded: {type(error).__name__}: {error}"))
    try:
        array = np.asarray(value)
    except ValueError:
        return _npy(np.array("no array: rows of different lengths"))
    if array.dtype.kind not in "iufb":
        return _npy(np.array(f"an array of {array.dtype}, expected numbers"))
    if short and array.dtype.kind == "i":
        array = array.astype(np.uint16)
    return _npy(array.astype(np.uint8) if _small(array) else array)


def _npy(array: Any) -> bytes:
    """The bytes of .npy. One text in place of numbers is a reason, which the reader tells with the id of the item."""
    out = io.BytesIO()
    np.save(out, array, allow_pickle=False)
    return out.getvalue()


def _small(array: Any) -> bool:
    """Whether the numbers are of 8 bits. The type uint16 says that they are of 16, be they as small as they may."""
    if array.dtype.str[1:] == "u2":  # in either order of bytes
        return False
    return array.dtype.kind in "iu" and array.ndim > 1 and array.size > 0 and array.min() >= 0 and array.max() <= 255
