"""What a labelling configuration asks for, and how it is refused."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.errors import ConfigError
from pipeline.labelconfig import LabelConfig


def config(*tags: str) -> LabelConfig:
    """A configuration of these tags."""
    return LabelConfig.parse(f"<View>{''.join(tags)}</View>")


@pytest.mark.parametrize(
    ("value", "keys"),
    [
        ("$x", ("x",)),
        ("$x.y", ("x.y",)),
        ("$x[0]", ("x",)),
        ("$my-key", ("my-key",)),
        ("$ключ", ("ключ",)),
        ("Hello $name, $other", ("name",)),
        ("a constant", ()),
        ("", ()),
        ("$", ()),
    ],
)
def test_variable_of_a_value(value: str, keys: tuple[str, ...]) -> None:
    """The data key is the variable in `value`; text without a $ is a constant and asks for no data."""
    assert config(f'<Text name="t" value="{value}"/>').data_keys == keys


def test_only_tags_with_name_and_value_ask() -> None:
    """A tag without a name asks for nothing; `valueList` counts as `value`."""
    assert config('<Header value="$title"/>', '<Image name="i" valueList="$pages"/>').data_keys == ("pages",)
    assert config('<Image name="i" valueList="$pages"/>').check({"pages": ["a", "b"]}) is None


TYPES: list[tuple[str, set[str]]] = [
    ("Text", {"str", "int", "float", "bool", "list"}),
    ("Header", {"str", "int", "float", "bool"}),
    ("HyperText", {"str"}),
    ("Image", {"str", "list"}),
    ("Paragraphs", {"str", "list"}),
    ("Chat", {"str", "list"}),
    ("Table", {"dict", "list", "str"}),
    ("TimeSeries", {"dict", "list", "str"}),
    ("List", {"list", "str"}),
    ("Ranker", {"list", "str"}),
    ("Choices", {"str", "list"}),
    ("Labels", {"str", "list"}),
    ("BrushLabels", {"str", "list"}),
    ("Taxonomy", {"str", "list", "NoneType"}),
    ("Audio", {"str"}),
    ("Video", {"str"}),
    ("Pdf", {"str"}),
    ("Other", {"str"}),
]


@pytest.mark.parametrize(("tag", "kinds"), TYPES)
def test_types_of_tags(tag: str, kinds: set[str]) -> None:
    """Each tag's key may have just the types of its row in the table; a bool counts as an int."""
    found = config(f'<{tag} name="n" value="$x"/>')
    values: list[Any] = ["s", 1, 1.5, True, ["s"], {"a": 1}, None]
    for value in values:
        why = found.check({"x": value})
        assert (why is None) == (type(value).__name__ in kinds), value
        assert found.fits_all([{"x": value}]) == (why is None)
        assert why is None or (why[0] == "wrong_type" and f"<{tag} name='n'>" in why[1])
    assert (found.check({"y": 1}) or ("",))[0] == "missing_key"
    assert not found.fits_all([{"y": 1}])


def test_video_wins() -> None:
    """Of two tags on one key Video decides its types."""
    for tags in (
        ('<Video name="v" value="$x"/>', '<Table name="t" value="$x"/>'),
        ('<Table name="t" value="$x"/>', '<Video name="v" value="$x"/>'),
    ):
        assert config(*tags).check({"x": {"a": 1}}) is not None
        assert config(*tags).check({"x": "s3://b/x.mp4"}) is None


def test_indexes_and_repeaters() -> None:
    """For $x[0] x must be a list that long; a Repeater's key must be a list."""
    indexed = config('<Image name="i" value="$x[1].url"/>')
    assert indexed.check({"x": [{}, {"url": "u"}]}) is None
    assert (indexed.check({"x": [{}]}) or ("",))[0] == "wrong_type"
    assert (indexed.check({"x": "u"}) or ("",))[0] == "wrong_type"
    assert (indexed.check({}) or ("",))[0] == "missing_key"
    repeated = config('<Repeater on="$xs"><Image name="i_{{idx}}" value="$xs[{{idx}}].url"/></Repeater>')
    assert repeated.data_keys == ("xs",)
    assert repeated.check({"xs": []}) is None
    assert (repeated.check({"xs": "u"}) or ("",))[0] == "wrong_type"
    assert (repeated.check({}) or ("",))[0] == "missing_key"


def test_nested_and_flat_keys() -> None:
    """Ours: $a.b reads nested data, or a flat key a.b where no nested one exists."""
    dotted = config('<Text name="t" value="$a.b"/>')
    assert dotted.check({"a": {"b": "x"}, "a.b": None}) is None
    assert dotted.check({"a.b": "x"}) is None
    assert dotted.check({"a": {"c": 1}, "a.b": "x"}) is None
    assert (dotted.check({"a": {"b": None}}) or ("",))[0] == "wrong_type"


@pytest.mark.parametrize("tag", ["Text", "HyperText"])
def test_values_by_url(tag: str) -> None:
    """valueType="url" on Text and HyperText wants a URL or a storage URI; on others their types hold."""
    found = config(f'<{tag} name="t" value="$x" valueType="url"/>')
    for url in (
        "https://a/b",
        "s3://b/k",
        "gs://b/k",
        "azure-blob://c/k",
        "redis://h/0",
        "file:///a%20b",
        "/data/upload/x",
    ):
        assert found.check({"x": url}) is None
    for value in ("plain text", "", "https://a b", 3, ["https://a/b"]):
        assert (found.check({"x": value}) or ("",))[0] == "wrong_type"
    assert config('<TimeSeries name="t" value="$x" valueType="url"/>').check({"x": {"t": []}}) is None


def test_missing_key_names_tag_and_keys() -> None:
    """The message of a missing key names the tag that asks for it and the keys that are there."""
    _, message = config('<Text name="t" value="$text"/>').check({"txt": 1, "id": 2}) or ("", "")
    assert "<Text name='t'>" in message
    assert "'text'" in message
    assert "txt, id" in message


@pytest.mark.parametrize(
    ("xml", "place"),
    [
        ("", (1, 1)),
        ("<View>\n <Text>\n</View>", (3, 3)),
        ("no xml", (1, 1)),
        ('<View>\n<Text name="a" value="$x"/>\n <Text name="a" value="$y"/></View>', (3, 2)),
        ('<View>\n<Choices name="c" toName="t"/></View>', (2, 1)),
        ('<!DOCTYPE a [<!ENTITY b "c">]><View>&b;</View>', None),
        ('<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/hostname">]><View>&b;</View>', None),
        ('<!DOCTYPE a SYSTEM "file:///etc/hostname"><View>&b;</View>', None),
        ('<!DOCTYPE z [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;&a;"><!ENTITY c "&b;&b;&b;&b;">]><View>&c;</View>', None),
        ("<View>&nbsp;</View>", (1, 7)),
        ("<a>" * 5000, None),
        ("\ud800", (1, 1)),
        ("<View>" + " " * 5_000_000 + "</View>", (1, 1)),
        ('<View>\n <Text name="t" value="$x" resolver="json"/></View>', (2, 2)),
    ],
)
def test_unreadable_configurations(xml: str, place: tuple[int, int] | None) -> None:
    """What cannot be read or used is a configuration error with line and column; entities are switched off."""
    with pytest.raises(ConfigError) as caught:
        LabelConfig.parse(xml)
    line, column = place or (caught.value.line, "")
    assert f"line {line}, column {column}" in str(caught.value)


RESOLVERS: list[tuple[str, str, str | None]] = [
    ("csv", "a,b\n1,2\n", "1"),
    ("csv|column=b", "a,b\n1,2\n", "2"),
    ("csv|column=b", "a;b\n1;2\n", "2"),
    ("csv|separator=;|column=b", "a,x;b\n1;2\n", "2"),
    ("csv|separator=|", "a|b\n1|2\n", "1"),
    ("csv|headless", "1,2\n3,4\n", "1"),
    ("csv|headless|column=1", '"1,0"\t2\n', "2"),
    ("csv|column=z", "a,b\n1,2\n", None),
    ("csv", "a,b\n", None),
    ("csv|headless|column=9", "1,2\n", None),
    ("csv", "", None),
]


@pytest.mark.parametrize(("resolver", "text", "value"), RESOLVERS)
def test_resolvers(resolver: str, text: str, value: str | None) -> None:
    """A resolver gives the column's value in the first row, its separator detected unless given."""
    found = config(f'<Text name="t" value="$remote" resolver="{resolver}"/>')
    assert found.resolvers[0].pick(text) == value
    assert found.check({"remote": "s3://b/x.csv"}) is None
    assert (found.check({"remote": "no uri"}) or ("",))[0] == "wrong_type"


@pytest.mark.parametrize(
    "resolver", ["", "tsv", "csv|what", "csv|separator=ab", "csv|column=", "csv|headless|column=x", "csv|headless=1"]
)
def test_wrong_resolvers(resolver: str) -> None:
    """A resolver's syntax is checked when the configuration is read."""
    with pytest.raises(ConfigError, match="line 1, column 7"):
        config(f'<Text name="t" value="$remote" resolver="{resolver}"/>')


def test_strict_speaks_of_the_configuration() -> None:
    """Strict validation names the control, and what it offers."""
    found = config(
        '<Text name="t" value="$x"/>',
        '<Labels name="l" toName="t"><Label value="A"/><Label value="B" alias="b"/></Labels>',
    )
    result = {"from_name": "l", "to_name": "t", "type": "labels", "value": {"labels": ["A", "b"]}}
    assert found.check_strict([{"result": [result]}], [{"result": [result]}]) is None
    _, message = found.check_strict([{"result": [result | {"value": {"labels": ["C"]}}]}]) or ("", "")
    assert "'C' is none of what 'l' offers: A, B, b" in message
    for wrong in ({"from_name": 3}, {"to_name": None}, {"type": None}, {"value": 1}):
        assert (found.check_strict((), [{"result": [result | wrong]}]) or ("",))[0] == "prediction"
    assert (found.check_strict([{"result": [1]}]) or ("",))[0] == "annotation"


def test_dynamic_options_are_not_held_against_the_configuration() -> None:
    """Options that come with each task may be anything."""
    found = config('<Text name="t" value="$x"/>', '<Choices name="c" toName="t" value="$options"/>')
    assert found.data_keys == ("x", "options")
    result = {"from_name": "c", "to_name": "t", "type": "choices", "value": {"choices": ["anything"]}}
    assert found.check_strict([{"result": [result]}]) is None


def test_controls() -> None:
    """Controls are found by name, with what they label and what they give."""
    found = config('<Text name="t" value="$x"/>', '<Choices name="c" toName="t"><Choice value="a"/></Choices>')
    control = found.control("c")
    assert control is not None
    assert (control.to_names, control.type, control.options) == (("t",), "choices", frozenset({"a"}))
    assert control.result("a")["value"] == {"choices": ["a"]}
    assert control.result({"choices": []})["value"] == {"choices": []}
    assert found.control("t") is None
