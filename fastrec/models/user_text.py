"""UserText: what the user did, written as text, and items whose texts the language model finds near to it."""

import logging
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fastrec import usertext
from fastrec.errors import ConfigError
from fastrec.models._settings import check_whole
from fastrec.types import Embeddings, Interactions
from fastrec.usertext import TextSource

log = logging.getLogger("fastrec")

#: Histories that the stand-in is learned from.
_SAMPLE = 1000


@dataclass(frozen=True)
class UserText:
    """Settings of the source that reads histories."""

    last: int = 8
    """Entries of a history that are written, the newest."""

    characters: int = 80
    """Of an item's text that are written. With ``last`` it bounds the text: an encoder cuts off the end of a longer
    one, which is where the newest entry stands."""

    exact: bool = True
    """Whether the encoder reads every history, some milliseconds for one that it has not read before; False: a linear
    stand-in learned from what it reads, which costs nothing, and whose mean cosine to it the log of ``fit`` tells."""

    name: ClassVar[str] = "user_text"

    def __post_init__(self) -> None:
        for field in ("last", "characters"):
            check_whole(self.name, field, getattr(self, field))
        if not isinstance(self.exact, bool):
            raise ConfigError(f"[user_text] exact={self.exact!r}, expected True or False")

    def variants(self, source: TextSource, interactions: Interactions) -> list[tuple["UserText", TextSource]]:
        """The source as it is: nothing of it is left open."""
        return [(self, source)]

    def fit(self, interactions: Interactions, embeddings: Embeddings | None, goal: str) -> TextSource | None:
        """The item texts and the stand-in; None where items have no text or no history has one that has."""
        if embeddings is None or embeddings.texts is None:
            return None
        whole = embeddings.texts.items()
        vectors = embeddings.vectors if embeddings.texts.alone else embeddings.texts.encode(whole)
        titles = tuple(usertext.shortened(text, self.characters) for text in whole)
        texts = usertext.written(titles, interactions, self.last)
        able = np.flatnonzero([bool(text) for text in texts])
        if not len(able):
            return None
        sample = np.sort(np.random.default_rng(0).permutation(able)[:_SAMPLE])
        read = embeddings.texts.encode([texts[u] for u in sample])
        places, offset, cosine = usertext.stand_in(vectors, interactions.take(sample), self.last, read)
        log.info("[fit] user_text: the linear stand-in has a mean cosine of %.3f to what the encoder reads", cosine)
        return TextSource(
            self.name, np.ascontiguousarray(vectors), None, titles, self.last, self.characters, embeddings.texts.encode,
            places, offset, cosine, self.exact,
        )  # fmt: skip
