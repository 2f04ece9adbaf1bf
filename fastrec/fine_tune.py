"""The wiring of ``tune``: raw tables to a tuned encoder."""

import os
from typing import Any

from fastrec import data, encode
from fastrec.encode import tuning as tunings
from fastrec.errors import ConfigError, DataError


def tune(
    interactions: Any,
    items: Any,
    out: str | os.PathLike[str],
    *,
    encoder: Any = "minilm",
    tuning: encode.Tuning | None = None,
    user_id: str = "user_id",
    item_id: str = "item_id",
    timestamp: str = "timestamp",
    event: str = "event",
    value: str = "value",
    device: str = "auto",
    cache_dir: str | os.PathLike[str] | None = None,
) -> encode.Encoder:
    """Fine-tune a language model on behaviour, so that the text of a history is near to that of the next item.

    interactions, items: as in ``Recommender.fit``; the items need texts
    out: a new folder, written as sentence-transformers writes one: hand it, or the result, to ``Recommender`` as its
        encoder, with ``UserText()`` among the models
    encoder: "minilm", a model id or folder, or an ``Encoder``; a causal model reads by its last token
    tuning: the settings, ``Tuning()`` by default
    Training stops early by a temporal holdout, and never ends with other weights than the best on it.
    Raises DataError for data without texts or without two events of a user, ConfigError for settings.
    """
    settings = encode.Tuning() if tuning is None else tuning
    if not isinstance(settings, encode.Tuning):
        raise ConfigError(f"[tune] tuning is {type(tuning).__name__}, expected a Tuning or None")
    model = encode.as_encoder(encoder, device=device, cache_dir=cache_dir)
    if not isinstance(model, encode.Encoder):
        raise ConfigError(f"[tune] encoder={encoder!r}, expected a model id or folder or an Encoder: it has no weights")
    columns = data.Columns(user_id=user_id, item_id=item_id, timestamp=timestamp, event=event, value=value)
    cleaned = data.clean(interactions, items, columns=columns, where="tune")
    texts = encode.item_texts(cleaned.catalog)
    if not any(texts):
        raise DataError("[tune] items has no text; expected a column like title, text or description")
    return tunings.tune(model, cleaned.interactions, texts, out, settings)
