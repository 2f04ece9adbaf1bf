"""What outlives the process: artifacts on disk, and the log of what happened since."""

from fastrec.store.events import EventStore, Record, open_store
from fastrec.store.seal import Sealer, derive, read_key

__all__ = ["derive", "EventStore", "open_store", "read_key", "Record", "Sealer"]
