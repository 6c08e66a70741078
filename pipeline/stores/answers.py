"""What a server answered, out of the texts of obstore's errors."""

from __future__ import annotations

import re

_ANSWERED = "Server returned non-2xx status code: "
_DETAILS = "\n\nDebug source:"
_CODE = re.compile(r"<Code>(\w+)</Code>")
_STATUS = re.compile(r"\d{3}")


def code_in(error: Exception) -> str | None:
    """The code in the answer's body, else its status; None where no server answered.

    Only what the text quotes of the answer is looked at: before that it names the key, which may look like a code.
    """
    text = str(error).partition(_DETAILS)[0]
    _, answered, told = text.rpartition(_ANSWERED)
    found = _CODE.search(told)
    if found is not None:
        return found[1]
    status = _STATUS.match(told) if answered else None
    return status[0] if status is not None else None
