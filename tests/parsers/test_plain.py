"""Text, HTML, media, compression, and which parser takes what."""

from __future__ import annotations

import base64
import bz2
import gzip
import io
from typing import Any, cast

import pytest
import zstandard

from pipeline.errors import ConfigError, ObjectFailed, ObjectGone, ObjectSkipped, UnavailableError
from pipeline.parsers import Body, Limits, select
from tests.parsers.reading import both, read, rules

IMAGE = '<View><Image name="i" value="$picture"/></View>'
HTML = '<View><HyperText name="h" value="$page"/></View>'
TWO = '<View><Text name="a" value="$one"/><Text name="b" value="$two"/></View>'


def test_lines_end_at_line_ends_only() -> None:
    """Ours: lines end at LF, CRLF or CR, and only there; the last newline starts no line."""
    result = both("a.txt", "a\nb\r\nc\rd\x0be\x0cf\x85g\u2028h\n")
    assert [row["text"] for row in result.data] == ["a", "b", "c", "d\x0be\x0cf\x85g\u2028h"]
    assert [task.row for task in result.tasks] == [1, 2, 3, 4]


def test_blank_lines() -> None:
    """Ours: blank lines are skipped and counted, or kept on request."""
    result = both("a.txt", "a\n\n \t\nb\n")
    assert ([task.row for task in result.tasks], result.blank) == ([1, 4], 2)
    assert [row["text"] for row in both("a.txt", "a\n\n \t\nb\n", rules(blank_lines="keep")).data] == [
        "a",
        "",
        " \t",
        "b",
    ]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32", "utf-16-le"])
def test_text_marks(encoding: str) -> None:
    """A byte order mark is removed, and UTF-16/32 with one are read."""
    mark = "\ufeff" if encoding == "utf-16-le" else ""
    assert both("a.txt", (mark + "é\n😀").encode(encoding)).data == [{"text": "é"}, {"text": "😀"}]


@pytest.mark.parametrize("content", ["", "\n", " \r\n\t"])
def test_nothing_is_no_tasks(content: str) -> None:
    """A text without a line that is not blank is skipped as no_tasks."""
    with pytest.raises(ObjectSkipped) as caught:
        both("a.txt", content)
    assert caught.value.code == "no_tasks"


def test_text_faults() -> None:
    """A NUL rejects its line, and so does too large a line; bytes that are no text fail the object."""
    assert both("a.txt", "a\nb\x00\nc").codes == ["nul"]
    result = both("a.txt", "a\n" + "x" * 100 + "\nc", rules(limits=Limits(item_bytes=50)))
    assert (len(result.tasks), result.codes, result.rejected[0].row) == (2, ["too_large"], 2)
    with pytest.raises(ObjectFailed) as caught:
        read("a.txt", b"abc\n\xff", sizes=[1])
    assert (caught.value.code, caught.value.byte) == ("encoding", 4)


def test_list_of_urls() -> None:
    """With a media tag in the configuration each line is a URL."""
    assert both("a.txt", "https://x/1.jpg\n", rules(IMAGE)).data == [{"picture": "https://x/1.jpg"}]


def test_several_keys() -> None:
    """Text has no place where the configuration has several data keys; media go under the first of their kind."""
    assert both("a.txt", "x\n", rules(TWO)).codes == ["several_keys"]
    assert both("a.html", "x", rules(TWO)).codes == ["several_keys"]
    assert both("a.png", "", rules(TWO)).codes == ["several_keys"]
    mixed = '<View><Text name="a" value="$one"/><Image name="b" value="$two"/></View>'
    assert both("a.png", "", rules(mixed, "structure")).data == [{"two": "s3://bucket/a.png"}]
    assert both("a.png", "", rules(mixed)).codes == ["missing_key"]


def test_html_is_one_task_unchanged() -> None:
    """An HTML file is one task with its body unchanged; an empty one is a task too."""
    for name in ("a.html", "a.htm", "a.XML"):
        assert both(name, "<p>\r\n a\u00a0</p> ").data == [{"html": "<p>\r\n a\u00a0</p> "}]
    assert both("a.html", "").data == [{"html": ""}]
    assert both("a.html", "<p>", rules(HTML)).data == [{"page": "<p>"}]


@pytest.mark.parametrize(
    ("head", "encoding"),
    [
        ('<meta charset="windows-1251">', "cp1251"),
        ("<META CHARSET=Latin1>", "cp1252"),
        ('<meta http-equiv="Content-Type" content="text/html; charset=Shift_JIS">', "cp932"),
        ('<?xml version="1.0" encoding="gbk"?>', "gb18030"),
        ('<meta charset="utf-16">', "utf-8"),
        ('<!-- <meta charset="gbk"> -->', "utf-8"),
        ("", "utf-8"),
        ('<meta charset="nonsense">', "utf-8"),
    ],
)
def test_html_says_its_encoding(head: str, encoding: str) -> None:
    """HTML is decoded by its meta or XML declaration, by the labels of browsers, else as UTF-8."""
    sign = "Ж" if encoding != "cp1252" else "é"
    text = f"{head}<p>{sign}</p>"
    assert both("a.html", text.encode(encoding)).data == [{"html": text}]


def test_html_marks_and_overrides() -> None:
    """A byte order mark goes before any declaration, and `encoding:` of the source before both."""
    text = '<meta charset="latin1">é'
    assert both("a.html", text.encode("utf-8-sig")).data == [{"html": text}]
    assert both("a.html", text.encode("utf-16")).data == [{"html": text}]
    assert both("a.html", text.encode("utf-8"), rules(encoding="utf-8")).data == [{"html": text}]
    assert both("a.html", b'<meta charset="latin1">\x93\x81').data == [{"html": '<meta charset="latin1">\u201c\x81'}]
    with pytest.raises(ObjectFailed) as caught:
        both("a.html", b"ab\xff")
    assert (caught.value.code, caught.value.byte) == ("encoding", 2)


def test_html_as_base64() -> None:
    """encoding="base64" on the tag gives base64 of the body."""
    config = '<View><HyperText name="h" value="$page" encoding="base64"/></View>'
    assert both("a.html", "<p>é", rules(config)).data == [{"page": base64.b64encode("<p>é".encode()).decode()}]


def test_html_is_minified_only_by_hand() -> None:
    """HTML is minified when imported directly, from storage or with `minify: false` never."""
    page = "<html>\n <body>\n  <!-- c -->\n  <p>a   <b>b</b> c</p>\n  <pre> x\n y </pre>\n </body>\n</html>\n"
    small = "<html><body><p>a <b>b</b> c</p><pre> x\n y </pre></body></html>"
    assert both("a.html", page, rules(direct=True)).data == [{"html": small}]
    assert both("a.html", page, rules(minify=True)).data == [{"html": small}]
    assert both("a.html", page, rules(direct=True, minify=False)).data == [{"html": page}]
    assert both("a.html", page).data == [{"html": page}]


@pytest.mark.parametrize(
    ("extensions", "key"),
    [
        (".bmp .gif .jpg .jpeg .png .svg .webp .JPG", "image"),
        (".flac .m4a .mp3 .ogg .wav", "audio"),
        (".mp4 .webm", "video"),
        (".pdf", "document"),
    ],
)
def test_media_are_references(extensions: str, key: str) -> None:
    """Media become one task that refers to the object, and their bytes are never asked for."""
    for extension in extensions.split():
        name = f"some dir/ü{extension}"
        parser = select(name, rules())
        assert not parser.reads
        (piece,) = parser.parse(Body(name, f"s3://bucket/{name}"), rules())
        assert piece.tasks[0].data == f'{{"{key}":"s3://bucket/{name}"}}'


def test_links() -> None:
    """The text of a reference comes from the source's links."""
    given = rules(link=lambda key: f"https://host/{key}?signed")
    assert both("a.png", "", given).data == [{"image": "https://host/a.png?signed"}]


@pytest.mark.parametrize("name", ["a.bin", "a.docx", "a.png.gz", "a.json.zip", "x.tar.gz"])
def test_unknown_extensions_are_skipped(name: str) -> None:
    """An unknown extension is skipped as unsupported_format, and compressed media are unknown."""
    with pytest.raises(ObjectSkipped) as caught:
        both(name, "{}")
    assert caught.value.code == "unsupported_format"


def test_without_extension_the_first_sign_decides() -> None:
    """Without an extension { or [ is JSON, by the bytes themselves or by a head; all else is unsupported."""
    assert both("dir.v1/noext", ' \n{"a": 1}').data == [{"a": 1}]
    assert both("noext", '{"a": 1}'.encode("utf-16")).data == [{"a": 1}]
    assert both("noext.gz", gzip.compress(b'[{"a": 1}]')).data == [{"a": 1}]
    for content in (b"a,b\n1,2", b"", b"  ", b"\x89PNG"):
        with pytest.raises(ObjectSkipped, match="extension"):
            both("noext", content)
    with pytest.raises(ObjectSkipped):
        select("noext", rules(), b"text")
    assert select("noext", rules(), b" [").name == "json"


def test_format_of_the_source_decides() -> None:
    """The source's `format` goes before the extension, and compression is taken off all the same."""
    assert both("a.txt", '{"a": 1}', rules(format="json")).data == [{"a": 1}]
    assert both("a.png", "x\n", rules(format="txt")).data == [{"text": "x"}]
    assert both("a.bin.gz", gzip.compress(b"a\tb\n1\t2\n"), rules(format="tsv")).data == [{"a": 1, "b": 2}]


def test_as_files_and_as_tasks() -> None:
    """`as: files` refers to every object whatever its extension, `as: tasks` to none."""
    for name in ("a.json", "a.csv", "a.bin", "noext"):
        assert list(both(name, "{", rules(**{"as": "files"})).data[0].values()) == [f"s3://bucket/{name}"]
    with pytest.raises(ObjectSkipped):
        both("a.png", "", rules(**{"as": "tasks"}))


def test_configuration_makes_references() -> None:
    """TimeSeries makes one task of a .csv, and Text or HyperText by URL one of a .txt or .html."""
    series = '<View><TimeSeries name="s" value="$series"/></View>'
    assert both("a.csv", "t,v\n1,2\n", rules(series)).data == [{"series": "s3://bucket/a.csv"}]
    assert both("a.tsv", "", rules(series)).data == [{"series": "s3://bucket/a.tsv"}]
    by_url = '<View><Text name="t" value="$text" valueType="url"/></View>'
    assert both("a.txt", "a\nb\n", rules(by_url)).data == [{"text": "s3://bucket/a.txt"}]
    assert both("a.txt", "https://x/y\n", rules(by_url, **{"as": "tasks"})).data == [{"text": "https://x/y"}]


PACKERS = {".gz": gzip.compress, ".bz2": bz2.compress, ".zst": zstandard.compress}


@pytest.mark.parametrize("suffix", PACKERS)
def test_all_members_are_read(suffix: str) -> None:
    """Compression is a stream: all members are read, whatever the sizes of reads."""
    pack = PACKERS[suffix]
    packed = pack(b'{"a": 1}\n') + pack(b"") + pack(b'{"a": 2}\n')
    assert both("a.jsonl" + suffix.upper(), packed).data == [{"a": 1}, {"a": 2}]
    big = b"".join(b'{"n": %d}\n' % n for n in range(60_000))
    assert len(read("a.jsonl" + suffix, pack(big), sizes=[40_000]).tasks) == 60_000


@pytest.mark.parametrize("suffix", PACKERS)
def test_broken_streams_fail(suffix: str) -> None:
    """A cut-off or corrupt stream is failed: compressed, and so is what follows it that is no member."""
    packed = PACKERS[suffix](b'{"a": 1}\n' * 100)
    for broken in (packed[:-3], b"", packed[:10], b"nonsense", packed + b"tail", bytes(8) + packed[8:]):
        with pytest.raises(ObjectFailed) as caught:
            both("a.jsonl" + suffix, broken)
        assert caught.value.code == "compressed"


@pytest.mark.parametrize("suffix", PACKERS)
@pytest.mark.parametrize("limits", [Limits(inflate_bytes=60_000), Limits(inflate_free_bytes=200_000, inflate_ratio=20)])
def test_bombs_are_stopped(suffix: str, limits: Limits) -> None:
    """A stream that grows too many times, or too large, is failed: compressed."""
    packed = PACKERS[suffix](b"x\n" * 1_000_000)
    for sizes in (None, [1000]):
        with pytest.raises(ObjectFailed) as caught:
            read("a.txt" + suffix, packed, rules(limits=limits), sizes)
        assert caught.value.code == "compressed"


@pytest.mark.parametrize("error", [UnavailableError("down"), ObjectGone("gone"), OSError("disk")])
@pytest.mark.parametrize("name", ["a.json", "a.csv", "a.txt", "a.html", "noext", "a.parquet", "a.arrow", "a.csv.gz"])
def test_errors_of_the_store_pass_through(name: str, error: Exception) -> None:
    """What opening or reading the body raises passes through untouched."""

    class Failing(io.BytesIO):
        def read(self, size: Any = -1, /) -> bytes:
            raise error

    def failing_open() -> Any:
        raise error

    for reopen in (lambda: cast("Any", Failing()), failing_open):
        body = Body(name, "s3://bucket/a", None, None, reopen)
        with pytest.raises(type(error)) as caught:
            list(select(name, rules()).parse(body, rules()))
        assert caught.value is error


def test_unknown_encodings_are_configuration_errors() -> None:
    """An encoding that is none is said when the rules are made."""
    for name in ("nonsense", "base64", "zlib", "a\x00b"):
        with pytest.raises(ConfigError):
            rules(encoding=name)


def test_preannotated_fields_must_be_controls() -> None:
    """A preannotated field that no control is called is said when the rules are made."""
    with pytest.raises(ConfigError, match="preannotated"):
        rules(HTML, preannotated_from_fields=["x"])
