"""FastRec: served, explained, filtered top-k recommendations from one object."""

from fastrec.client import AsyncClient, Client
from fastrec.encode import Tuning
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
from fastrec.fine_tune import tune
from fastrec.models import (
    Als,
    Audio,
    Content,
    Directed,
    Gan,
    Image,
    ItemItem,
    Knowledge,
    Popularity,
    Sequential,
    UserText,
)
from fastrec.recommender import Recommender, load
from fastrec.rerank import Rerank
from fastrec.results import Evaluation, Recommendations

__version__ = "0.1.0"

__all__ = [
    "Als",
    "ArtifactError",
    "AsyncClient",
    "Audio",
    "BackendUnavailable",
    "Client",
    "ConfigError",
    "Content",
    "DataError",
    "Directed",
    "Evaluation",
    "FastRecError",
    "Gan",
    "Image",
    "ItemItem",
    "KernelError",
    "Knowledge",
    "NotFittedError",
    "Popularity",
    "Recommendations",
    "Recommender",
    "Rerank",
    "Sequential",
    "Tuning",
    "UnknownIdError",
    "UserText",
    "load",
    "tune",
]
