"""Bodies of requests. Sizes that depend on the settings of the server are checked by the routes."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictFloat, StrictInt, StrictStr, model_validator

MOST_IDS = 100_000

Id = Annotated[StrictStr, Field(max_length=4096)] | Annotated[StrictInt, Field(ge=-(2**63), le=2**63 - 1)]
Ids = Annotated[list[Id], Field(max_length=MOST_IDS)]
Number = StrictInt | Annotated[StrictFloat, Field(allow_inf_nan=False)]
Text = Annotated[StrictStr, Field(max_length=20_000)]
Places = Annotated[StrictInt, Field(ge=1, le=1_000_000, description="results for each user")]
Scalar = StrictStr | bool | Number | None


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Range(_Body):
    """Values from min to max, ends included; null leaves an end open."""

    min: Scalar = None
    max: Scalar = None


Where = Annotated[
    dict[str, Scalar | Range | Annotated[list[Scalar], Field(max_length=MOST_IDS)]],
    Field(
        description="{column: value}, {column: [values]}, {column: {min, max}}; a list of two of which one is null "
        "is a range too",
        max_length=100,
    ),
]


class Recommend(_Body):
    """Exactly one of ``users``, ``history``, ``text``, and the keywords of Recommender.recommend."""

    users: Id | Ids | None = None
    history: Ids | Annotated[list[Ids], Field(max_length=10_000)] | None = None
    text: Text | Annotated[list[Text], Field(max_length=1000)] | None = None
    k: Places = 10
    filter_seen: bool = True
    allow: Ids | dict[str, Ids] | None = None
    deny: Ids | dict[str, Ids] | None = None
    where: Where | None = None
    boost: StrictStr | Annotated[dict[str, Number], Field(max_length=MOST_IDS)] | None = None
    diversity: Annotated[Number, Field(ge=0, le=1)] = 0.0
    at: Number | Annotated[StrictStr, Field(max_length=64, description="ISO 8601")] | None = None
    explain: bool = False
    on_unknown: Literal["fallback", "raise", "skip"] = "fallback"

    @model_validator(mode="after")
    def _one_of_three(self) -> "Recommend":
        given = [name for name in ("users", "history", "text") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"expected exactly one of users, history and text, got {given}")
        return self


class Similar(_Body):
    items: Id | Ids
    k: Places = 10
    by: Annotated[StrictStr, Field(max_length=100)] | None = None
    where: Where | None = None


class Rank(_Body):
    user: Id
    candidates: Ids
    k: Places | None = None


class Event(_Body):
    user_id: Id
    item_id: Id
    timestamp: Number | Annotated[StrictStr, Field(max_length=64)] | None = None
    event: Annotated[StrictStr, Field(max_length=100)] | None = None
    value: Number | None = None
    text: Text | None = None


class Item(BaseModel):
    """item_id and any columns: strings, numbers, lists of strings or of numbers."""

    model_config = ConfigDict(extra="allow", strict=True)
    item_id: Id


Events = Event | Annotated[list[Event], Field(max_length=MOST_IDS)]
Items = Item | Annotated[list[Item], Field(max_length=10_000)]


class Reload(_Body):
    path: Annotated[StrictStr, Field(min_length=1, max_length=4096)]


class Scored(BaseModel):
    item_id: str | int
    score: float
    rank: int
    explanation: dict[str, Any] | None = None


class Result(BaseModel):
    user_id: str | int
    items: list[Scored]


class Results(BaseModel):
    results: list[Result]
    model_version: str


class ProblemDocument(BaseModel):
    type: str
    title: str
    status: int
    detail: str
    errors: list[dict[str, str]] | None = None
