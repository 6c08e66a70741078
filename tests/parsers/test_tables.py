"""CSV and TSV: separators, quotes, names, types, bad rows."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pipeline.errors import ConfigError, ObjectFailed, ObjectSkipped
from pipeline.parsers import Limits
from tests.parsers.reading import both, read, rules


def column(*cells: str, **options: Any) -> list[Any]:
    """What the cells of one column become, written beside an index."""
    content = "i,a\n" + "".join(f"{n},{cell}\n" for n, cell in enumerate(cells))
    return [row["a"] for row in both("a.csv", content, rules(**options)).data]


@pytest.mark.parametrize(
    ("header", "row"),
    [
        ("a,b", "1,x"),
        ("a;b", "1;x"),
        ("a\tb", "1\tx"),
        ("a|b", "1|x"),
        ('"a,,,,";b', "1;x"),
        ("a;b;c,d,e", "1;x;"),
    ],
)
def test_separator_is_the_most_frequent_of_the_header(header: str, row: str) -> None:
    """The separator of a .csv is the most frequent of the header line outside quotes; a tie goes by order."""
    (data,) = both("a.csv", f"{header}\n{row}\n").data
    assert 1 in data.values() or "1;x;" in data.values()


def test_no_separator_is_one_column() -> None:
    """Without a separator in the header each whole line is the cell."""
    result = both("a.csv", 'text\nhello; world, and | more\n""\n"a ""b"""\n')
    assert result.data == [{"text": "hello; world, and | more"}, {"text": ""}, {"text": 'a "b"'}]


def test_separator_of_the_source_decides() -> None:
    """`separator:` on the source decides, for .tsv too."""
    assert both("a.csv", "a#b,c\n1#2\n", rules(separator="#")).data == [{"a": 1, "b,c": 2}]
    assert both("a.tsv", "a#b\n1#2\n", rules(separator="#")).data == [{"a": 1, "b": 2}]
    with pytest.raises(ConfigError):
        rules(separator='"')


def test_tsv_is_separated_by_tabs() -> None:
    """A .tsv is separated by tabs, whatever its header holds."""
    assert both("a.tsv", "a,b,c\td\n1\t\n\t\n").data == [{"a,b,c": 1, "d": ""}, {"a,b,c": "", "d": ""}]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_quotes_and_line_ends(end: str) -> None:
    """RFC 4180 quoting, newlines within quotes kept as they are, and LF, CRLF or CR as line ends."""
    content = end.join(["a,b", f'"x{end}y","say ""hi"""', '"1,2",5" pipe', "z,"]) + end
    assert both("a.csv", content).data == [
        {"a": f"x{end}y", "b": 'say "hi"'},
        {"a": "1,2", "b": '5" pipe'},
        {"a": "z", "b": ""},
    ]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_marks_are_taken_off(encoding: str) -> None:
    """A byte order mark is no part of the first column's name."""
    assert both("a.csv", "é,b\n1,ü\n".encode(encoding)).data == [{"é": 1, "b": "ü"}]


def test_bytes_that_are_no_text_fail_the_object() -> None:
    """Bytes that can't be decoded fail the whole object, with their offset."""
    for sizes in (None, [1], [3]):
        with pytest.raises(ObjectFailed) as caught:
            read("a.csv", b"a,b\n1,\xe9\n", sizes=sizes)
        assert (caught.value.code, caught.value.byte) == ("encoding", 6)
    assert both("a.csv", b"a,b\n1,\xe9\n", rules(encoding="cp1252")).data == [{"a": 1, "b": "é"}]


@pytest.mark.parametrize("content", ["", "\n\n", "a,b", "a,b\n", "a,b\n\n  \n"])
def test_nothing_is_no_tasks(content: str) -> None:
    """An empty file, white space or a header without rows is skipped as no_tasks."""
    with pytest.raises(ObjectSkipped) as caught:
        both("a.csv", content)
    assert caught.value.code == "no_tasks"


def test_names_of_columns() -> None:
    """A duplicate name takes the next free `name.N`, an empty one is `Unnamed: N`, all others stay as they stand."""
    (data,) = both("a.csv", "a,a,a.1,, b ,data.x,a\n1,2,3,4,5,6,7\n").data
    assert list(data) == ["a", "a.2", "a.1", "Unnamed: 3", " b ", "data.x", "a.3"]


def test_blank_lines_are_skipped() -> None:
    """A line of only white space is skipped and counted; a row of separators, or of empty quotes, is a row."""
    result = both("a.csv", 'a,b\n\n1,2\n   \n,\n"x",\n')
    assert (len(result.tasks), result.blank) == (3, 2)


def test_short_and_long_rows() -> None:
    """Short rows are padded, empty extra cells dropped; ours: any other extra cell rejects its row."""
    result = both("a.csv", "a,b\nx\ny,2,,\nz,3,4\nw,5\n")
    assert result.data == [{"a": "x", "b": ""}, {"a": "y", "b": 2}, {"a": "w", "b": 5}]
    assert [(row.row, row.code, row.line, row.excerpt) for row in result.rejected] == [
        (3, "too_many_cells", 4, "z,3,4")
    ]


def test_faults_of_quotes() -> None:
    """Text after a closing quote rejects its row; a quote that never closes rejects the rest as one row."""
    result = both("a.csv", 'a,b\n"x"y,"2\n3"\n"x" ,1\nu,v\n"open,1\nw,x\n')
    assert result.data == [{"a": "u", "b": "v"}]
    assert [(row.row, row.code, row.line) for row in result.rejected] == [
        (1, "syntax", 2),
        (2, "syntax", 4),
        (4, "syntax", 6),
    ]


def test_nul_rejects_its_row() -> None:
    """A NUL character rejects its row alone."""
    assert both("a.csv", "a,b\n1,x\x00y\n2,z\n").codes == ["nul"]


@pytest.mark.parametrize(
    ("cells", "values"),
    [
        (["1", "-2", "0", "9223372036854775807"], [1, -2, 0, 9223372036854775807]),
        (["1", ""], [1, ""]),
        (["1", "2.5"], [1.0, 2.5]),
        (["1e5", "-0.0", "0.10"], [100000.0, -0.0, 0.1]),
        (["0.500", "2.00", "-0.00", "1"], [0.5, 2.0, -0.0, 1.0]),
        (["1.50e1"], [15.0]),
        (["2.00", "5."], ["2.00", "5."]),
        (["9223372036854775808"], ["9223372036854775808"]),
        (["9223372036854775808", "1.5"], ["9223372036854775808", "1.5"]),
        (["9007199254740993", "0.5"], ["9007199254740993", "0.5"]),
        (["0.1234567890123456789"], ["0.1234567890123456789"]),
        (["1e400"], ["1e400"]),
        (["1e-400"], ["1e-400"]),
        (["-0"], ["-0"]),
        (["007"], ["007"]),
        (["+1"], ["+1"]),
        (["1 000"], ["1 000"]),
        ([" 1"], [" 1"]),
        (["1_000"], ["1_000"]),
        (["٣"], ["٣"]),
        ([".5"], [".5"]),
        (["5."], ["5."]),
        (["00.5"], ["00.5"]),
        (["+1.5"], ["+1.5"]),
        (["true", "False", "TRUE", ""], [True, False, True, ""]),
        (["true", "tRUE"], ["true", "tRUE"]),
        (["true", "1"], ["true", "1"]),
        (["NA", "null", "None", "NaN", "inf"], ["NA", "null", "None", "NaN", "inf"]),
        (["1", "NA"], ["1", "NA"]),
        (["2024-01-02"], ["2024-01-02"]),
        (["", ""], ["", ""]),
    ],
)
def test_types_of_columns(cells: list[str], values: list[Any]) -> None:
    """Ours: a column's type holds for all of it and loses nothing; an empty cell changes no other cell's type."""
    found = column(*cells)
    assert [(value, type(value)) for value in found] == [(value, type(value)) for value in values]
    assert json.dumps(found) == json.dumps(values)


def test_quoting_and_rejected_rows_do_not_matter_for_types() -> None:
    """Quoting doesn't matter for a type, and rejected rows don't count."""
    result = both("a.csv", 'a,b\n"1",x\n2,y\nz,1,2\n')
    assert result.data == [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]


def test_na_values_become_empty() -> None:
    """Cells in `na_values` become empty text and don't count for the type."""
    assert column("1", "NA", "n/a", na_values=["NA", "n/a"]) == [1, "", ""]


def test_types_can_be_switched_off() -> None:
    """`types: text` switches inference off."""
    assert column("1", "true", types="text") == ["1", "true"]


def test_tags_without_numbers_keep_text() -> None:
    """A column whose tag takes no number stays text."""
    config = '<View><Image name="i" value="$img"/><Text name="t" value="$n"/></View>'
    assert both("a.csv", "img,n\n12,34\n", rules(config)).data == [{"img": "12", "n": 34}]


def test_config_holds_for_rows() -> None:
    """A column that is missing rejects every row, naming tag and keys."""
    result = both("a.csv", "other,b\n1,x\n", rules('<View><Text name="t" value="$text"/></View>'))
    assert result.codes == ["missing_key"]
    assert (result.rejected[0].line, result.rejected[0].excerpt) == (2, "1,x")


def test_flat_key_serves_for_a_nested_one() -> None:
    """Ours: a configuration that says $a.b reads nested data, or a flat key `a.b` where no nested one exists."""
    given = rules('<View><Text name="t" value="$a.b"/></View>')
    assert both("a.csv", "a.b,c\nx,y\n", given).data == [{"a.b": "x", "c": "y"}]
    assert both("a.json", '{"a": {"b": "x"}}', given).data == [{"a": {"b": "x"}}]
    assert both("a.json", '{"a": {"c": "x"}}', given).codes == ["missing_key"]


@pytest.mark.parametrize(("late", "first"), [("2.5", 1.0), ("x", "1"), ("true", "1"), ("99999999999999999999", "1")])
def test_late_wider_cell_restarts_once(late: str, first: Any) -> None:
    """A column that turns out wider far into the file makes it begin again, once, with its final types."""
    rows = ["1,1"] * 30_000 + [f"{late},1", "1,z", "1,2"]
    content = "a,b\n" + "\n".join(rows)
    result = read("a.csv", content, sizes=[65536])
    assert (result.restarts, len(result.tasks)) == (1, 30_003)
    assert {type(row["a"]) for row in result.data} == {type(first)}
    assert {type(row["b"]) for row in result.data} == {str}
    assert [task.row for task in result.tasks] == list(range(1, 30_004))


def test_empty_beginning_needs_no_restart() -> None:
    """A column that is empty at first takes its type when it comes, without a restart."""
    result = read("a.csv", "a,b\n" + "x,\n" * 5000 + "x,5\n")
    assert (result.restarts, result.data[-1], result.data[0]) == (0, {"a": "x", "b": 5}, {"a": "x", "b": ""})


def test_large_cells() -> None:
    """A cell up to the limit is kept, however large; a larger one rejects its row, and rows after it go on."""
    limit = 300_000
    given = rules(limits=Limits(item_bytes=limit))
    for quote in ("", '"'):
        content = "a,b\n" + "".join(f"{quote}{'x' * size}{quote},1\n" for size in (limit, limit + 1, 3)) + '"y",2\n'
        for sizes in (None, [10_007]):
            result = read("a.csv", content, given, sizes)
            assert ([len(row["a"]) for row in result.data], result.codes) == ([limit, 3, 1], ["too_large"])


def test_lines_without_end_are_given_up() -> None:
    """A line that never ends, or a quote that never closes, takes no more memory than the limit."""
    given = rules(limits=Limits(item_bytes=1000))
    assert read("a.csv", "a,b\n" + "x" * 100_000 + "\n1,2\n", given, [64]).codes == ["too_large"]
    assert read("a.csv", 'a,b\n"' + "x\n" * 50_000, given, [64]).codes in (["too_large"], ["syntax"])


def test_bad_header_is_one_rejected_row() -> None:
    """A header that cannot be read leaves one rejected row and no tasks."""
    assert both("a.csv", '"a"x,b\n1,2\n').codes == ["syntax"]


def test_many_bad_rows_leave_in_bounded_pieces() -> None:
    """However many short rows of a block are bad, no piece holds more than a thousand of them, and none is lost."""
    assert read("a.csv", "a,b\n" + "1,2,3\n" * 5000).codes == ["too_many_cells"] * 5000
