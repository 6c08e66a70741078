"""Writes the pictures and sounds of the example inbox: tiny, valid, and the same every time."""

from __future__ import annotations

import math
import struct
import wave
import zlib
from pathlib import Path

INBOX = Path(__file__).parent / "inbox"
SIDE = 24
RATE = 8000
SECONDS = 0.25


def png(path: Path, red: int, green: int, blue: int) -> None:
    """A picture of a round animal of one colour on a dark ground."""
    rows = bytearray()
    for y in range(SIDE):
        rows.append(0)
        for x in range(SIDE):
            inside = math.hypot(x - SIDE / 2, y - SIDE / 2) < SIDE / 3
            rows += bytes((red, green, blue) if inside else (24, 28, 30))
    header = struct.pack(">IIBBBBB", SIDE, SIDE, 8, 2, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(rows), 9)), (b"IEND", b""))
    chunks = (
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in parts
    )
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))


def wav(path: Path, hertz: float) -> None:
    """A short, fading tone."""
    count = int(RATE * SECONDS)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(1)
        file.setframerate(RATE)
        file.writeframes(
            bytes(int(128 + 90 * (1 - n / count) * math.sin(2 * math.pi * hertz * n / RATE)) for n in range(count))
        )


def main() -> None:
    """Write them all."""
    png(INBOX / "photos" / "porch-2026-05-02.png", 182, 178, 170)
    png(INBOX / "photos" / "creek-1 night.png", 120, 130, 128)
    wav(INBOX / "calls" / "hiss-01.wav", 1900)
    wav(INBOX / "calls" / "click-02.wav", 640)


if __name__ == "__main__":
    main()
