"""Limits and keys of a server."""

import hashlib
import hmac
import math
import os
from dataclasses import dataclass, field

from fastrec.errors import ConfigError

#: What a key may do; each holds those before it.
READ, WRITE, ADMIN = 1, 2, 3
#: The variables that hold keys; only the process that answers HTTP needs them.
KEY_NAMES = ("FASTREC_API_KEY", "FASTREC_ADMIN_KEY")


@dataclass(frozen=True)
class Key:
    """A key as it is kept: its SHA-256, what it may do, and a name for logs that does not give it away."""

    digest: bytes
    scope: int
    name: str

    @classmethod
    def of(cls, secret: str, scope: int) -> "Key":
        digest = hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()
        return cls(digest, scope, hashlib.sha256(b"name" + digest).hexdigest()[:8])


def parse_keys(api: str | None, admin: str | None) -> tuple[Key, ...]:
    """Keys of the two variables: ``api`` lists keys with commas between, those after "read:" cannot write."""
    keys = []
    for part in (api or "").split(","):
        secret = part.strip()
        scope = WRITE
        if secret.startswith("read:"):
            scope, secret = READ, secret[len("read:") :].strip()
        if secret:
            keys.append(Key.of(secret, scope))
        elif part.strip():
            raise ConfigError("[serve] FASTREC_API_KEY has 'read:' without a key; expected read:KEY")
    if admin and admin.strip():
        keys.append(Key.of(admin.strip(), ADMIN))
    return tuple(keys)


def find_key(keys: tuple[Key, ...], secret: bytes) -> Key | None:
    """The key of this secret. Every one is compared, in constant time, so that the time tells nothing."""
    digest = hashlib.sha256(secret).digest()
    found = None
    for key in keys:
        if hmac.compare_digest(key.digest, digest):
            found = key
    return found


@dataclass(frozen=True)
class ServeSettings:
    """What a server allows.

    keys: see ``parse_keys``; without any only loopback clients are answered
    anonymous: answer everybody without a key; for an app mounted behind the login of another
    batching: score the requests of one window together
    max_batch: users of one model call
    window: seconds that the first request of a batch waits for others, at most; 0 while there is little to do
    target: seconds from arrival to answer that the queue is kept short enough for: beyond them come 503s
    max_queue: requests that wait at the same time, however fast the model is
    timeout: seconds after which a waiting request is given up with a 503
    max_body: bytes; body_timeout: seconds until a body must be complete
    max_k, max_users: of one request; max_places: users times k of one request
    rate, burst: requests a second for each key (without keys: each address), and how many at once; None: no limit
    cors: origins that browsers may call from; none by default
    writes: calls of update and the like that run at the same time
    stores: for a reload: the event store that the new model is loaded with
    tracing: OpenTelemetry spans; needs opentelemetry-api
    """

    keys: tuple[Key, ...] = field(default=(), repr=False)
    anonymous: bool = False
    batching: bool = True
    max_batch: int = 512
    window: float = 0.004
    target: float = 0.1
    max_queue: int = 2048
    timeout: float = 5.0
    max_body: int = 2**21
    body_timeout: float = 10.0
    max_k: int = 1000
    max_users: int = 1000
    max_places: int = 100_000
    rate: float | None = None
    burst: int = 50
    cors: tuple[str, ...] = ()
    writes: int = 8
    store: str | None = None
    tracing: bool = False

    def __post_init__(self) -> None:
        for name in ("max_batch", "max_queue", "max_body", "max_k", "max_users", "max_places", "burst", "writes"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigError(f"[serve] {name}={value!r}, expected a whole number >= 1")
        for name in ("target", "timeout", "body_timeout", "rate"):
            value = getattr(self, name)
            if value is None and name == "rate":
                continue
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not number or not (math.isfinite(value) and value > 0):
                raise ConfigError(f"[serve] {name}={value!r}, expected a number of seconds > 0")
        if not 0 <= self.window <= self.target:
            raise ConfigError(f"[serve] window={self.window!r}, expected 0 to target={self.target}")

    @classmethod
    def from_env(cls, **settings: object) -> "ServeSettings":
        """With the keys of FASTREC_API_KEY and FASTREC_ADMIN_KEY."""
        keys = parse_keys(*(os.environ.get(name) for name in KEY_NAMES))
        return cls(keys=keys, **settings)  # type: ignore[arg-type]
