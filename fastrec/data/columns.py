"""The names of the columns that FastRec reads, in one place."""

from dataclasses import dataclass, fields

from fastrec.errors import ConfigError


@dataclass(frozen=True)
class Columns:
    """Names of the event columns in the caller's table; the field names are FastRec's own."""

    user_id: str = "user_id"
    item_id: str = "item_id"
    timestamp: str = "timestamp"
    event: str = "event"
    value: str = "value"
    """A column ``rating`` is read as the value where this one is absent."""
    text: str = "text"

    def __post_init__(self) -> None:
        names = [getattr(self, f.name) for f in fields(self)]
        for field, name in zip(fields(self), names, strict=True):
            if not isinstance(name, str) or not name:
                raise ConfigError(f"[columns] {field.name}={name!r}, expected the name of a column")
        if len(set(names)) != len(names):
            raise ConfigError(f"[columns] names {names} repeat, expected one column each")

    @property
    def all(self) -> tuple[str, ...]:
        """Every name that cleaning looks for."""
        return (*(getattr(self, f.name) for f in fields(self)), "rating")

    @property
    def renamed(self) -> dict[str, str]:
        """{our own name: the caller's} where they differ: such a column was asked for and must be there."""
        return {f.name: name for f in fields(self) if (name := getattr(self, f.name)) != f.default}
