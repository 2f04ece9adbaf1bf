"""FastRec: served, explained, filtered top-k recommendations from one object."""

from fastrec.errors import (
    ArtifactError,
    BackendUnavailable,
    ConfigError,
    DataError,
    FastRecError,
    KernelError,
    NotFittedError,
    UnknownIdError,
)
from fastrec.models import Als, Content, Directed, ItemItem, Popularity, Sequential
from fastrec.recommender import Recommender, load
from fastrec.results import Evaluation, Recommendations

__version__ = "0.1.0"

__all__ = [
    "Als",
    "ArtifactError",
    "BackendUnavailable",
    "ConfigError",
    "Content",
    "DataError",
    "Directed",
    "Evaluation",
    "FastRecError",
    "ItemItem",
    "KernelError",
    "NotFittedError",
    "Popularity",
    "Recommendations",
    "Recommender",
    "Sequential",
    "UnknownIdError",
    "load",
]
