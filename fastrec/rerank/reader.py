"""Reranking: a causal language model says how likely the titles of the best candidates follow those of the history.

    text(u)  = "<title>\\n<title>\\n ... <newest title>\\n"
    ll(u, i) = ln p(title of i, "\\n" | text(u))
    score(u, i) = fused score + weight (ll(u, i) - min over the candidates of ll(u, .))

The history is read once for all candidates: what attention keeps of it (keys and values) is the shared beginning of
every one of them. Users whose texts have equally many tokens are read together, so that nothing is padded on the left
and any causal model of transformers gives what it gives alone. The fused scores act like logits, and so do log
likelihoods: the weight between them is learned as those of the sources are, and is 0 where the model does not help.

Shape legend: B users, C candidates, L tokens of a history, T of the longest title, V of the vocabulary.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fastrec import modelfiles
from fastrec.errors import ArtifactError, BackendUnavailable, ConfigError
from fastrec.types import F32, I64, Candidates

#: What the likelihood of a title may be: its sum, the mean of a token, or the gain over that without a history.
LIKELIHOODS = ("total", "mean", "lift")
_FORMAT = b"fastrec-rerank-1"
#: Tokens of histories, and candidates, that are read at once, about.
_BATCH_TOKENS, _BATCH_ROWS = {"cpu": 1024, "cuda": 16384}, {"cpu": 32, "cuda": 512}


@dataclass(frozen=True)
class Rerank:
    """Settings of the last stage: which language model reads the candidates, and how."""

    model: str
    """Folder or Hugging Face id of a causal language model of transformers, such as "gpt2"."""

    candidates: int = 20
    """How many of the best candidates are read; what stands behind them keeps its place."""

    weight: float | str = "learned"
    """Of a unit of log likelihood beside the fused score; "learned": on the holdout, where a model that does not help
    gets 0. A model that was trained on the last events looks better there than it is: train it on what lies before."""

    history: int = 10
    """Titles of a history that are read, the newest."""

    characters: int = 80
    """Of a title that are read."""

    likelihood: str = "total"
    """"total": ln p of the whole title, right for a model trained on behaviour; "mean": by its tokens; "lift": less
    ln p of the title without any history, for a model that knows language alone."""

    prompt: str = ""
    """Written before the titles of the history."""

    sample: int = 500
    """Users, at most, that teach the weight."""

    device: str = "auto"
    """"auto", "cpu" or "cuda"."""

    def __post_init__(self) -> None:
        modelfiles.check_name(self.model, "rerank", "model")
        object.__setattr__(self, "model", str(self.model))
        for name in ("candidates", "history", "characters", "sample"):
            value, least = getattr(self, name), 2 if name == "candidates" else 1
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ConfigError(f"[rerank] {name}={value!r}, expected a whole number >= {least}")
        w = self.weight
        number = isinstance(w, (int, float)) and not isinstance(w, bool) and 0 <= w < float("inf")
        if w != "learned" and not number:
            raise ConfigError(f"[rerank] weight={w!r}, expected a number >= 0 or 'learned'")
        if not isinstance(self.prompt, str):
            raise ConfigError(f"[rerank] prompt={self.prompt!r}, expected a str")
        for name, choices in (("likelihood", LIKELIHOODS), ("device", ("auto", "cpu", "cuda"))):
            if getattr(self, name) not in choices:
                raise ConfigError(f"[rerank] {name}={getattr(self, name)!r}, expected one of {', '.join(choices)}")


def history_text(titles: Sequence[str], prompt: str = "") -> str:
    """What the model reads of a history, oldest title first; also the form to train one in: ``titles`` of one user."""
    return prompt + "".join(f"{title}\n" for title in titles)


@dataclass
class Cost:
    """What reading has cost so far; tokens of histories are read once a user, those of titles once a candidate."""

    users: int = 0
    history_tokens: int = 0
    title_tokens: int = 0


@dataclass(eq=False)
class Reader:
    """The language model of a ``Rerank``, loaded at the first use. Safe to share between threads: one reads at a time.

    Raises BackendUnavailable where the model or the device cannot be had, ArtifactError for a damaged folder.
    """

    settings: Rerank
    cost: Cost = field(default_factory=Cost)
    _lock: Any = field(default_factory=threading.RLock, repr=False)
    _loaded: Any = field(default=None, repr=False)
    _folder: Path | None = field(default=None, repr=False)
    _alone: dict[str, float] = field(default_factory=dict, repr=False)
    _tokens: dict[str, list[int]] = field(default_factory=dict, repr=False)

    @property
    def fingerprint(self) -> str:
        """32 hex digits that change with the files of the model. Does not load it."""
        return modelfiles.digest(self._located(), _FORMAT, "rerank")

    def likelihoods(self, histories: Sequence[Sequence[str]], candidates: Sequence[Sequence[str]]) -> list[F32]:
        """ln p of each user's candidates by ``settings.likelihood``, float32 [C_u]; NaN for a title without a token.

        histories: titles of each of B users, oldest first; candidates: titles of the C_u candidates of each
        """
        titles = [[title.strip() for title in row] for row in candidates]
        found = self._read([[t for t in h if t] for h in histories], titles)
        if self.settings.likelihood == "lift":
            with self._lock:
                self._read_alone(sorted({t for row in titles for t in row} - self._alone.keys()))
                found = [
                    f - np.array([self._alone[t] for t in row], np.float32)
                    for f, row in zip(found, titles, strict=True)
                ]
        return found

    def _read_alone(self, titles: Sequence[str]) -> None:
        for start in range(0, len(titles), 256):
            some = list(titles[start : start + 256])
            self._alone.update(zip(some, self._read([[]], [some])[0].tolist(), strict=True))

    def _read(self, histories: Sequence[Sequence[str]], candidates: Sequence[Sequence[str]]) -> list[F32]:
        """ln p of candidates; the sum or, where asked for, the mean of the tokens, and NaN where there are none."""
        out = [np.full(len(row), np.nan, np.float32) for row in candidates]
        with self._lock:
            model = self._load()
            titles = [[self._ids(f"{t}\n" if t else "")[: model.most // 2] for t in row] for row in candidates]
            readable = [[i for i, title in enumerate(row) if title] for row in titles]
            contexts = [
                self._context(h, model.most - max(map(len, row), default=0))
                for h, row in zip(histories, titles, strict=True)
            ]
            lengths = np.array([len(c) for c in contexts], np.int64)
            for batch in _equal(lengths, np.array([len(row) for row in readable], np.int64), model.device.type):
                found = model.read([contexts[u] for u in batch], [[titles[u][i] for i in readable[u]] for u in batch])
                for u, logs in zip(batch.tolist(), found, strict=True):
                    mean = self.settings.likelihood == "mean"
                    out[u][readable[u]] = logs / [len(titles[u][i]) if mean else 1 for i in readable[u]]
                self.cost.users += len(batch)
                self.cost.history_tokens += int(lengths[batch].sum())
                self.cost.title_tokens += sum(len(t) for u in batch for t in titles[u])
        return out

    def _context(self, history: Sequence[str], room: int) -> list[int]:
        """Tokens of a history that leave room for a title: the oldest titles go first."""
        model = self._load()
        head = [*model.begin, *self._ids(self.settings.prompt)] or model.blank
        parts = [self._ids(f"{title}\n") for title in history]
        while parts and len(head) + sum(map(len, parts)) > room:
            parts.pop(0)
        return (head + [token for part in parts for token in part])[:room]

    def _ids(self, text: str) -> list[int]:
        """Tokens of a text without special ones."""
        if text not in self._tokens:
            if len(self._tokens) > 200_000:
                self._tokens.clear()
            self._tokens[text] = self._load().tokenize(text)
        return self._tokens[text]

    def _located(self) -> Path:
        with self._lock:
            if self._folder is None:
                self._folder = modelfiles.locate(self.settings.model, "rerank", "model")
            return self._folder

    def _load(self) -> Any:
        with self._lock:
            if self._loaded is None:
                try:
                    from fastrec.rerank.causal import CausalModel
                except ImportError as error:
                    raise BackendUnavailable("rerank", self.settings.model, str(error), "pip install torch") from error
                self._loaded = CausalModel(self._located(), self.settings.device)
            return self._loaded


def _equal(lengths: I64, rows: I64, device: str) -> list[I64]:
    """Batches of users whose histories have equally many tokens; those without a candidate are in none."""
    out = []
    for length in np.unique(lengths):
        users = np.flatnonzero((lengths == length) & (rows > 0))
        size = max(1, min(_BATCH_TOKENS[device] // max(int(length), 1), _BATCH_ROWS[device] // max(int(rows.max()), 1)))
        out += [users[start : start + size] for start in range(0, len(users), size)]
    return out


def bonus(likelihoods: F32, weight: float) -> F32:
    """What the likelihoods of one user's candidates add to their scores, float32 [C]; >= 0, so that none falls below
    what stands behind the candidates. A candidate without a title counts as the mean of the others."""
    known = np.isfinite(likelihoods)
    if weight == 0 or not known.any():
        return np.zeros(len(likelihoods), np.float32)
    filled = np.where(known, likelihoods, likelihoods[known].mean())
    out: F32 = (weight * (filled - filled.min())).astype(np.float32)
    return out


def reordered(found: Candidates, added: F32) -> tuple[Candidates, F32]:
    """(candidates in the new order, what was added to each), score descending, then the old order.

    added: float32 [B, k], 0 where nothing was
    """
    scores = (found.scores + added).astype(np.float32)
    order = np.argsort(-scores, axis=1, kind="stable")
    rows = np.take_along_axis(found.rows, order, axis=1)
    return Candidates(rows, np.take_along_axis(scores, order, axis=1)), np.take_along_axis(added, order, axis=1)


def as_rerank(spec: Any) -> Rerank | None:
    """From None, a model id or folder, a Rerank, or a dict as an artifact keeps it; ConfigError for anything else."""
    if spec is None or isinstance(spec, Rerank):
        return spec
    if isinstance(spec, dict):
        return Rerank(**spec)
    if isinstance(spec, (str, Path)):
        return Rerank(str(spec))
    raise ConfigError(f"[Recommender] rerank={spec!r}, expected a model id or folder, a Rerank(...), or None")


def check_fingerprint(folder: Any, reader: Reader, wanted: str | None) -> None:
    """ArtifactError where the model in ``folder`` was fitted with other weights of the language model."""
    if wanted is not None and reader.fingerprint != wanted:
        raise ArtifactError(
            f"[load] {folder}: the model {reader.settings.model!r} that reranks has other weights now; restore them, "
            "fit again, or load with rerank=False"
        )
