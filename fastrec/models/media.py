"""Image and Audio: items that look or sound like what the user chose lately; of those without a file they say nothing.

The vectors are those of the encoder less their mean over the items that have a file: an item without one stands at the
mean, and neither gains nor loses by it.
"""

from dataclasses import dataclass
from typing import ClassVar

from fastrec.models._decay import check_decay, decay_variants, resolve_decay
from fastrec.types import DenseSource, Embeddings, Interactions


@dataclass(frozen=True)
class Image:
    """Settings of the source of images; it needs ``Recommender(image_encoder=...)``."""

    decay: float | str | None = "auto"
    """A history entry of rank r (newest 0) weighs exp(-r / decay); None for no decay; "auto": learned."""

    name: ClassVar[str] = "image"

    def __post_init__(self) -> None:
        check_decay(self.name, self.decay)

    variants = decay_variants

    def fit(self, interactions: Interactions, embeddings: Embeddings | None, goal: str) -> DenseSource | None:
        """The vectors as they are; None where no item has an image."""
        return _fit(self, embeddings, goal)


@dataclass(frozen=True)
class Audio:
    """Settings of the source of sounds; it needs ``Recommender(audio_encoder=...)``."""

    decay: float | str | None = "auto"
    """A history entry of rank r (newest 0) weighs exp(-r / decay); None for no decay; "auto": learned."""

    name: ClassVar[str] = "audio"

    def __post_init__(self) -> None:
        check_decay(self.name, self.decay)

    variants = decay_variants

    def fit(self, interactions: Interactions, embeddings: Embeddings | None, goal: str) -> DenseSource | None:
        """The vectors as they are; None where no item has a sound."""
        return _fit(self, embeddings, goal)


def _fit(model: Image | Audio, embeddings: Embeddings | None, goal: str) -> DenseSource | None:
    found = None if embeddings is None else embeddings.media.get(model.name)
    if found is None or not found.vectors.any():
        return None
    return DenseSource(model.name, found.vectors, resolve_decay(model.decay, goal, next_item=1.0, period=5.0))
