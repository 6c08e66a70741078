"""File names as keys: which names are left out, and how bytes that are not UTF-8 become text and come back.

The rule for bytes, which can be undone:

- A byte that is not part of valid UTF-8 becomes `%XX`, with its value in upper-case hexadecimal. It is
  always one of `80` to `FF`.
- A `%` that could be mistaken for that, because `(25)*[89A-F][0-9A-F]` follows it, becomes `%25`.
- All else stays as it is, so that nearly every name is its own key.

Back again: `%(25)*[89A-F][0-9A-F]` loses one `25` if it has any, and is the byte otherwise. A key that
these rules would write in another way names nothing, so that each file has one key only.
"""

from __future__ import annotations

import re

UNFINISHED = (".tmp", ".part", ".crdownload", "~", ".TMP", ".PART")
"""Endings of names that programs give to what they have not finished, and to their back-up copies."""

_MISTAKABLE = re.compile(r"%(?=(?:25)*[89A-F][0-9A-F])")
_INVALID = re.compile("[\udc80-\udcff]")
_CODED = re.compile(rb"%((?:25)*)([89A-F][0-9A-F])")


def left_out(name: str) -> bool:
    """Whether a file or folder of this name is none of ours: hidden, unfinished, or no name at all."""
    return not name or name[0] == "." or name.endswith(UNFINISHED)


def to_text(raw: bytes) -> str:
    """A name or path of the file system as (part of) a key."""
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        text = _MISTAKABLE.sub("%25", raw.decode(errors="surrogateescape"))
        return _INVALID.sub(lambda found: f"%{ord(found[0]) - 0xDC00:02X}", text)
    return _MISTAKABLE.sub("%25", text) if "%" in text else text


def to_bytes(text: str) -> bytes | None:
    """The path that a key stands for; None if the key is not one that `to_text` gives."""
    try:
        raw = text.encode()
    except UnicodeEncodeError:
        return None
    if "\x00" in text:
        return None
    if "%" in text:
        raw = _CODED.sub(_decoded, raw)
        if to_text(raw) != text:
            return None
    return raw


def _decoded(found: re.Match[bytes]) -> bytes:
    if found[1]:
        return b"%" + found[1][2:] + found[2]
    return bytes.fromhex(found[2].decode())
