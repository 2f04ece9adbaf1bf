"""Content: items whose texts mean the same as what the user chose lately."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fastrec.models._decay import check_decay, decay_variants, resolve_decay
from fastrec.types import DenseSource, Embeddings, Interactions


@dataclass(frozen=True)
class Content:
    """Settings of the content source."""

    decay: float | str | None = "auto"
    """A history entry of rank r (newest 0) weighs exp(-r / decay); None for no decay; "auto": by goal."""

    name: ClassVar[str] = "content"

    def __post_init__(self) -> None:
        check_decay(self.name, self.decay)

    variants = decay_variants

    def fit(self, interactions: Interactions, embeddings: Embeddings | None, goal: str) -> DenseSource | None:
        """The embeddings as they are; None where no item has content."""
        if embeddings is None or not embeddings.known.any():
            return None
        vectors = np.ascontiguousarray(embeddings.vectors)
        return DenseSource(self.name, vectors, resolve_decay(self.decay, goal, next_item=1.0, period=5.0))
