"""Raw tables -> Interactions + Catalog, with a report of everything that was dropped or merged."""

from fastrec.data.clean import DEFAULT_EVENT_WEIGHTS, Cleaned, clean
from fastrec.data.columns import Columns
from fastrec.data.read import read
from fastrec.data.vocab import Vocab

__all__ = ["Cleaned", "Columns", "DEFAULT_EVENT_WEIGHTS", "Vocab", "clean", "read"]
