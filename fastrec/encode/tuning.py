"""Tuning: the encoder learns from behaviour that the text of a history stands near to the text of what came next.

    loss = mean_i -log( e^(s_ii) / (e^(s_ii) + sum_{j != i} e^(s_ij - log E_j)) ),  s_ij = <h_i, t_j> / temperature

h_i the vector of a history's text, t_j that of the next item of pair j, E_j the expected number of times that the item
of j is drawn into a batch: without it popular items would be pushed away for being drawn often. A pair of the same
item is no negative. Sources: in-batch negatives as in Karpukhin et al. 2020, the correction of Yi et al. 2019.
"""

import json
import math
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from fastrec.encode.encoder import Encoder
from fastrec.errors import BackendUnavailable, ConfigError, DataError
from fastrec.types import I64, Interactions
from fastrec.usertext import joined, shortened

#: Share of the time whose events are the holdout, and users of it.
_HELD, _HELD_USERS = 0.1, 500
REPORT = "fastrec_tuning.json"


@dataclass(frozen=True)
class Tuning:
    """Settings of the fine-tuning of an encoder."""

    method: str = "full"
    """"full": all weights; "lora": low-rank additions to the linear layers (peft), merged into them at the end."""

    rank: int = 16
    """Of the additions of "lora"."""

    steps: int = 300
    """Steps of the optimiser, at most; the learning rate rises for a tenth of them, then falls to zero."""

    batch: int = 64
    """Pairs of a step; each is a negative of the others."""

    learning_rate: float | None = None
    """The largest, of AdamW; None: 3e-5, with "lora" 3e-4."""

    weight_decay: float = 0.01
    """Of AdamW, for matrices."""

    temperature: float = 0.05
    """Divides the cosine of two texts."""

    last: int = 8
    """Entries of a history that are written, the newest, as in ``UserText``."""

    characters: int = 80
    """Of an item's text in a history."""

    item_characters: int = 200
    """Of the text of the next item."""

    every: int = 50
    """Steps between two looks at the holdout."""

    patience: int = 3
    """Looks without a better NDCG@10 after which it ends."""

    seed: int = 0
    """Of everything random."""

    def __post_init__(self) -> None:
        if self.method not in ("full", "lora"):
            raise ConfigError(f"[tune] method={self.method!r}, expected 'full' or 'lora'")
        for field in ("rank", "steps", "last", "characters", "item_characters", "every", "patience"):
            _check_whole(field, getattr(self, field), 1)
        _check_whole("batch", self.batch, 2)
        _check_whole("seed", self.seed, 0)
        for field in ("temperature", "learning_rate", "weight_decay"):
            value = getattr(self, field)
            if value is None and field == "learning_rate":
                continue
            number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
            if not number or value < 0 or (value == 0 and field != "weight_decay"):
                raise ConfigError(f"[tune] {field}={value!r}, expected a number > 0")

    @property
    def rate(self) -> float:
        return self.learning_rate or (3e-4 if self.method == "lora" else 3e-5)


@dataclass(frozen=True, eq=False)
class Pairs:
    """Histories and what came next, in item rows.

    rows: int64 [n], the entries of all histories; the history of a pair is rows[first:last]
    first, last, targets: int64 [P]
    """

    rows: I64
    first: I64
    last: I64
    targets: I64

    def text(self, pair: int, titles: Sequence[str]) -> str:
        """The history of a pair as ``usertext.written`` writes it."""
        return joined(titles, self.rows[self.first[pair] : self.last[pair]].tolist())


def pairs_of(interactions: Interactions, texts: Sequence[str], last: int, seed: int) -> tuple[Pairs, Pairs]:
    """(to learn from, of the holdout): pairs whose ends have texts; each user of the holdout has one.

    The holdout begins at the 0.9 quantile of time: a pair is of it when its target is. DataError where nothing is
    left to learn from.
    """
    likes = interactions.select(interactions.weights > 0)
    likes = likes.select(np.array([bool(text) for text in texts], np.bool_)[likes.items])
    cut = float(np.quantile(likes.times, 1 - _HELD)) if len(likes.items) else 0.0
    place = np.arange(len(likes.items)) - np.repeat(likes.indptr[:-1], np.diff(likes.indptr))
    after = np.flatnonzero(place > 0)
    late = likes.times[after] > cut
    learned, later = after[~late], after[late]
    if not len(learned):
        raise DataError(
            f"[tune] no user has two events of items with texts among {len(interactions.items):,} events; expected "
            "items with a title, and users who chose at least two of them"
        )
    _, fresh = np.unique(likes.users[later], return_index=True)  # the first event of each user after the cut
    held = np.sort(np.random.default_rng(seed).permutation(later[fresh])[:_HELD_USERS])
    rows = likes.items.astype(np.int64)
    learn, hold = (Pairs(rows, np.maximum(a - place[a], a - last), a, rows[a]) for a in (learned, held))
    return learn, hold


def tune(
    encoder: Encoder, interactions: Interactions, texts: Sequence[str], out: str | os.PathLike[str], tuning: Tuning
) -> Encoder:
    """Fine-tune a copy of the encoder and write it to ``out``, a folder as any other model; the encoder of it.

    interactions: histories over N items; texts: N, "" for an item without one
    The weights are those that were best on the holdout; the ones it came with take part. ``out`` also holds
    fastrec_tuning.json with settings and measurements.
    Raises ConfigError where ``out`` exists or the loss is not finite, DataError without pairs, BackendUnavailable
    where "lora" lacks peft.
    """
    target = Path(out).absolute()
    if target.exists() or not target.parent.is_dir():
        raise ConfigError(f"[tune] out={str(out)!r}, expected a new folder in one that exists")
    if tuning.method == "lora":
        try:
            import peft  # noqa: F401
        except ImportError as error:
            remedy = "pip install 'fastrec-engine[tune]', or method='full'"
            raise BackendUnavailable("tune", "lora", str(error), remedy) from error
    learned, held = pairs_of(interactions, texts, tuning.last, tuning.seed)
    from fastrec.encode import contrast  # brings torch

    titles = [shortened(text, tuning.characters) for text in texts]
    whole = [shortened(text, tuning.item_characters) for text in texts]
    trainer = contrast.Trainer(*encoder.located, tuning, titles, whole, encoder.device)
    report = trainer.run(learned, held)
    beside = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        trainer.save(beside)
        (beside / REPORT).write_text(json.dumps({"settings": asdict(tuning), **report}, indent=2) + "\n")
        beside.chmod(0o755)
        beside.rename(target)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
    return encoder.of(target)


def _check_whole(field: str, value: object, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(f"[tune] {field}={value!r}, expected a whole number >= {least}")
