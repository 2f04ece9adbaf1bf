"""Raw tables -> Interactions + Catalog, with a report of everything that was dropped or merged."""

from fastrec.data.catalog import new_items
from fastrec.data.clean import DEFAULT_EVENT_WEIGHTS, Cleaned, clean, event_rows
from fastrec.data.columns import Columns
from fastrec.data.read import read
from fastrec.data.vocab import GrownVocab, Vocab

__all__ = [
    "Cleaned",
    "Columns",
    "DEFAULT_EVENT_WEIGHTS",
    "GrownVocab",
    "Vocab",
    "clean",
    "event_rows",
    "new_items",
    "read",
]
