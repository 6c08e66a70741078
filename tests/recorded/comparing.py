"""What ours makes of an input, in the words of a recording; and whether the two are the same."""

from __future__ import annotations

import json
from typing import Any

from pipeline.config import ParseOptions
from pipeline.errors import ObjectFailed, ObjectSkipped
from pipeline.labelconfig import LabelConfig
from pipeline.parsers import Body, Rules, select
from pipeline.tasks import Task
from tests.recorded import recording
from tests.recorded.case import Case
from tests.recorded.configs import CONFIGS

_LINK = "s3://bucket/the/file"


def ours(case: Case) -> dict[str, Any]:
    """What ours makes of it: `refused` (None, or the codes of what was refused) and `tasks`."""
    refused: list[str] = []
    tasks: list[Task] = []
    rules = _rules(case)
    try:
        for piece in select(case.file, rules).parse(
            Body(case.file, "s3://b/x", len(case.content), case.content), rules
        ):
            if piece.restart:
                refused, tasks = [], []
            tasks += piece.tasks
            refused += [row.code for row in piece.rejected]
    except (ObjectFailed, ObjectSkipped) as error:
        refused.append(error.code)
    return {"refused": " ".join(refused) or None, "tasks": [_shape(task) for task in tasks]}


def same(mine: dict[str, Any], theirs: dict[str, Any]) -> bool:
    """Whether both made the same tasks, type by type, and both or neither refused some of it.

    A file that holds nothing is no difference, whether or not it is called a failure.
    """
    if _text(mine["tasks"]) != _text(theirs["tasks"]):
        return False
    return mine["refused"] == "no_tasks" or bool(mine["refused"]) == bool(theirs["refused"])


def _text(tasks: Any) -> str:
    # As text 1, 1.0 and true are three things.
    return json.dumps(tasks, sort_keys=True)


def _rules(case: Case) -> Rules:
    options = ParseOptions(
        **{"as": "files" if case.route == "files" else "auto"}, preannotated_from_fields=case.preannotated
    )
    config = None if case.config == "none" else LabelConfig.parse(CONFIGS[case.config])
    return Rules.of(options, config, direct=case.route == "import", link=lambda _: _LINK)


def _shape(task: Task) -> dict[str, Any]:
    read = [None if part is None else json.loads(part) for part in (task.data, task.meta, task.annotations)]
    predictions = None if task.predictions is None else json.loads(task.predictions)
    read[0] = {key: recording.REFERENCE if value == _LINK else value for key, value in read[0].items()}
    return recording.shape(*read, predictions)
