"""The table of extensions, row by row."""

from __future__ import annotations

import pytest

from pipeline.errors import ObjectSkipped
from pipeline.parsers import select
from tests.parsers.reading import rules

TABLE = {
    "json": ".json .jsonl .ndjson",
    "csv": ".csv",
    "tsv": ".tsv",
    "parquet": ".parquet",
    "arrow": ".arrow .feather",
    "txt": ".txt",
    "html": ".html .htm .xml",
    "image": ".bmp .gif .jpg .jpeg .png .svg .webp",
    "audio": ".flac .m4a .mp3 .ogg .wav",
    "video": ".mp4 .webm",
    "document": ".pdf",
}
ROWS = [(extension, name) for name, extensions in TABLE.items() for extension in extensions.split()]
BY_REFERENCE = ("image", "audio", "video", "document")


@pytest.mark.parametrize(("extension", "name"), ROWS)
def test_each_extension(extension: str, name: str) -> None:
    """Ours: an extension chooses its row's parser in upper, lower and mixed case; only media are not read."""
    for written in (extension, extension.upper(), extension.title()):
        parser = select(f"folder.d/a{written}", rules())
        assert parser.name == name
        assert parser.reads == (name not in BY_REFERENCE)


@pytest.mark.parametrize(("extension", "name"), ROWS)
@pytest.mark.parametrize("packed", [".gz", ".zst", ".bz2", ".GZ"])
def test_each_compressed_extension(extension: str, name: str, packed: str) -> None:
    """A compression's extension is taken off first; media are not decompressed, and so are unsupported."""
    if name in BY_REFERENCE:
        with pytest.raises(ObjectSkipped) as skipped:
            select(f"a{extension}{packed}", rules())
        assert skipped.value.code == "unsupported_format"
        assert skipped.value.hint
    else:
        assert select(f"a{extension}{packed}", rules()).name == name
