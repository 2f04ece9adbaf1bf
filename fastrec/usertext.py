"""What a user did, written as text and read by the language model: how a history becomes the query of a TextSource.

    text(u) = "<newest but last - 1>; ...; <newest>"      query(u) = encode(text(u)), dotted with the item text vectors

Reading costs milliseconds a history, and no time for one that the cache of the encoder holds: a text is made of the
newest entries alone, so only who has done something is read again. The stand-in needs no reading at all: the linear
map of the item vectors by place that comes nearest to the vectors read,

    query(u) ~ offset + 1/n * sum_r places_r v(item at rank r),  n entries of the text, rank 0 the newest
"""

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from fastrec.errors import ConfigError
from fastrec.side import unit
from fastrec.types import F32, F64, DenseSource, Interactions


@dataclass(frozen=True, eq=False)
class TextSource(DenseSource):
    """The history as text: q is what the encoder makes of it.

    vectors: [N, E], of the item texts, L2-normalised; zero for an item without text
    titles: N short texts, "" for an item without one
    last: entries of a history that are written, the newest
    characters: of an item's text that are written
    read: texts -> float32 [n, E]; None where there is no encoder
    places: float32 [last], offset: float32 [E]: the stand-in
    cosine: mean cosine of the stand-in to what the encoder gives, over the histories that it was learned from
    exact: whether queries are read; else the stand-in answers
    """

    titles: tuple[str, ...]
    last: int
    characters: int
    read: Callable[[Sequence[str]], F32] | None
    places: F32
    offset: F32
    cosine: float
    exact: bool


def written(titles: Sequence[str], histories: Interactions, last: int) -> list[str]:
    """The text of every history, "" for one of which nothing can be said: its newest entries of weight, newest last."""
    likes = histories.select(histories.weights > 0)
    out = []
    for begin, end in itertools.pairwise(likes.indptr.tolist()):
        out.append(joined(titles, likes.items[max(begin, end - last) : end].tolist()))
    return out


def joined(titles: Sequence[str], items: Iterable[int]) -> str:
    """The text of these items, in their order."""
    return "; ".join(filter(None, (titles[item] for item in items)))


def windows(titles: Sequence[str], last: int) -> list[str]:
    """Every text that may have been written for a history of entries with these titles while it grew."""
    return [joined(titles, range(max(0, end - last), end)) for end in range(1, len(titles) + 1)]


def shortened(text: str, characters: int) -> str:
    """The beginning of a text, cut between words where there is one in the second half."""
    if len(text) <= characters:
        return text
    cut = text[:characters]
    return cut.rsplit(" ", 1)[0] if " " in cut[characters // 2 :] else cut


def queries(source: TextSource, histories: Interactions) -> F32:
    """The query of every user, float32 [B, E], L2-normalised; zero where nothing is known.

    Raises ConfigError where texts must be read and there is no encoder.
    """
    if not source.exact:
        design = by_place(source.vectors, histories, source.last)
        known = np.any(design != 0, axis=(1, 2))
        found = np.einsum("ble,l->be", design, source.places) + source.offset
        return unit(np.where(known[:, None], found, np.float32(0)).astype(np.float32))
    if source.read is None:
        raise ConfigError(
            f"[{source.name}] histories are read by the encoder, and this model has none: hand it to "
            "fastrec.load(folder, encoder=...), or fit with UserText(exact=False)"
        )
    return unit(source.read(written(source.titles, histories, source.last)))


def contributions(source: TextSource, history: Interactions, target: int) -> F64:
    """What every entry of one user's history adds to the score of ``target``, by the stand-in, float64 [n]; >= 0."""
    parts = np.zeros(len(history.items))
    kept = np.flatnonzero(history.weights > 0)[-source.last :]
    likeness = source.vectors[history.items[kept]].astype(np.float64) @ source.vectors[target].astype(np.float64)
    parts[kept] = np.maximum(source.places[: len(kept)][::-1] * likeness, 0.0)
    return parts


def by_place(vectors: F32, histories: Interactions, last: int) -> F32:
    """The item vectors of the newest entries of weight by their number, float32 [B, last, E]; the newest first."""
    likes = histories.select(histories.weights > 0)
    counts = np.diff(likes.indptr)
    rank = np.repeat(likes.indptr[1:], counts) - 1 - np.arange(len(likes.items))
    near = rank < last
    out = np.zeros((likes.n_users, last, vectors.shape[1]), np.float32)
    users = likes.users[near]
    share = 1 / np.minimum(counts, last)[users]
    out[users, rank[near]] = vectors[likes.items[near]] * share[:, None].astype(np.float32)
    return out


def stand_in(vectors: F32, histories: Interactions, last: int, read: F32) -> tuple[F32, F32, float]:
    """(places [last], offset [E], mean cosine) of the least squares fit to what was read, float32 [B, E]."""
    design = by_place(vectors, histories, last).astype(np.float64)
    centre, target = design.mean(axis=0), read.mean(axis=0, dtype=np.float64)
    apart, wanted = design - centre, read - target
    gram = np.einsum("ble,bme->lm", apart, apart)
    gram[np.diag_indices(last)] += 1e-6 * max(float(np.trace(gram)), 1e-12)
    places = np.linalg.solve(gram, np.einsum("ble,be->l", apart, wanted))
    offset = target - places @ centre
    found = np.einsum("ble,l->be", design, places) + offset
    lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(read, axis=1)
    cosine = float(((found * read).sum(axis=1) / np.maximum(lengths, 1e-12)).mean()) if len(read) else 1.0
    return places.astype(np.float32), offset.astype(np.float32), cosine
