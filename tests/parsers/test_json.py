"""Task JSON: what each sentence of the format's rules makes of a file."""

from __future__ import annotations

import json

import pytest

from pipeline.errors import ObjectFailed, ObjectSkipped
from pipeline.parsers import Limits
from tests.parsers.reading import both, read, rules

TEXT = '<View><Text name="t" value="$text"/><Choices name="c" toName="t"><Choice value="a"/></Choices></View>'


def test_object_is_one_task() -> None:
    """An object is one task, whole."""
    assert both("a.json", '{"text": "x", "n": 1}').data == [{"text": "x", "n": 1}]


def test_list_is_one_task_per_item_in_order() -> None:
    """A list is one task per item, numbered from 1."""
    result = both("a.json", '[{"n": 1}, {"data": {"n": 2}},\n{"n": 3}]')
    assert [(task.row, json.loads(task.data)["n"]) for task in result.tasks] == [(1, 1), (2, 2), (3, 3)]


@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.ndjson", "A.JSON", "a.JsonL", "noextension"])
@pytest.mark.parametrize(
    "content",
    [
        '{"n":1}\n{"n":2}\n',
        '{"n":1}\r\n\r\n  {"n":2}',
        '{"n":1}{"n":2}',
        '{\n "n": 1\n}\n{\n "n": 2\n}\n',
        '[{"n":1},{"n":2}]',
        '\n[\n{"n":1}\n,{"n":2}\n]\n\n',
    ],
)
def test_documents_in_any_layout(name: str, content: str) -> None:
    """Lines, back to back, pretty-printed and lists are read in any of the three extensions and without one."""
    assert both(name, content).data == [{"n": 1}, {"n": 2}]


def test_row_of_a_line_is_its_line() -> None:
    """The row of a document is the line that it begins in."""
    assert [task.row for task in both("a.jsonl", '{"n":1}\n\n{"n":2}\n{\n"n":3}').tasks] == [1, 3, 4]


@pytest.mark.parametrize("content", ["", " \n\t ", "[]", " [ ] \n"])
def test_nothing_is_no_tasks(content: str) -> None:
    """No item at all is skipped as no_tasks."""
    with pytest.raises(ObjectSkipped) as caught:
        both("a.json", content)
    assert caught.value.code == "no_tasks"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_marks_are_taken_off(encoding: str) -> None:
    """Ours: a byte order mark is accepted and removed, and UTF-16/32 with one are read."""
    for content in ('{"text": "é😀"}', '[{"text": "é😀"}]', '{"text": "é😀"}\n'):
        assert both("a.json", content.encode(encoding)).data == [{"text": "é😀"}]


def test_encoding_of_the_source() -> None:
    """`encoding:` of the source overrides the detection."""
    assert both("a.json", '{"text": "é"}'.encode("latin-1"), rules(encoding="latin-1")).data == [{"text": "é"}]


@pytest.mark.parametrize(
    ("content", "byte"),
    [
        (b'{"a": "\xff"}', 7),
        (b'{"a": 1}\n{"a": "\xc3("}', 16),
        (b'[{"a": 1}, {"a": "\xed\xa0\x80"}]', 18),
        (b'[{"a": 1}] x \xff', 13),
        (b'{"a": 1}\n{"a": "\xc3', 16),
        (b'\xef\xbb\xbf{"a": "\xff"}', 10),
    ],
)
def test_bytes_that_are_no_text_fail_the_object(content: bytes, byte: int) -> None:
    """Bytes that can't be decoded fail the whole object, with their offset, wherever they stand."""
    for sizes in (None, [1], [5]):
        with pytest.raises(ObjectFailed) as caught:
            read("a.json", content, sizes=sizes)
        assert (caught.value.code, caught.value.byte) == ("encoding", byte)


def test_last_of_duplicate_keys_wins() -> None:
    """Duplicate keys: the last wins, in the text that is stored too."""
    for content in ('{"a": 1, "a": 2}', '[{"a": 1, "a": 2}]', '{"data": {"x": 0}, "data": {"a": 1, "a": 2}}'):
        assert [task.data for task in both("a.json", content).tasks] == ['{"a":2}']


@pytest.mark.parametrize("digits", [19, 20, 25, 400, 4300])
def test_integers_survive_exactly(digits: int) -> None:
    """Integers survive exactly up to 4,300 digits."""
    number = "9" * digits
    for content in ('{"a": %s}', '[{"a": %s}]', '{"b": 1}\n{"a": %s}', '{"data": {"a": -%s}}'):
        assert number in both("a.json", content % number).tasks[-1].data


@pytest.mark.parametrize("value", ["9" * 4301, "NaN", "Infinity", "-Infinity", "1e400", "-1e999"])
def test_numbers_that_cannot_be_kept(value: str) -> None:
    """Ours: NaN, Infinity and numbers beyond a double or 4,300 digits reject their own item alone, in lists too."""
    for content in ('[{"a": 1}, {"a": %s}, {"a": 3}]', '{"a": 1}\n{"a": %s}\n{"a": 3}'):
        result = both("a.json", content % value)
        assert (result.data, result.codes) == ([{"a": 1}, {"a": 3}], ["number"])
        assert result.rejected[0].row == 2


def test_underflow_is_zero() -> None:
    """A number that underflows is 0.0."""
    assert both("a.json", '{"a": 1e-999}').tasks[0].data == '{"a":0.0}'


@pytest.mark.parametrize(
    ("value", "code"),
    [
        ('"\\ud800"', "surrogate"),
        ('"\\udc00\\ud800"', "surrogate"),
        ('"a\\u0000b"', "nul"),
        ("[" * 512 + "]" * 512, "too_deep"),
    ],
)
def test_values_that_reject_their_item_alone(value: str, code: str) -> None:
    """Ours: lone surrogates, NUL and nesting beyond 512 reject their own item alone, in lists too."""
    for content in ('[{"a": 1}, {"a": %s}, {"a": 3}]', '{"a": 1}\n{"a": %s}\n{"a": 3}'):
        result = both("a.json", content % value)
        assert (result.data, result.codes) == ([{"a": 1}, {"a": 3}], [code])


def test_pairs_and_escaped_backslashes_are_text() -> None:
    """A surrogate pair, and a backslash before u0000, are ordinary text."""
    assert both("a.json", '{"a": "\\ud83d\\ude00 \\\\u0000"}').data == [{"a": "😀 \\u0000"}]


@pytest.mark.parametrize("depth", [250, 255, 300, 511])
def test_nesting_up_to_512_is_kept(depth: int) -> None:
    """Nesting of 512 levels, the item's own included, is no fault."""
    value = "[" * depth + "]" * depth
    for content in (f'{{"a": {value}}}', f'[{{"a": {value}}}]'):
        assert both("a.json", content).tasks[0].data == f'{{"a":{value}}}'


@pytest.mark.parametrize("depth", [600, 5000, 60_000])
def test_very_deep_items(depth: int) -> None:
    """However deep an item is, only it is rejected."""
    for content in ('[{"a": 1}, %s, {"a": 3}]', '{"a": 1}\n%s\n{"a": 3}'):
        result = read("a.json", content % ('{"a": ' + "[" * depth + "]" * depth + "}"))
        assert (result.data, result.codes) == ([{"a": 1}, {"a": 3}], ["too_deep"])


def test_bad_line_is_one_rejected_row() -> None:
    """Ours: a bad line is one rejected row and the next line goes on."""
    result = both("a.jsonl", '{"a": 1}\n{"b": \nnonsense here\n{"c": 3} x\n{"d": "\n[1]\n{"e": 5}\n')
    assert result.data == [{"a": 1}, {"e": 5}]
    assert [(row.row, row.code) for row in result.rejected] == [
        (2, "syntax"),
        (3, "syntax"),
        (4, "syntax"),
        (5, "syntax"),
        (6, "not_an_object"),
    ]
    assert (result.rejected[2].line, result.rejected[2].column, result.rejected[2].excerpt) == (4, 10, '{"c": 3} x')


def test_broken_pretty_document_is_one_rejected_row() -> None:
    """A document of many lines that is broken is one rejected row, and none of its parts become tasks."""
    content = '{\n "data": {"a": 1},\n "annotations": [\n  {"result": []},,\n  {"b": 1}\n ]\n}\n{"c": 3}\n'
    result = both("a.json", content)
    assert (result.data, result.codes, result.rejected[0].line) == ([{"c": 3}], ["syntax"], 4)


@pytest.mark.parametrize(
    ("tail", "line", "column"),
    [
        ("", 2, 11),
        ("]x", 2, 12),
        ("] {}", 2, 13),
        (",", 2, 12),
        (",]", 2, 12),
        (' {"c": 3}]', 2, 12),
        (',{"c" 3}]', 2, 17),
    ],
)
def test_faults_within_lists(tail: str, line: int, column: int) -> None:
    """Ours: after a syntax error in a list, a list's early end, or more after its ], the items before it are kept."""
    result = both("a.json", '[{"a": 1},\n {"b": 22}' + tail)
    assert result.data == [{"a": 1}, {"b": 22}]
    assert [(row.row, row.code, row.line, row.column) for row in result.rejected] == [(3, "syntax", line, column)]


def test_data_key_makes_a_task() -> None:
    """An item with a non-empty object under `data` is a task; ours: any other root key is kept, as `extra`."""
    item = {
        "data": {"a": 1},
        "id": 7,
        "meta": {"m": 1},
        "allow_skip": False,
        "other": [1],
        "annotations": [{"result": [], "id": 3}],
        "predictions": [{"result": [], "score": "high"}, {"result": [], "score": 0.5, "model_version": "v"}],
    }
    (task,) = both("a.json", json.dumps(item)).tasks
    assert (task.data, task.external_id, task.meta) == ('{"a":1}', "7", '{"m":1}')
    assert json.loads(task.extra or "") == {"allow_skip": False, "other": [1]}
    assert json.loads(task.annotations or "") == [{"ground_truth": False, "result": [], "import_id": 3}]
    assert json.loads(task.predictions or "") == [
        {"score": None, "model_version": "undefined", "result": []},
        {"score": 0.5, "model_version": "v", "result": []},
    ]


@pytest.mark.parametrize("falsy", ["null", "{}", '""', "0", "false", "[]", "0.0"])
def test_falsy_data_makes_the_item_the_data(falsy: str) -> None:
    """Where `data` is falsy, the whole item is the data."""
    assert both("a.json", f'{{"data": {falsy}, "a": 1}}').data == [{"data": json.loads(falsy), "a": 1}]


@pytest.mark.parametrize(
    ("item", "code"),
    [
        ("1", "not_an_object"),
        ('"x"', "not_an_object"),
        ("null", "not_an_object"),
        ("[]", "not_an_object"),
        ("{}", "empty_task"),
        ('{"data": "x"}', "data_type"),
        ('{"data": [1]}', "data_type"),
        ('{"data": 3}', "data_type"),
        ('{"a": 1, "annotations": []}', "needs_data"),
        ('{"a": 1, "predictions": []}', "needs_data"),
        ('{"data": {"a": 1}, "meta": 1}', "meta"),
        ('{"data": {"a": 1}, "meta": null}', "meta"),
        ('{"data": {"a": 1}, "annotations": null}', "annotation"),
        ('{"data": {"a": 1}, "annotations": {}}', "annotation"),
        ('{"data": {"a": 1}, "annotations": [1]}', "annotation"),
        ('{"data": {"a": 1}, "annotations": [{}]}', "annotation"),
        ('{"data": {"a": 1}, "predictions": null}', "prediction"),
        ('{"data": {"a": 1}, "predictions": [{"result": 1}]}', "prediction"),
    ],
)
def test_items_that_are_no_tasks(item: str, code: str) -> None:
    """Ours: a malformed item, annotation or prediction rejects its row with the reason, and only its row."""
    assert both("a.json", f'[{{"a": 1}}, {item}, {{"a": 3}}]').codes == [code]
    assert both("a.json", f'{{"a": 1}}\n{item}\n{{"a": 3}}').codes == [code]


def test_flat_id_stays_in_the_data() -> None:
    """A flat item's `id` stays in its data."""
    (task,) = both("a.json", '{"id": 5, "a": 1}').tasks
    assert (json.loads(task.data), task.external_id) == ({"id": 5, "a": 1}, None)


def test_completions_are_annotations() -> None:
    """`completions` are annotations, where there are no `annotations`."""
    (task,) = both("a.json", '{"data": {"a": 1}, "completions": [{"result": []}]}').tasks
    assert json.loads(task.annotations or "") == [{"ground_truth": False, "result": []}]
    assert task.extra is None


def test_placeholder_is_renamed() -> None:
    """`$undefined$` in incoming data is renamed to the configuration's first data key."""
    for content in ('{"$undefined$": "x"}', '[{"data": {"$undefined$": "x"}}]'):
        assert both("a.json", content, rules(TEXT)).data == [{"text": "x"}]
    assert both("a.csv", "$undefined$\nx\n", rules(TEXT)).data == [{"text": "x"}]
    assert both("a.json", '{"$undefined$": "x"}').data == [{"$undefined$": "x"}]


def test_config_holds_for_every_row() -> None:
    """Ours: keys and types are checked for storage too, row by row, and `structure` leaves them alone."""
    content = '[{"text": "x"}, {"other": 1}, {"text": null}, {"text": 3}]'
    result = both("a.json", content, rules(TEXT))
    assert (len(result.tasks), result.codes) == (2, ["missing_key", "wrong_type"])
    assert "'text'" in result.rejected[0].message
    assert "other" in result.rejected[0].message
    assert len(both("a.json", content, rules(TEXT, "structure")).tasks) == 4


def test_strict_holds_annotations_against_the_configuration() -> None:
    """`strict` also wants from_name, to_name, type and labels that exist; ours: for storage too."""
    fine = {"from_name": "c", "to_name": "t", "type": "choices", "value": {"choices": ["a"]}}
    for change in ({"from_name": "x"}, {"to_name": "x"}, {"type": "labels"}, {"value": {"choices": ["z"]}}):
        for key, code in (("annotations", "annotation"), ("predictions", "prediction")):
            item = {"data": {"text": "x"}, key: [{"result": [fine | change]}]}
            assert both("a.json", json.dumps(item), rules(TEXT, "strict")).codes == [code]
            assert both("a.json", json.dumps(item), rules(TEXT, "config")).codes == []
    item = {"data": {"text": "x"}, "annotations": [{"result": [fine]}]}
    assert both("a.json", json.dumps(item), rules(TEXT, "strict")).codes == []


def test_preannotated_fields_become_predictions() -> None:
    """Each field of preannotated_from_fields of a flat task also becomes a prediction, and stays in the data."""
    given = rules(TEXT, preannotated_from_fields=["c"])
    (prediction,) = json.loads(both("a.json", '{"text": "x", "c": "a"}', given).tasks[0].predictions or "")
    assert prediction == {
        "result": [{"from_name": "c", "to_name": "t", "type": "choices", "value": {"choices": ["a"]}}],
        "score": 1.0,
        "model_version": "preannotated",
    }
    (task,) = both("a.csv", "text,c\nx,a\n", given).tasks
    assert json.loads(task.data) == {"text": "x", "c": "a"}
    assert json.loads(task.predictions or "") == [prediction]
    (task,) = both("a.json", '{"text": "x", "c": {"choices": ["b"]}}', given).tasks
    assert json.loads(task.predictions or "")[0]["result"][0]["value"] == {"choices": ["b"]}
    assert both("a.json", '{"text": "x"}', given).tasks[0].predictions is None


def test_dialogue_is_one_task() -> None:
    """With Paragraphs, a list of which every item is a turn is one task; another list is not."""
    given = rules('<View><Paragraphs name="p" value="$turns" nameKey="who" textKey="said"/></View>')
    turns = [{"who": "A", "said": "x"}, {"who": "B", "said": "y"}]
    assert both("a.json", json.dumps(turns), given).data == [{"turns": turns}]
    assert both("a.json", json.dumps([{"turns": turns}] * 2), given).data == [{"turns": turns}] * 2


def test_columns_of_a_time_series_are_one_reference() -> None:
    """With TimeSeries, an object of lists of one length is one task that links to the file."""
    given = rules('<View><TimeSeries name="s" value="$series"/></View>')
    assert both("a.json", '{"t": [1, 2], "v": [3, 4]}', given).data == [{"series": "s3://bucket/a.json"}]
    assert both("a.json", '{"series": {"t": [1]}}', given).data == [{"series": {"t": [1]}}]
    assert both("a.json", '{"t": [1, 2], "v": [3]}', given).codes == ["missing_key"]


def test_large_item_is_rejected_alone() -> None:
    """An item larger than the limit is `too_large`, and the next goes on, in constant memory."""
    given = rules(limits=Limits(item_bytes=100))
    for big in ('{"a": "%s"}' % ("x" * 1000), '{"a": [%s]}' % ("[{}]," * 300 + "1")):
        for content in ('[{"a": 1}, %s, {"a": 3}]', '{"a": 1}\n%s\n{"a": 3}\n'):
            result = both("a.json", content % big, given)
            assert (result.data, result.codes) == ([{"a": 1}, {"a": 3}], ["too_large"])


def test_long_files_are_read_in_windows() -> None:
    """Whatever the order of keys and the layout, a long list gives every item once, in order."""
    items = [
        {"data": {"n": n, "text": "x" * (n % 300)}} if n % 7 else {"n": n, "q": [{"data": 1}]} for n in range(3000)
    ]
    wanted = [item.get("data", item) for item in items]
    for indent in (None, 1):
        assert read("a.json", json.dumps(items, indent=indent), sizes=[4096, 77]).data == wanted
        lines = "\n".join(json.dumps(item, indent=indent) for item in items)
        assert read("a.jsonl", lines, sizes=[4096, 77]).data == wanted


def test_places_in_long_files() -> None:
    """Row, line and column of a bad item far into a file are those that an editor shows."""
    items = [json.dumps({"n": n, "text": "é" * 50}) for n in range(2000)]
    items[1500] = '{"n": NaN}'
    rejected = read("a.json", "[\n" + ",\n".join(items) + "]", sizes=[1000]).rejected
    assert [(row.row, row.line, row.column) for row in rejected] == [(1501, 1502, 1)]
    rejected = read("a.json", "[" + ",".join(items) + "]", sizes=[1000]).rejected
    assert [(row.row, row.line, row.column) for row in rejected] == [
        (1501, 1, 2 + sum(len(i) + 1 for i in items[:1500]))
    ]


def test_unclosed_lines_cost_linear_time() -> None:
    """A file in which no line ever closes is read in bounded time."""
    result = read("a.jsonl", '{"a":[\n' * 5_000, sizes=[65536])
    assert not result.tasks
    assert result.rejected


def test_documents_are_the_same_read_together_or_alone() -> None:
    """Items with `data`, `meta` and `id` become the same tasks, whichever stand beside them in the file."""
    items = [
        {"data": {"text": "a"}},
        {"data": {"text": "b"}, "meta": {"n": 1}},
        {"data": {"text": "c"}, "meta": [1], "id": 7},
        {"id": "seven", "data": {"text": "d"}},
        {"id": None, "data": {"text": "e"}},
        {"id": "", "data": {"text": "f"}, "meta": {}},
    ]
    together = read("a.jsonl", "".join(json.dumps(item) + "\n" for item in items)).tasks
    alone = [read("a.json", json.dumps(item)).tasks[0] for item in items]
    assert [task[1:] for task in together] == [task[1:] for task in alone]
    assert [task.external_id for task in together] == [None, None, "7", "seven", None, ""]
    assert [task.meta for task in together] == [None, '{"n":1}', "[1]", None, None, "{}"]


@pytest.mark.parametrize("part", ['"meta": null', '"meta": 5', '"meta": "\\u0000"', '"id": "\\u0000"'])
def test_bad_parts_are_found_among_good_documents(part: str) -> None:
    """A document whose `meta` or `id` cannot be kept is rejected beside others that can."""
    good = '{"data": {"text": "a"}, "meta": {}, "id": 1}\n'
    result = both("a.jsonl", good + '{"data": {"text": "b"}, ' + part + "}\n" + good)
    assert len(result.tasks) == 2
    assert [row.row for row in result.rejected] == [2]
