"""`python -m tests.recorded.record`: ask a real Label Studio again what it makes of every input.

It installs and starts one as the tests do, and takes some twenty minutes. `--new` asks only for inputs that are not
recorded as they are now, `--only WORD` only for those with that word in their name.
What it writes is compared with ours by `test_recorded.py`.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import httpx

from deploy import services
from deploy.services.model import Service
from tests.recorded import recording
from tests.recorded.case import Case
from tests.recorded.configs import CONFIGS
from tests.recorded.inputs import CASES

SAID = 160
"""Characters that are kept of what it says."""
_REFERENCE = re.compile(r"^(?:https?://[^/]*)?/data/(?:upload|local-files)/.*$", re.DOTALL)


class Recorder:
    """A client of one server, which reads the files of `folder`."""

    def __init__(self, service: Service, folder: Path) -> None:
        self._folder = folder
        headers = {"Authorization": f"Token {service.env['LABEL_STUDIO_TOKEN']}"}
        self._client = httpx.Client(base_url=service.url, headers=headers, timeout=300, trust_env=False)

    def record(self, case: Case, number: int) -> dict[str, Any]:
        """What it makes of an input, in a project of its own."""
        asked = {"title": f"case {number}", "label_config": CONFIGS[case.config]}
        project = self._client.post("/api/projects/", json=asked).raise_for_status().json()["id"]
        refused = self._import(case, project) if case.route == "import" else self._sync(case, project, number)
        try:
            tasks = [self._shape(task) for task in self._tasks(project)]
        except httpx.HTTPStatusError as error:
            tasks, refused = [], f"taken, and then the list of tasks answers {error.response.status_code}"
        return {"input": case.digest, "refused": refused, "tasks": tasks}

    def _import(self, case: Case, project: int) -> str | None:
        asked = {"preannotated_from_fields": ",".join(case.preannotated)} if case.preannotated else {}
        files = {"file": (case.file, case.content)}
        answer = self._client.post(f"/api/projects/{project}/import", files=files, params=asked)
        return None if answer.is_success else f"{answer.status_code} {self._said(answer)}".strip()

    def _sync(self, case: Case, project: int, number: int) -> str | None:
        place = self._folder / str(number)
        place.mkdir()
        (place / case.file).write_bytes(case.content)
        asked = {"path": str(place), "project": project, "use_blob_urls": case.route == "files"}
        storage = self._client.post("/api/storages/localfiles/", json=asked).raise_for_status().json()["id"]
        answer = self._client.post(f"/api/storages/localfiles/{storage}/sync")
        if not answer.is_success:
            return f"{answer.status_code} {self._said(answer)}".strip()
        status = str(answer.json()["status"])
        return None if status == "completed" else status

    def _said(self, answer: httpx.Response) -> str:
        """The sentence of a refusal, without the name that an upload was given."""
        if answer.status_code >= httpx.codes.INTERNAL_SERVER_ERROR:
            return ""
        found = answer.json()
        said = str(found.get("validation_errors") or found.get("detail") or found)
        return re.sub(r"\b[0-9a-f]{8}-", "", said).replace(str(self._folder), "")[:SAID]

    def _tasks(self, project: int) -> list[dict[str, Any]]:
        listed = self._client.get("/api/tasks", params={"project": project, "page_size": 100, "fields": "all"})
        found = [task["id"] for task in listed.raise_for_status().json()["tasks"]]
        return [self._client.get(f"/api/tasks/{task}/").raise_for_status().json() for task in sorted(found)]

    def _shape(self, task: dict[str, Any]) -> dict[str, Any]:
        data = {key: self._value(value) for key, value in task["data"].items()}
        return recording.shape(data, task["meta"], task["annotations"], task["predictions"])

    @staticmethod
    def _value(value: Any) -> Any:
        return recording.REFERENCE if isinstance(value, str) and _REFERENCE.match(value) else value


def main(argv: list[str] | None = None) -> int:
    """Record, and write what was recorded; gives the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.recorded.record", description=__doc__)
    parser.add_argument("--only", default="", metavar="WORD", help="only inputs with this in their name")
    parser.add_argument("--new", action="store_true", help="only inputs that are not recorded as they are now")
    asked, recorded = parser.parse_args(argv), recording.load()
    wanted = [case for case in CASES if asked.only in case.name]
    if asked.new:
        wanted = [case for case in wanted if recorded.get(case.name, {}).get("input") != case.digest]
    try:
        _record(wanted, recorded)
    finally:
        recording.save({case.name: recorded[case.name] for case in CASES if case.name in recorded})
    return 0


def _record(wanted: list[Case], recorded: dict[str, dict[str, Any]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        settings = {"files": folder}
        with services.using("label_studio", "recorded", settings=settings) as service:
            recorder = Recorder(service, Path(folder))
            for number, case in enumerate(wanted):
                recorded[case.name] = recorder.record(case, number)
                print(f"{number + 1} of {len(wanted)}: {case.name}", flush=True)  # noqa: T201 - a script


if __name__ == "__main__":
    sys.exit(main())
