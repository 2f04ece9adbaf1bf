"""Sequential: a transformer that reads the history in its order and gives the next item.

It learns as a language model does: at every place of a history the next item, against negatives that neighbouring
places share. The vector of an item is its text embedding, projected, plus a trainable part of its own, so that an
item without events is scored as well where it has a text. The query of a user is the last state: a new event counts at
once, without any training.
"""

import dataclasses
import math
from dataclasses import dataclass
from typing import ClassVar

from fastrec.errors import ConfigError
from fastrec.models._settings import check_whole
from fastrec.sequence import BACKBONES
from fastrec.types import Embeddings, Interactions, SequenceSource


@dataclass(frozen=True)
class Sequential:
    """Settings of the sequential source."""

    backbone: str = "ligr"
    """"ligr" (gated residuals, SwiGLU), "sasrec" or "gpt2"."""

    width: int = 64
    """Dimensions of the item vectors and the states."""

    layers: int = 2
    """Blocks of the transformer."""

    heads: int = 1
    """Heads of the attention."""

    length: int = 100
    """Newest entries of a history that are looked at; longer ones are learned in windows of this length."""

    epochs: int | None = None
    """Passes over the data, at most; the learning rate falls to zero over them. None: those of about 1500 steps,
    from 4 to 40."""

    stop: int | None = None
    """Passes after which to end without a holdout; None: early stopping on one."""

    patience: int = 4
    """Passes without a better NDCG@10 on the holdout after which the training ends."""

    batch_tokens: int = 8192
    """Events of a step, about."""

    negatives: int = 256
    """Negatives of a token; neighbouring tokens share them."""

    negative_power: float = 0.5
    """They are drawn with the probability count^power."""

    temperature: float = 0.07
    """Divides the cosine of state and item."""

    learning_rate: float = 0.004
    """The largest; reached after a twentieth of the steps."""

    weight_decay: float = 0.01
    """Of AdamW, for matrices."""

    dropout: float = 0.15
    """Share of the activations that a step leaves out."""

    gradient_norm: float = 1.0
    """Longer gradients are clipped to this length."""

    time_gaps: bool = False
    """Add an embedding of the time since the entry before."""

    strengths: bool = False
    """Add an embedding of the weight of the event: what its kind counts, or the stars."""

    kinds: bool = False
    """Add an embedding of the kind of the event: "view", "cart", "purchase", ..."""

    device: str = "auto"
    """"auto", "cpu" or "cuda", for training; on CUDA it computes in bfloat16."""

    checkpoint: str | None = None
    """Folder where a training leaves its state after every pass; a killed one goes on from there."""

    seed: int | None = None
    """Of everything random; None: that of the Recommender."""

    name: ClassVar[str] = "sequential"

    def __post_init__(self) -> None:
        if self.backbone not in BACKBONES:
            raise ConfigError(f"[sequential] backbone={self.backbone!r}, expected one of {', '.join(BACKBONES)}")
        if self.device not in ("auto", "cpu", "cuda"):
            raise ConfigError(f"[sequential] device={self.device!r}, expected 'auto', 'cpu' or 'cuda'")
        for field in ("width", "layers", "heads", "length", "patience", "batch_tokens", "negatives"):
            check_whole(self.name, field, getattr(self, field))
        for field in ("epochs", "stop", "seed"):
            if getattr(self, field) is not None:
                check_whole(self.name, field, getattr(self, field), 0 if field == "seed" else 1)
        if self.width % self.heads:
            raise ConfigError(f"[sequential] heads={self.heads}, expected a divisor of width={self.width}")
        for field in ("temperature", "learning_rate", "gradient_norm"):
            _check_number(field, getattr(self, field), 0, math.inf, above=True)
        for field, most in (("weight_decay", math.inf), ("negative_power", math.inf), ("dropout", 0.95)):
            _check_number(field, getattr(self, field), 0, most, above=False)
        for field in ("time_gaps", "strengths", "kinds"):
            if not isinstance(getattr(self, field), bool):
                raise ConfigError(f"[sequential] {field}={getattr(self, field)!r}, expected True or False")
        if self.checkpoint is not None and not isinstance(self.checkpoint, str):
            raise ConfigError(f"[sequential] checkpoint={self.checkpoint!r}, expected a folder as str, or None")

    def fit(self, interactions: Interactions, embeddings: Embeddings | None, goal: str) -> SequenceSource | None:
        """The trained transformer; None where no history has two entries of weight."""
        from fastrec.models import _training  # brings torch: not for everybody who imports fastrec

        return _training.train(self, interactions, embeddings, goal)

    def variants(self, source: SequenceSource, interactions: Interactions) -> list[tuple["Sequential", SequenceSource]]:
        """(settings, source): early stopping chose the number of passes, the next fit takes it as given.

        Its learning rate reaches zero at their end, as in any training.
        """
        return [(dataclasses.replace(self, epochs=source.epochs, stop=source.epochs), source)]


def _check_number(field: str, value: object, least: float, most: float, *, above: bool) -> None:
    good = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if not good or not (least < value if above else least <= value) or value > most:  # type: ignore[operator]
        wanted = f"{'>' if above else '>='} {least}" + (f" and <= {most}" if math.isfinite(most) else "")
        raise ConfigError(f"[sequential] {field}={value!r}, expected a number {wanted}")
