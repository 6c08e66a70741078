"""What was recorded, as a file; and the shape in which a task of ours and one of theirs are compared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

PLACE = Path(__file__).with_name("label_studio_1.23.2.json")
REFERENCE = "(the file itself, by reference)"
_ANNOTATION: dict[str, Any] = {"result": None, "ground_truth": False, "was_cancelled": False, "lead_time": None}
_PREDICTION: dict[str, Any] = {"result": None, "score": None, "model_version": None}


def load() -> dict[str, dict[str, Any]]:
    """Name of an input → `input` (its digest), `refused` (None, or how it was refused) and `tasks`."""
    return dict(json.loads(PLACE.read_text())) if PLACE.exists() else {}


def save(recorded: dict[str, dict[str, Any]]) -> None:
    """Write all of it, a line for each input."""
    lines = [f"{json.dumps(name)}: {json.dumps(what, sort_keys=True)}" for name, what in recorded.items()]
    PLACE.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def shape(data: Any, meta: Any, annotations: list[Any] | None, predictions: list[Any] | None) -> dict[str, Any]:
    """A task in the words that both have; what is empty or as usual is left out.

    `allow_skip`, ids and other root keys are not told by Label Studio's API.
    """
    parts = {
        "data": data,
        "meta": meta or None,
        "annotations": [_picked(item, _ANNOTATION) for item in annotations or []],
        "predictions": [_picked(item, _PREDICTION) for item in predictions or []],
    }
    return {name: part for name, part in parts.items() if name == "data" or part not in (None, [])}


def _picked(item: dict[str, Any], usual: dict[str, Any]) -> dict[str, Any]:
    whole = {name: item.get(name, default) for name, default in usual.items()}
    if whole.get("score") is not None:
        whole["score"] = float(whole["score"])  # a column of a database there
    return {name: value for name, value in whole.items() if name == "result" or value != usual[name]}
