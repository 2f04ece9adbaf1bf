"""What FastRec raises.

    FastRecError
    |- ConfigError(ValueError)          a setting is out of range: names field, value and range
    |- DataError(ValueError)            the input is wrong: names column, row and what was found
    |- NotFittedError(RuntimeError)     fit or load comes first
    |- UnknownIdError(KeyError)         ids that the model has never met
    |- ArtifactError(RuntimeError)      a saved folder is damaged, truncated or of another version
    |- BackendUnavailable(RuntimeError) a backend or a model asked for by name cannot run here
    `- KernelError(RuntimeError)        a native operator failed

Every message starts with where (``[fit]``, ``[score_topk]``), then says what came, what was
expected and, where there is one, the remedy.
"""

from collections.abc import Sequence
from typing import Any

__all__ = [
    "ArtifactError",
    "BackendUnavailable",
    "ConfigError",
    "DataError",
    "FastRecError",
    "KernelError",
    "NotFittedError",
    "UnknownIdError",
]


class FastRecError(Exception):
    """Base of all errors that FastRec raises on purpose."""


class ConfigError(FastRecError, ValueError):
    """A setting is out of range."""


class DataError(FastRecError, ValueError):
    """The input cannot be understood.

    ``column`` and ``row`` (from 0, in the order of the input) name the first offending place where known.
    """

    def __init__(self, message: str, *, column: str | None = None, row: int | None = None) -> None:
        super().__init__(message)
        self.column = column
        self.row = row


class NotFittedError(FastRecError, RuntimeError):
    """The recommender has no model yet."""


class UnknownIdError(FastRecError, KeyError):
    """Ids that the model has never met; ``ids`` lists them all, the message the first few."""

    def __init__(self, where: str, kind: str, ids: Sequence[object]) -> None:
        self.where, self.kind, self.ids = where, kind, list(ids)
        shown = ", ".join(repr(i) for i in self.ids[:5]) + (", ..." if len(self.ids) > 5 else "")
        self.message = f"[{where}] {len(self.ids)} unknown {kind} id(s): {shown}"
        super().__init__(self.message)

    def __str__(self) -> str:  # KeyError would print the repr of the message
        return self.message

    def __reduce__(self) -> tuple[Any, ...]:  # it goes between processes; by default the message is the one argument
        return type(self), (self.where, self.kind, self.ids), self.__dict__


class ArtifactError(FastRecError, RuntimeError):
    """A saved folder cannot be used: the message names the file."""


class BackendUnavailable(FastRecError, RuntimeError):
    """A backend asked for by name cannot run here."""

    def __init__(self, op: str, backend: str, reason: str, remedy: str) -> None:
        super().__init__(f"[{op}] backend {backend!r} is unavailable: {reason}. Remedy: {remedy}")
        self.op, self.backend, self.reason, self.remedy = op, backend, reason, remedy

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.op, self.backend, self.reason, self.remedy), self.__dict__


class KernelError(FastRecError, RuntimeError):
    """A native operator failed."""
