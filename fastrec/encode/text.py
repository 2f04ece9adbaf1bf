"""One text per item, from the fields of the catalogue."""

from typing import Any

from fastrec.types import Catalog

#: How many places of a field inside another are looked at for one that stands on word boundaries; a bound
#: keeps the cost linear for texts like "aaaa...".
_TRIES = 16


def item_texts(catalog: Catalog) -> list[str]:
    """The text of every item, in the order of the rows; "" where an item has none.

    Text columns come first, in their order; then each label column as ``Brand: X.`` or ``Genres: A, B.``.
    White space is collapsed, nulls are skipped, lone surrogates become U+FFFD, and a field that stands
    whole (on word boundaries) in another field of the same item is dropped, the later one of two equals:
    in ml-1m the title is part of the text, and a model that reads it twice weighs it twice.
    The cost is linear in the characters.
    """
    columns = [*catalog.text_columns, *catalog.label_columns]
    values = [[_plain(v) for v in catalog.table.column(name).to_pylist()] for name in columns]
    prefixes = [""] * len(catalog.text_columns) + [_title(name) for name in catalog.label_columns]
    return [_join(row, prefixes) for row in zip(*values, strict=True)] if columns else [""] * catalog.n_items


def clean_unicode(text: str) -> str:
    """The text with lone surrogates replaced by U+FFFD, so that it can be written as UTF-8.

    Such strings come out of JSON with broken escapes; a pair of surrogates becomes its character.
    """
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _plain(value: Any) -> str:
    """The value of a string or list-of-string field as one line."""
    if value is None:
        return ""
    if isinstance(value, str):
        return " ".join(clean_unicode(value).split())
    if isinstance(value, (list, tuple)):
        return ", ".join(filter(None, map(_plain, value)))
    return str(value)  # a number in a label column


def _title(column: str) -> str:
    words = " ".join(column.replace("_", " ").split())
    return f"{words[:1].upper()}{words[1:]}: "


def _join(fields: tuple[str, ...], prefixes: list[str]) -> str:
    kept = [
        f"{prefix}{field}." if prefix else field
        for i, (field, prefix) in enumerate(zip(fields, prefixes, strict=True))
        if field and not any(_repeats(field, other, j < i) for j, other in enumerate(fields) if j != i)
    ]
    return " ".join(kept)


def _repeats(field: str, other: str, other_first: bool) -> bool:
    """Whether ``other`` says all of ``field``; of two equal fields the first one stays."""
    if len(field) >= len(other):
        return other_first and field == other
    at = -1
    for _ in range(_TRIES):
        at = other.find(field, at + 1)
        if at < 0:
            return False
        end = at + len(field)
        before = at == 0 or not (other[at - 1].isalnum() and field[0].isalnum())
        after = end == len(other) or not (other[end].isalnum() and field[-1].isalnum())
        if before and after:
            return True
    return False
