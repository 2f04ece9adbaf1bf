"""Sealing: AES-256-GCM for what is kept, keyed BLAKE2b for what must be found again.

Two keys are derived from the one given, so that no key has two uses. Every sealed piece carries a random nonce of 12
bytes in front and names its purpose as associated data, so that a piece cannot stand in for another one. Sources:
NIST SP 800-38D (GCM), RFC 7693 (BLAKE2).
"""

import hashlib
import os
from pathlib import Path
from typing import Any

from fastrec.errors import ArtifactError, BackendUnavailable, ConfigError

_NONCE, KEY_BYTES = 12, 32


class Sealer:
    """Seals and opens bytes with one key of 32 bytes."""

    def __init__(self, key: bytes) -> None:
        if not isinstance(key, bytes) or len(key) != KEY_BYTES:
            got = f"{len(key)} bytes" if isinstance(key, bytes) else type(key).__name__
            raise ConfigError(f"[privacy] key is {got}, expected {KEY_BYTES} bytes; fastrec.privacy.new_key makes one")
        self._token_key = derive(key, b"fastrec-token")
        self._aes = _aes(derive(key, b"fastrec-seal"))
        self.check = derive(key, b"fastrec-check").hex()[:16]

    def token(self, text: str) -> str:
        """A keyed hash of a text, 32 hexadecimal digits: the same text gives the same one."""
        return hashlib.blake2b(text.encode(), digest_size=16, key=self._token_key).hexdigest()

    #: Bytes that sealing adds: nonce and tag.
    overhead = _NONCE + 16

    def seal(self, data: bytes, purpose: bytes) -> bytes:
        """nonce + ciphertext + tag."""
        nonce = os.urandom(_NONCE)
        sealed: bytes = self._aes.encrypt(nonce, data, purpose)
        return nonce + sealed

    def open(self, data: bytes, purpose: bytes, what: str) -> bytes:
        """What was sealed; ArtifactError naming ``what`` where the key or a byte is another one."""
        from cryptography.exceptions import InvalidTag

        try:
            opened: bytes = self._aes.decrypt(data[:_NONCE], data[_NONCE:], purpose)
            return opened
        except (InvalidTag, ValueError) as error:
            raise ArtifactError(
                f"[privacy] {what} cannot be opened: the key is another one, or it is damaged"
            ) from error


def derive(key: bytes, purpose: bytes) -> bytes:
    """Another key of 32 bytes for one purpose (at most 16 bytes long)."""
    return hashlib.blake2b(b"", digest_size=32, key=key, person=purpose[:16]).digest()


def read_key(source: "bytes | str | os.PathLike[str] | None") -> bytes | None:
    """32 bytes: given as they are, in a file, or by the environment's FASTREC_KEY (64 hexadecimal digits or a path).

    None where there is neither. A file holds 32 bytes or 64 hexadecimal digits. Raises ConfigError, never with the key.
    """
    if isinstance(source, bytes):
        return _checked(source, "key")
    if source is not None:
        return _from_file(Path(source))
    text = os.environ.get("FASTREC_KEY", "")
    if not text:
        return None
    if len(text) == 2 * KEY_BYTES and _is_hex(text):
        return bytes.fromhex(text)
    return _from_file(Path(text))


def _from_file(path: Path) -> bytes:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"[privacy] the file of the key cannot be read: {error.strerror}") from error
    text = raw.strip().decode("ascii", "replace")
    if len(text) == 2 * KEY_BYTES and _is_hex(text):
        return bytes.fromhex(text)
    return _checked(raw, f"key file {path}")


def _is_hex(text: str) -> bool:
    return all(c in "0123456789abcdefABCDEF" for c in text)


def _checked(raw: bytes, what: str) -> bytes:
    if len(raw) != KEY_BYTES:
        raise ConfigError(f"[privacy] {what} holds {len(raw)} bytes, expected {KEY_BYTES}, or 64 hexadecimal digits")
    return raw


def _aes(key: bytes) -> Any:
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    except ImportError as error:
        reason, remedy = "cryptography is not installed", "pip install 'fastrec-engine[privacy]'"
        raise BackendUnavailable("privacy", "aes-gcm", reason, remedy) from error
    return AESGCM(key)
