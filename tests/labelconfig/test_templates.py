"""The labelling configurations in examples/configs, each as people use it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.labelconfig import LabelConfig
from tests.parsers.reading import both, rules

FOLDER = Path(__file__).parents[2] / "examples" / "configs"

CHOICE = {"type": "choices"}
TEMPLATES: dict[str, tuple[dict[str, Any], dict[str, Any] | None]] = {
    "text_classification": (
        {"text": "x"},
        {"from_name": "sentiment", "to_name": "text", "type": "choices", "value": {"choices": ["Positive"]}},
    ),
    "named_entities": (
        {"text": "x"},
        {
            "from_name": "label",
            "to_name": "text",
            "type": "labels",
            "value": {"start": 0, "end": 1, "labels": ["Person"]},
        },
    ),
    "relations": ({"text": "x"}, {"type": "relation", "from_id": "a", "to_id": "b", "labels": ["lives in"]}),
    "image_classification": (
        {"image": "s3://b/x.png"},
        {"from_name": "animal", "to_name": "image", "type": "choices", "value": {"choices": ["Opossum", "Raccoon"]}},
    ),
    "image_boxes": (
        {"image": "s3://b/x.png"},
        {
            "from_name": "box",
            "to_name": "image",
            "type": "rectanglelabels",
            "value": {"x": 1, "rectanglelabels": ["Car"]},
        },
    ),
    "image_segmentation": (
        {"image": "s3://b/x.png"},
        {"from_name": "mask", "to_name": "image", "type": "brushlabels", "value": {"rle": [1], "brushlabels": ["Sky"]}},
    ),
    "image_captioning": (
        {"captioning": "s3://b/x.png"},
        {"from_name": "caption", "to_name": "image", "type": "textarea", "value": {"text": ["A cat"]}},
    ),
    "keypoints": (
        {"image": "s3://b/x.png"},
        {
            "from_name": "point",
            "to_name": "image",
            "type": "keypointlabels",
            "value": {"x": 1, "keypointlabels": ["Nose"]},
        },
    ),
    "audio_transcription": (
        {"audio": "s3://b/x.wav"},
        {"from_name": "transcription", "to_name": "audio", "type": "textarea", "value": {"text": ["Hello"]}},
    ),
    "audio_segments": (
        {"audio": "s3://b/x.wav"},
        {
            "from_name": "speaker",
            "to_name": "audio",
            "type": "labels",
            "value": {"start": 0, "labels": ["Speaker one"]},
        },
    ),
    "video_classification": (
        {"video": "s3://b/x.mp4"},
        {"from_name": "content", "to_name": "video", "type": "choices", "value": {"choices": ["News"]}},
    ),
    "video_tracking": (
        {"video": "s3://b/x.mp4"},
        {"from_name": "box", "to_name": "video", "type": "videorectangle", "value": {"sequence": []}},
    ),
    "time_series": (
        {"csv": "s3://b/x.csv"},
        {
            "from_name": "label",
            "to_name": "series",
            "type": "timeserieslabels",
            "value": {"start": 1, "timeserieslabels": ["Run"]},
        },
    ),
    "dialogue": (
        {"dialogue": [{"author": "A", "text": "x"}]},
        {
            "from_name": "act",
            "to_name": "dialogue",
            "type": "paragraphlabels",
            "value": {"paragraphlabels": ["Answer"]},
        },
    ),
    "html_entities": (
        {"html": "<p>x</p>"},
        {"from_name": "part", "to_name": "page", "type": "hypertextlabels", "value": {"hypertextlabels": ["Title"]}},
    ),
    "pairwise": (
        {"prompt": "p", "answer_a": "x", "answer_b": "y"},
        {"from_name": "better", "to_name": "left,right", "type": "pairwise", "value": {"selected": "left"}},
    ),
    "ranking": (
        {"query": "q", "results": [{"id": 1}]},
        {"from_name": "order", "to_name": "results", "type": "ranker", "value": {"ranker": {"relevant": ["1"]}}},
    ),
    "taxonomy": (
        {"text": "x"},
        {
            "from_name": "species",
            "to_name": "text",
            "type": "taxonomy",
            "value": {"taxonomy": [["Animals", "Mammals", "Opossum"]]},
        },
    ),
    "multi_page": (
        {"pages": [{"url": "s3://b/1.png"}]},
        {
            "from_name": "field_0",
            "to_name": "page_0",
            "type": "rectanglelabels",
            "value": {"rectanglelabels": ["Date"]},
        },
    ),
    "pdf": (
        {"pdf": "s3://b/x.pdf"},
        {"from_name": "legible", "to_name": "pdf", "type": "rating", "value": {"rating": 4}},
    ),
    "chat": (
        {"messages": [{"role": "user", "content": "x"}]},
        {"from_name": "helpful", "to_name": "chat", "type": "choices", "value": {"choices": ["Yes"]}},
    ),
    "table": (
        {"item": {"a": 1}},
        {"from_name": "valid", "to_name": "table", "type": "choices", "value": {"choices": ["ok"]}},
    ),
}
"""Template → data that fits it, and a result of one of its controls."""

FILES = {
    "time_series": ("a.csv", "time,velocity\n", {"csv": "s3://bucket/a.csv"}),
    "dialogue": ("a.json", '[{"author": "A", "text": "x"}]', {"dialogue": [{"author": "A", "text": "x"}]}),
    "html_entities": ("a.html", "<p>x", {"html": "<p>x"}),
    "pdf": ("a.pdf", "", {"pdf": "s3://bucket/a.pdf"}),
    "image_captioning": ("a.png", "", {"captioning": "s3://bucket/a.png"}),
    "audio_segments": ("a.wav", "", {"audio": "s3://bucket/a.wav"}),
    "video_tracking": ("a.mp4", "", {"video": "s3://bucket/a.mp4"}),
    "named_entities": ("a.txt", "x\n", {"text": "x"}),
}
"""Template → a file that feeds it as it is, and the data that it becomes."""


def test_all_templates_are_tested() -> None:
    """There are at least twenty templates, and each has its case here."""
    assert {path.stem for path in FOLDER.glob("*.xml")} == set(TEMPLATES)
    assert len(TEMPLATES) >= 20


@pytest.mark.parametrize("name", TEMPLATES)
def test_template(name: str) -> None:
    """The template takes its data and results, says what it asks for by an example, and refuses what is not its."""
    xml = (FOLDER / f"{name}.xml").read_text()
    config = LabelConfig.parse(xml)
    data, result = TEMPLATES[name]
    assert set(config.data_keys) == set(data)
    assert config.check(data) is None
    assert config.fits_all([data])
    assert config.check(config.example()) is None
    assert config.feeds()
    assert (config.check({}) or ("", ""))[0] == "missing_key"
    item = {"data": data, "annotations": [{"result": [result]}]}
    assert len(both("a.json", json.dumps(item), rules(xml, "strict")).tasks) == 1
    wrong = {"from_name": "nobody", "to_name": "x", "type": "y", "value": {}}
    assert both("a.json", json.dumps(item | {"annotations": [{"result": [wrong]}]}), rules(xml, "strict")).codes == [
        "annotation"
    ]


@pytest.mark.parametrize("name", FILES)
def test_file_for_template(name: str) -> None:
    """The configuration decides what a file becomes."""
    key, content, data = FILES[name]
    assert both(key, content, rules((FOLDER / f"{name}.xml").read_text())).data == [data]
