"""All inputs that Label Studio was recorded on."""

from __future__ import annotations

from tests.recorded import json_inputs, other_inputs, table_inputs
from tests.recorded.case import Case

CASES: tuple[Case, ...] = (*json_inputs.all_cases(), *table_inputs.all_cases(), *other_inputs.all_cases())
