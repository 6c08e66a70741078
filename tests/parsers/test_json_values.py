"""What RFC 8259 calls a value, and what it doesn't: the cases that parsers are known to differ on."""

from __future__ import annotations

import json

import pytest

from pipeline.errors import ObjectFailed
from tests.parsers.reading import both, read

VALUES = (
    "0",
    "-0",
    "-0.0",
    "0e1",
    "0e+1",
    "0E-1",
    "1E22",
    "1e-2",
    "123.456e78",
    "-1",
    "-123",
    "20e1",
    "1.5",
    "0.1e1",
    "123123e100",
    "true",
    "false",
    "null",
    '""',
    '"\\u0060\\u012a\\u12AB"',
    '"\\uD801\\udc37"',
    '"\\ud83d\\ude39\\ud83d\\udc8d"',
    '"\\"\\\\\\/\\b\\f\\n\\r\\t"',
    '"\\\\u0000"',
    '"\\""',
    '"a/*b*/c/*d//e"',
    '"\\\\a"',
    '"\\u0012"',
    '"\\uFFFF"',
    '"\u007f"',
    '"€𝄞"',
    '"\u2028"',
    '"\uffff"',
    '"new\\u00A0line"',
    '"\\uDBFF\\uDFFE"',
    "[]",
    "[[]   ]",
    '["a"]',
    "[null]",
    "[1\n]",
    " [1]",
    "[1,null,null,null,2]",
    "{}",
    '{"":0}',
    '{"a":[]}',
    '{"a":"b","a":"c"}',
    '{"a":"\\u041f"}',
    '{\n"a": "b"\n}',
    "[2] ",
)
NO_VALUES = (
    "",
    "+1",
    "-",
    "--1",
    "-01",
    "012",
    "-012",
    "1.",
    "-2.",
    ".123",
    "-.123",
    "2.e3",
    "2.e+3",
    "0.e1",
    "1eE2",
    "0e",
    "0e+",
    "1.0e",
    "1.0e-",
    "0.3e",
    "1_000",
    "1 000",
    "0x1",
    "0x42",
    "1+2",
    "1.2a",
    "1.8011670033376514H-308",
    "١",
    "NaN1",
    "Inf",
    "nan",
    "-nan",
    "True",
    "TRUE",
    "nul",
    "tru",
    "fals",
    "truth",
    "'a'",
    "a",
    "\u00e9",
    '"',
    '"a',
    '"\\"',
    '"\\',
    '"\\x00"',
    '"\\a"',
    '"\\u"',
    '"\\u1"',
    '"\\u00A"',
    '"\\uD800\\"',
    '"\\uD800\\u1"',
    '"\\u{41}"',
    '"\\\u00e9"',
    '"\\🌀"',
    '"a\nb"',
    '"a\tb"',
    '"\x1f"',
    "[",
    "[1",
    "[1,",
    "[,1]",
    "[1,,2]",
    "[1,]",
    "[1:2]",
    "[1 2]",
    '["a" "b"]',
    "[1 true]",
    "[-]",
    "[a",
    "[}",
    "]",
    "[1]]",
    "[[1]",
    '["x"',
    '["x',
    "[*]",
    '["a",\n4\n,1,',
    "[\u000b]",
    "[\u00a0]",
    "[\u2060]",
    "{",
    "{,",
    "{]",
    '{"a"',
    '{"a":',
    '{"a" b}',
    '{"a"::1}',
    '{"a",1}',
    '{"a":1,}',
    '{"a":1,,"b":2}',
    '{"a":1,"b"}',
    "{a:1}",
    "{1:1}",
    "{'a':1}",
    "{null:null}",
    '{"a":"b"',
    '{"a":"b"}#',
    '{"a":"b"}//',
    '{"a":"b"}/**/',
    '{[: "x"}',
    "{🇨🇭}",
    "<null>",
    "<.>",
    "#",
    "/**/",
    "undefined",
    "(1)",
)


@pytest.mark.parametrize("value", VALUES)
def test_values_are_kept(value: str) -> None:
    """What is a value is kept as it is, as an object, in a list and on a line."""
    item, wanted = f'{{"text": {value}}}', {"text": json.loads(value)}
    line = " ".join(item.split("\n"))
    for name, content in (("a.json", item), ("a.json", f"[{item}]"), ("a.jsonl", f'{{"x": 1}}\n{line}\n')):
        assert json.dumps(both(name, content).data[-1]) == json.dumps(wanted)


@pytest.mark.parametrize("value", NO_VALUES)
def test_no_values_become_no_task(value: str) -> None:
    """What is none makes no task, whichever way it is written, and the good ones before it are kept."""
    item = f'{{"text": {value}}}'
    assert (both("a.json", item).data, bool(both("a.json", item).codes)) == ([], True)
    result = both("a.json", f'[{{"text": "a"}}, {item}]')
    assert result.data == [{"text": "a"}]
    assert result.codes


@pytest.mark.parametrize("value", NO_VALUES)
def test_lines_after_no_values_go_on(value: str) -> None:
    """In lines it costs its own line, or the lines that it stands in, and nothing else."""
    result = both("a.jsonl", f'{{"text": "a"}}\n{{"text": {value}}}\n{{"text": "c"}}\n')
    assert result.data[0] == {"text": "a"}
    assert result.data[-1] == {"text": "c"}
    assert result.codes


NO_UTF8 = {
    "a continuation alone": b"\x80",
    "two of them": b"\xbf\xbf",
    "a beginning alone": b"\xc3 ",
    "three bytes without the last": b"\xe2\x82 ",
    "four bytes without the last": b"\xf0\x9f\xa6 ",
    "a slash in two bytes": b"\xc0\xaf",
    "a slash in three": b"\xe0\x80\xaf",
    "a slash in four": b"\xf0\x80\x80\xaf",
    "NUL in two bytes": b"\xc0\x80",
    "five bytes": b"\xf8\x88\x80\x80\x80",
    "six bytes": b"\xfc\x84\x80\x80\x80\x80",
    "beyond U+10FFFF": b"\xf4\x90\x80\x80",
    "half a surrogate pair": b"\xed\xa0\x80",
    "a surrogate pair": b"\xed\xa0\xbd\xed\xb8\x80",
    "FE": b"\xfe",
    "FF": b"\xff",
}
PLACES = {
    "a.json": (b'{"text": "', b'"}'),
    "b.json": (b'[{"text": "a"}, {"text": "', b'"}]'),
    "a.jsonl": (b'{"text": "a"}\n{"text": "', b'"}\n{"text": "c"}\n'),
    "a.csv": (b"text,n\na,1\n", b",2\nc,3\n"),
    "a.tsv": (b"text\tn\na\t1\n", b"\t2\n"),
    "a.txt": (b"a\n", b"\nc\n"),
    "a.html": (b"<p>", b"</p>"),
}


@pytest.mark.parametrize("name", PLACES)
@pytest.mark.parametrize("what", NO_UTF8)
def test_bytes_that_are_no_utf8(name: str, what: str) -> None:
    """What looks like UTF-8 and is none fails the whole object, in every kind of file, where it stands."""
    before, after = PLACES[name]
    for sizes in (None, [1], [3, 2]):
        with pytest.raises(ObjectFailed) as caught:
            read(name, before + NO_UTF8[what] + after, sizes=sizes)
        assert (caught.value.code, caught.value.byte) == ("encoding", len(before))


@pytest.mark.parametrize(
    "text", ["\U0010ffff", "\ufffe", "\ufffd", "\x7f", "\x80", "\u07ff", "\u0800", "\ud7ff", "\ue000"]
)
def test_the_edges_of_utf8_are_text(text: str) -> None:
    """The first and the last of each length, and what stands beside surrogates, are ordinary text."""
    for name, (before, after) in PLACES.items():
        assert text.encode() in "".join(task.data for task in both(name, before + text.encode() + after).tasks).encode()
