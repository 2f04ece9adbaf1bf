"""Clients of ``fastrec serve``: the methods of Recommender, answered over HTTP. Needs httpx (the extra "serve")."""

import asyncio
import datetime
import random
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any
from urllib.parse import quote

import numpy as np

from fastrec.errors import (
    ArtifactError,
    BackendUnavailable,
    ConfigError,
    DataError,
    FastRecError,
    NotFittedError,
    UnknownIdError,
)
from fastrec.results import Recommendations

__all__ = ["AsyncClient", "Client", "ServerError"]

#: Statuses after which the same request may be sent again: nothing was done; see ``_once`` for what may have been.
_AGAIN = {429, 503}


class ServerError(FastRecError, RuntimeError):
    """The server refused or failed; ``status`` is that of HTTP, 0 where it could not be reached."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class _Calls:
    """What is asked of the server, in common for both clients: each method gives (verb, path, body, reader)."""

    @staticmethod
    def recommend(users: Any, k: int, keywords: Mapping[str, Any]) -> tuple[Any, ...]:
        listed, single = _listed(users)
        return (
            "POST",
            "recommend",
            {"users": listed, "k": k, **_plain(keywords)},
            _reader(single, k, bool(keywords.get("explain"))),
        )

    @staticmethod
    def history(histories: Any, k: int, keywords: Mapping[str, Any]) -> tuple[Any, ...]:
        given = [h.tolist() if isinstance(h, np.ndarray) else h for h in histories]
        single = bool(given) and not isinstance(given[0], (list, tuple))
        body = {"history": given if single else [list(h) for h in given], "k": k, **_plain(keywords)}
        return "POST", "recommend", body, _reader(single, k, bool(keywords.get("explain")))

    @staticmethod
    def text(texts: Any, k: int, keywords: Mapping[str, Any]) -> tuple[Any, ...]:
        listed, single = _listed(texts)
        return (
            "POST",
            "recommend",
            {"text": listed, "k": k, **_plain(keywords)},
            _reader(single, k, bool(keywords.get("explain"))),
        )

    @staticmethod
    def similar(items: Any, k: int, by: str | None, where: Any) -> tuple[Any, ...]:
        listed, single = _listed(items)
        return (
            "POST",
            "similar",
            {"items": listed, "k": k, **_plain({"by": by, "where": where})},
            _reader(single, k, False),
        )

    @staticmethod
    def rank(user: Any, candidates: Any, k: int | None) -> tuple[Any, ...]:
        listed = [_id(c) for c in candidates]
        body = {"user": _id(user), "candidates": listed, **({} if k is None else {"k": k})}
        return "POST", "rank", body, _reader(True, max(1, len(set(listed))) if k is None else k, False)

    @staticmethod
    def post(path: str, table: Any) -> tuple[Any, ...]:
        return "POST", path, _rows(table), _itself

    @staticmethod
    def delete(kind: str, one: Any) -> tuple[Any, ...]:
        return "DELETE", f"{kind}/{quote(str(_id(one)), safe='')}", None, _itself


class _Base:
    def __init__(self, url: str, key: str | None, timeout: float, retries: int) -> None:
        if not isinstance(url, str) or not url.startswith(("http://", "https://")):
            raise ConfigError(f"[Client] url={url!r}, expected http://host:port")
        if isinstance(retries, bool) or not isinstance(retries, int) or retries < 0:
            raise ConfigError(f"[Client] retries={retries!r}, expected a whole number >= 0")
        try:
            import httpx
        except ImportError as error:
            raise BackendUnavailable(
                "Client", "httpx", "httpx is not installed", "pip install fastrec-engine[serve]"
            ) from error
        self._httpx: Any = httpx
        self._retries = retries
        headers = {"User-Agent": "fastrec", **({"Authorization": f"Bearer {key}"} if key else {})}
        self._options: dict[str, Any] = {"base_url": url.rstrip("/") + "/", "headers": headers, "timeout": timeout}


class Client(_Base):
    """A server as a recommender.

    url: where ``fastrec serve`` is, http://host:port
    key: where the server has keys; timeout: seconds of one try; retries: further tries after 503 and 429, which wait
        as long as the server says, and after a connection that was refused

    The methods are those of Recommender, and so are the errors; ServerError stands for what only a server can meet.
    May be used from several threads; close it, or use it in ``with``.
    """

    def __init__(self, url: str, *, key: str | None = None, timeout: float = 10.0, retries: int = 3) -> None:
        super().__init__(url, key, timeout, retries)
        self._http = self._httpx.Client(**self._options)

    def recommend(self, users: Any, k: int = 10, **keywords: Any) -> Recommendations:
        """See ``Recommender.recommend``; ``where`` takes a dict only."""
        return self._send(_Calls.recommend(users, k, keywords))  # type: ignore[no-any-return]

    def recommend_for_history(self, histories: Any, k: int = 10, **keywords: Any) -> Recommendations:
        """See ``Recommender.recommend_for_history``; lists of item ids only."""
        return self._send(_Calls.history(histories, k, keywords))  # type: ignore[no-any-return]

    def recommend_for_text(self, texts: Any, k: int = 10, **keywords: Any) -> Recommendations:
        """See ``Recommender.recommend_for_text``."""
        return self._send(_Calls.text(texts, k, keywords))  # type: ignore[no-any-return]

    def similar_items(self, items: Any, k: int = 10, *, by: str | None = None, where: Any = None) -> Recommendations:
        """See ``Recommender.similar_items``."""
        return self._send(_Calls.similar(items, k, by, where))  # type: ignore[no-any-return]

    def rank(self, users: Any, candidates: Any, k: int | None = None) -> Recommendations:
        """See ``Recommender.rank``; for one user."""
        return self._send(_Calls.rank(users, candidates, k))  # type: ignore[no-any-return]

    def update(self, interactions: Any) -> dict[str, int]:
        """See ``Recommender.update``: an event as a dict, a list of them, or a table."""
        return self._send(_Calls.post("events", interactions))  # type: ignore[no-any-return]

    def add_items(self, items: Any) -> dict[str, int]:
        """See ``Recommender.add_items``."""
        return self._send(_Calls.post("items", items))  # type: ignore[no-any-return]

    def remove_items(self, ids: Any) -> dict[str, int]:
        """See ``Recommender.remove_items``."""
        return _sum([self._send(_Calls.delete("items", one)) for one in _listed(ids)[0]])

    def erase_users(self, ids: Any) -> dict[str, int]:
        """See ``Recommender.erase_users``."""
        return _sum([self._send(_Calls.delete("users", one)) for one in _listed(ids)[0]])

    def reload(self, path: str) -> str:
        """Serve the model of this folder of the server from now on; its version."""
        return str(self._send(("POST", "admin/reload", {"path": path}, _itself))["model_version"])

    def version(self) -> dict[str, Any]:
        """Versions of the server and its model."""
        return self._send(("GET", "version", None, _itself))  # type: ignore[no-any-return]

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _send(self, call: tuple[Any, ...]) -> Any:
        verb, path, body, reader = call
        for left in range(self._retries, -1, -1):
            try:
                answer = self._http.request(verb, path, json=body)
            except self._httpx.TransportError as error:
                if not (left and _refused(self._httpx, error)):
                    raise _unreachable(error) from error
                time.sleep(_pause(None, self._retries - left))
                continue
            if answer.status_code not in _AGAIN or not left or _once(path, answer):
                break
            time.sleep(_pause(answer.headers.get("retry-after"), self._retries - left))
        return reader(_document(answer))


class AsyncClient(_Base):
    """The same with coroutines: ``await client.recommend("u1")``; close it with ``aclose``, or use ``async with``."""

    def __init__(self, url: str, *, key: str | None = None, timeout: float = 10.0, retries: int = 3) -> None:
        super().__init__(url, key, timeout, retries)
        self._http = self._httpx.AsyncClient(**self._options)

    async def recommend(self, users: Any, k: int = 10, **keywords: Any) -> Recommendations:
        """See ``Client.recommend``."""
        return await self._send(_Calls.recommend(users, k, keywords))  # type: ignore[no-any-return]

    async def recommend_for_history(self, histories: Any, k: int = 10, **keywords: Any) -> Recommendations:
        """See ``Client.recommend_for_history``."""
        return await self._send(_Calls.history(histories, k, keywords))  # type: ignore[no-any-return]

    async def recommend_for_text(self, texts: Any, k: int = 10, **keywords: Any) -> Recommendations:
        """See ``Client.recommend_for_text``."""
        return await self._send(_Calls.text(texts, k, keywords))  # type: ignore[no-any-return]

    async def similar_items(
        self, items: Any, k: int = 10, *, by: str | None = None, where: Any = None
    ) -> Recommendations:
        """See ``Client.similar_items``."""
        return await self._send(_Calls.similar(items, k, by, where))  # type: ignore[no-any-return]

    async def rank(self, users: Any, candidates: Any, k: int | None = None) -> Recommendations:
        """See ``Client.rank``."""
        return await self._send(_Calls.rank(users, candidates, k))  # type: ignore[no-any-return]

    async def update(self, interactions: Any) -> dict[str, int]:
        """See ``Client.update``."""
        return await self._send(_Calls.post("events", interactions))  # type: ignore[no-any-return]

    async def add_items(self, items: Any) -> dict[str, int]:
        """See ``Client.add_items``."""
        return await self._send(_Calls.post("items", items))  # type: ignore[no-any-return]

    async def remove_items(self, ids: Any) -> dict[str, int]:
        """See ``Client.remove_items``."""
        return _sum([await self._send(_Calls.delete("items", one)) for one in _listed(ids)[0]])

    async def erase_users(self, ids: Any) -> dict[str, int]:
        """See ``Client.erase_users``."""
        return _sum([await self._send(_Calls.delete("users", one)) for one in _listed(ids)[0]])

    async def reload(self, path: str) -> str:
        """See ``Client.reload``."""
        return str((await self._send(("POST", "admin/reload", {"path": path}, _itself)))["model_version"])

    async def version(self) -> dict[str, Any]:
        """See ``Client.version``."""
        return await self._send(("GET", "version", None, _itself))  # type: ignore[no-any-return]

    async def aclose(self) -> None:
        await self._http.aclose()

    async def __aenter__(self) -> "AsyncClient":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _send(self, call: tuple[Any, ...]) -> Any:
        verb, path, body, reader = call
        for left in range(self._retries, -1, -1):
            try:
                answer = await self._http.request(verb, path, json=body)
            except self._httpx.TransportError as error:
                if not (left and _refused(self._httpx, error)):
                    raise _unreachable(error) from error
                await asyncio.sleep(_pause(None, self._retries - left))
                continue
            if answer.status_code not in _AGAIN or not left or _once(path, answer):
                break
            await asyncio.sleep(_pause(answer.headers.get("retry-after"), self._retries - left))
        return reader(_document(answer))


def _refused(httpx: Any, error: Exception) -> bool:
    """Whether the request cannot have reached the server; after anything else an event might count twice."""
    return isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout))


def _once(path: str, answer: Any) -> bool:
    """Whether this request must not be sent again: the model died over it, and events may be there and count twice."""
    return path in ("events", "admin/reload") and b"problem:interrupted" in answer.content


def _unreachable(error: Exception) -> ServerError:
    return ServerError(f"[Client] the server gave no answer: {type(error).__name__}: {error}", 0)


def _pause(told: str | None, tries: int) -> float:
    """Seconds before the next try: as the server says, or doubling; with a part of chance against crowds."""
    wait: float = 0.1 * 2**tries
    if told is not None and told.isdigit():
        wait = min(float(told), 30.0)
    return wait * random.uniform(1.0, 1.25)


def _document(answer: Any) -> Any:
    """The JSON of a success; the error that the engine raised, for the others."""
    try:
        told = answer.json()
    except ValueError:
        told = None
    if answer.is_success and told is not None:
        return told
    told = told if isinstance(told, dict) else {}
    detail = str(told.get("detail", f"[Client] status {answer.status_code} without a problem document"))
    field = next((e.get("field") for e in told.get("errors") or []), None)
    match str(told.get("type", "")).rpartition(":")[2]:
        case "unknown-id":
            error = UnknownIdError("serve", "id", [])
            error.message = detail
            raise error
        case "bad-setting" | "bad-body":
            raise ConfigError(detail)
        case "bad-data":
            raise DataError(detail, column=field)
        case "bad-artifact":
            raise ArtifactError(detail)
        case "not-ready":
            raise NotFittedError(detail)
    raise ServerError(detail, answer.status_code)


def _reader(single: bool, k: int, explain: bool) -> Any:
    def read(told: dict[str, Any]) -> Recommendations:
        rows = told["results"]
        users = np.empty(len(rows), object)
        items = np.full((len(rows), k), None, object)
        scores = np.full((len(rows), k), -np.inf, np.float32)
        for u, row in enumerate(rows):
            users[u] = row["user_id"]
            for place, found in enumerate(row["items"]):
                items[u, place], scores[u, place] = found["item_id"], found["score"]
        whys = [[_why(i["explanation"]) for i in row["items"]] for row in rows] if explain else None
        return Recommendations.of(users, items, scores, whys, single)

    return read


def _why(told: dict[str, Any]) -> dict[str, Any]:
    return {**told, "history": [(h["item_id"], h["weight"]) for h in told["history"]]}


def _itself(told: Any) -> Any:
    return told


def _id(one: Any) -> Any:
    return one.item() if isinstance(one, np.generic) else one


def _listed(ids: Any) -> tuple[list[Any], bool]:
    if isinstance(ids, (str, int, np.integer)):
        return [_id(ids)], True
    return [_id(one) for one in (ids.to_list() if hasattr(ids, "to_list") else ids)], False


def _plain(keywords: Mapping[str, Any]) -> dict[str, Any]:
    """Keywords as JSON has them; a (low, high) of ``where`` becomes {"min", "max"}."""
    out = {name: _json(value) for name, value in keywords.items() if value is not None}
    if isinstance(keywords.get("where"), Mapping):
        out["where"] = {
            column: {"min": _json(wanted[0]), "max": _json(wanted[1])}
            if isinstance(wanted, tuple) and len(wanted) == 2
            else _json(wanted)
            for column, wanted in keywords["where"].items()
        }
    return out


def _json(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(_id(name)): _json(v) for name, v in value.items()}
    if isinstance(value, datetime.datetime):
        return (value if value.tzinfo else value.replace(tzinfo=datetime.UTC)).isoformat()
    if isinstance(value, (set, frozenset, tuple, list, np.ndarray)):
        return [_json(v) for v in value]
    return _id(value)


def _rows(table: Any) -> Any:
    """A table as a list of JSON objects; dicts and lists of them pass."""
    if isinstance(table, Mapping) and not any(isinstance(v, (list, np.ndarray)) for v in table.values()):
        return _json(table)
    if isinstance(table, Sequence) and not isinstance(table, str):
        return [_json(row) for row in table]
    from fastrec import data

    rows = data.read(table, where="Client").to_dicts()
    return [{name: _json(v) for name, v in row.items() if v is not None} for row in rows]


def _sum(parts: Sequence[Mapping[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for part in parts:
        for name, count in part.items():
            total[name] = total.get(name, 0) + count
    return total
