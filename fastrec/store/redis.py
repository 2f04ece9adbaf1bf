"""The event store of many processes: a Redis server with an append-only file that is synced before it answers.

    PREFIX:version      counter
    PREFIX:log          hash version -> record
    PREFIX:user:TOKEN   list of the versions of a user
    PREFIX:key          check of the encryption key

A hash, and no Stream: a deleted entry of a Stream stays in its block, and so on disk, until the whole block is empty.
One script writes it all, so that versions stand in the order in which others see them.
"""

import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qs, urlsplit

from fastrec.errors import ArtifactError, BackendUnavailable, ConfigError
from fastrec.store.events import Record, pack, token, unpack
from fastrec.store.seal import Sealer

#: Records that are asked for at once.
_CHUNK = 1000
_REWRITE_SECONDS = 60.0
#: KEYS: version, log; ARGV: prefix of users, then token ("" for none) and record of each.
_APPEND = """
local v = tonumber(redis.call('GET', KEYS[1]) or '0')
for i = 2, #ARGV, 2 do
  v = v + 1
  redis.call('HSET', KEYS[2], string.format('%d', v), ARGV[i + 1])
  if ARGV[i] ~= '' then redis.call('RPUSH', ARGV[1] .. ARGV[i], string.format('%d', v)) end
end
redis.call('SET', KEYS[1], string.format('%d', v))
return v
"""
#: KEYS: version, log; ARGV: prefix of users, the note, then tokens.
_ERASE = """
local deleted = 0
for i = 3, #ARGV do
  local user = ARGV[1] .. ARGV[i]
  for _, v in ipairs(redis.call('LRANGE', user, 0, -1)) do deleted = deleted + redis.call('HDEL', KEYS[2], v) end
  redis.call('DEL', user)
end
local v = redis.call('INCR', KEYS[1])
redis.call('HSET', KEYS[2], string.format('%d', v), ARGV[2])
return {deleted, v}
"""


class RedisStore:
    """The log in a Redis server.

    url: redis://[:password@]host:port/number or unix://path; ?prefix=name, by default "fastrec"
    key: 32 bytes, to encrypt; the same one must be given every time

    Raises ConfigError where the server cannot be reached or would acknowledge what it has not written to disk.
    """

    def __init__(self, url: str, *, key: bytes | None = None) -> None:
        try:
            import redis
            from redis.backoff import NoBackoff
            from redis.retry import Retry
        except ImportError as error:
            reason, remedy = "redis is not installed", "pip install 'fastrec-engine[redis]'"
            raise BackendUnavailable("store", "redis", reason, remedy) from error
        parts = urlsplit(url)
        query = parse_qs(parts.query)
        prefix = query.pop("prefix", ["fastrec"])[-1]
        rest = "&".join(f"{name}={value}" for name, values in query.items() for value in values)
        # The password does not belong into messages.
        self._shown = f"{parts.scheme}://{parts.hostname or parts.path}{f':{parts.port}' if parts.port else ''}"
        self._sealer = None if key is None else Sealer(key)
        self._keys = [f"{prefix}:version", f"{prefix}:log"]
        self._users = f"{prefix}:user:"
        self._errors: tuple[type[Exception], ...] = (redis.exceptions.RedisError,)
        self._denied: type[Exception] = redis.exceptions.ResponseError
        # No retries: a write that was sent twice would stand there twice.
        address = url.partition("?")[0] + (f"?{rest}" if rest else "")
        self._client: Any = redis.Redis.from_url(address, retry=Retry(NoBackoff(), 0))
        self._append, self._erase = (self._client.register_script(text) for text in (_APPEND, _ERASE))
        try:
            self._check_durable()
            self._check_key(f"{prefix}:key")
        except BaseException:
            self.close()
            raise

    def _check_durable(self) -> None:
        try:
            found = {**self._client.config_get("appendonly"), **self._client.config_get("appendfsync")}
        except self._denied:  # a managed server does not tell
            return
        except self._errors as error:
            raise self._failed(error) from error
        wanted = {"appendonly": "yes", "appendfsync": "always"}
        if found != wanted:
            raise ConfigError(
                f"[store] {self._shown} has {found}, so it acknowledges what it has not written; expected {wanted}: "
                "start redis-server with --appendonly yes --appendfsync always"
            )

    def _check_key(self, name: str) -> None:
        mine = b"" if self._sealer is None else self._sealer.check.encode()
        self._call(lambda: self._client.setnx(name, mine))
        if self._call(lambda: self._client.get(name)) != mine:
            raise ArtifactError(f"[store] {self._shown} was begun with another key or none; give the one it began with")

    @property
    def version(self) -> int:
        """The version given last, 0 for none."""
        return int(self._call(lambda: self._client.get(self._keys[0])) or 0)

    def append(self, records: Sequence[Record]) -> int:
        """Version of the last record; the server has synced them when it answers, all of them or none."""
        if not records:
            return self.version
        args: list[Any] = [self._users]
        for r in records:
            args += ["" if r.user is None else token(r.user, self._sealer), pack(r, self._sealer)]
        return int(self._call(lambda: self._append(keys=self._keys, args=args)))

    def since(self, version: int) -> list[Record]:
        """All records of a later version, in their order."""
        found: list[Record] = []
        newest = self.version
        for first in range(version + 1, newest + 1, _CHUNK):
            found += self._records(range(first, min(first + _CHUNK, newest + 1)))
        return found

    def last(self, user: str | int, n: int) -> list[Record]:
        """The newest n records of a user, oldest first."""
        if n < 1:
            return []
        name = self._users + token(user, self._sealer)
        versions = self._call(lambda: self._client.lrange(name, -n, -1))
        return self._records([int(v) for v in versions])

    def erase(self, users: Sequence[str | int], note: Record) -> tuple[int, int]:
        """(records deleted, version of the note that stands in their place), in one step."""
        args: list[Any] = [self._users, pack(note, self._sealer), *(token(user, self._sealer) for user in users)]
        deleted, version = self._call(lambda: self._erase(keys=self._keys, args=args))
        return int(deleted), int(version)

    def compact(self) -> None:
        """Have the server write its files anew, and wait for it."""
        self._call(self._client.bgrewriteaof)
        self._wait("aof_rewrite_in_progress", "aof_rewrite_scheduled")
        if self._call(lambda: self._client.config_get("save")).get("save"):
            self._call(self._client.bgsave)
            self._wait("rdb_bgsave_in_progress")

    def close(self) -> None:
        """Give the connections back."""
        self._client.close()

    def _wait(self, *flags: str) -> None:
        end = time.monotonic() + _REWRITE_SECONDS
        while True:
            state = self._call(lambda: self._client.info("persistence"))
            if not any(state.get(flag) for flag in flags):
                return
            if time.monotonic() > end:
                raise ConfigError(f"[store] {self._shown} has not written its files after {_REWRITE_SECONDS:.0f} s")
            time.sleep(0.02)

    def _records(self, versions: Sequence[int]) -> list[Record]:
        if not len(versions):
            return []
        values = self._call(lambda: self._client.hmget(self._keys[1], [str(v) for v in versions]))
        pairs = zip(versions, values, strict=True)
        return [unpack(data, v, self._sealer, self._shown) for v, data in pairs if data is not None]

    def _call(self, action: Any) -> Any:
        try:
            return action()
        except self._errors as error:
            raise self._failed(error) from error

    def _failed(self, error: Exception) -> ConfigError:
        return ConfigError(f"[store] {self._shown} does not answer ({error}); expected a running redis-server")
