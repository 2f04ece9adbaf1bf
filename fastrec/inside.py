"""What other parts of the package may know and do of a Recommender beyond its public methods, by name.

The server, the inspector and refitting stand outside of it, and this is all that they reach through.
"""

import copy
from typing import Any

from fastrec.recommender import Recommender
from fastrec.state import Settings, State


def state_of(rec: Recommender, call: str) -> State:
    """The state as of now; NotFittedError in the name of ``call`` where there is none."""
    return rec._fitted(call)


def settings_of(rec: Recommender) -> Settings:
    """What it was made with."""
    return rec._settings


def encoder_of(rec: Recommender) -> Any:
    """What reads its texts; None for nothing."""
    return rec._encoder


def media_of(rec: Recommender) -> dict[str, Any]:
    """What reads its images and sounds, by kind."""
    return rec._media


def is_durable(rec: Recommender) -> bool:
    """Whether events outlive the process; a recommender of another make has no say in that."""
    return getattr(rec, "_store", None) is not None


def catch_up(rec: Recommender) -> int:
    """Apply what other processes wrote to its event log; returns how many records that were."""
    return 0 if rec._live is None else rec._live.replay()


def recover(rec: Recommender) -> int:
    """Apply what its event log holds of items that the model came to know later; returns how many events that were."""
    return 0 if rec._live is None else rec._live.recover()


def with_state(rec: Recommender, state: State) -> Recommender:
    """A recommender for reading alone that answers from this state, whatever happens to the other."""
    other = copy.copy(rec)
    other._fitted = lambda call: state  # type: ignore[method-assign]
    return other
