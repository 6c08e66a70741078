"""URLs as they are asked for, and as they may be shown: without user, password, signature or token.

The canonical form of a URL is what the ledger, events, logs and errors hold. Of its query it leaves out what
signs or unlocks it, and gives values that may be secrets as a short hash, so that two files stay two.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from urllib.parse import quote, unquote_plus

import httpx

SCHEMES = frozenset({"http", "https"})
REDACTED_CHARACTERS = 200
"""How much of a line that is no URL is shown."""

_PLAIN = re.compile(r"https?://[a-z0-9.-]+/(?:[A-Za-z0-9_~!$&'()*+,;=:@/-]|(?<!/)\.|%[0-9A-Fa-f]{2})*")
"""URLs that are their own canonical form, for the most part of most lists."""
_DROPPED = re.compile(
    r"x-(?:amz|goog|oss|cos|ms)-.*|.*(?:token|secret|passw|signature|credential|api[_-]?key|access[_-]?key|jwt).*|sig|pwd"
)
_HASHED = frozenset({"key", "code", "sid", "session", "sessionid", "auth", "ticket", "pass", "hmac", "hash"})
_SIGNED = frozenset({"sig", "signature"})
_OF_SIGNATURE = frozenset({
    "se", "st", "sp", "sr", "spr", "sip", "ss", "srt", "sv", "skoid", "sktid", "skt", "ske", "sks", "skv", "saoid",
    "suoid", "scid", "sdd", "expires", "policy", "key-pair-id", "awsaccesskeyid", "googleaccessid", "ossaccesskeyid",
})  # fmt: skip
"""What goes with a signature in a query and changes with it."""
_RANDOM = re.compile(r"(?=.*[0-9])(?=.*[A-Za-z])[A-Za-z0-9+/=_.~-]{24,}")
_USER = re.compile(r"//[^/@\s]*@")


def parsed(text: str) -> httpx.URL:
    """An http(s) URL, without fragment. Raises ValueError with the reason if the text is none."""
    try:
        url = httpx.URL(text.strip()).copy_with(fragment=None)
    except (httpx.InvalidURL, UnicodeError):
        raise ValueError("this is no URL") from None
    if url.scheme not in SCHEMES:
        raise ValueError("only http and https URLs are followed")
    if not url.host:
        raise ValueError("the URL names no host")
    return url


def without_user(url: httpx.URL) -> httpx.URL:
    """The URL without user and password."""
    return url.copy_with(userinfo=b"") if url.userinfo else url


def canonical(url: httpx.URL | str) -> str:
    """What may be shown of a URL, and tells it from others."""
    if isinstance(url, str):
        if _PLAIN.fullmatch(url):
            return url
        url = parsed(url)
    url = without_user(url)
    if not url.query:
        return str(url)
    shown = "&".join(_shown_query(url.query.decode("ascii", "replace").split("&")))
    return str(url.copy_with(query=shown.encode() or None))


def _shown_query(parts: Sequence[str]) -> Iterator[str]:
    names = [unquote_plus(part.partition("=")[0]).lower() for part in parts]
    signed = not _SIGNED.isdisjoint(names)
    for name, part in zip(names, parts, strict=True):
        if _DROPPED.fullmatch(name) or (signed and name in _OF_SIGNATURE):
            continue
        head, equals, value = part.partition("=")
        if equals and (name in _HASHED or _RANDOM.fullmatch(unquote_plus(value))):
            yield f"{head}=~{blake2b(value.encode(), digest_size=6).hexdigest()}"
        elif not equals and _RANDOM.fullmatch(unquote_plus(part)):
            yield f"~{blake2b(part.encode(), digest_size=6).hexdigest()}"
        else:
            yield part


def redacted(line: str) -> str:
    """What may be shown of a line that is no URL."""
    shown = _USER.sub("//", line).partition("?")[0].strip()
    return shown[:REDACTED_CHARACTERS] or "?"


def stays(name: str) -> bool:
    """Whether a relative name stays in its folder."""
    return not any(segment in ("", ".", "..") for segment in name.split("/"))


def beneath(folder: httpx.URL, name: str) -> httpx.URL:
    """The URL of a file by its plain name (not percent-encoded), which stays in the folder of that URL."""
    raw = folder.raw_path.partition(b"?")
    path = raw[0] + quote(name, safe="/").encode()
    return folder.copy_with(raw_path=path + raw[1] + raw[2])


def same_origin(one: httpx.URL, other: httpx.URL) -> bool:
    """Whether scheme, host and port are the same."""
    return (one.scheme, one.host, one.port) == (other.scheme, other.host, other.port)
