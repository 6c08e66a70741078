"""Hypertext without what has no function: comments, and white space that is not shown."""

from __future__ import annotations

import re

_KEPT = frozenset({"pre", "textarea", "script", "style"})
_PART = re.compile(
    r"<!--\[if.*?<!\[endif\]-->"  # a conditional comment has a function
    r"|<!--.*?-->"
    r"""|</?([a-zA-Z][^\s/>]*)(?:"[^"]*"|'[^']*'|[^"'>])*>"""
    r"|[^<]+|<",
    re.DOTALL,
)
_SPACES = re.compile(r"[ \t\r\n\f]+")
_BLOCK_NAMES = """
    address article aside blockquote body br dd details dialog div dl dt fieldset figcaption figure footer form h1 h2
    h3 h4 h5 h6 head header hr html li link main meta nav noscript ol option p script section style table tbody td
    tfoot th thead title tr ul
"""
_BLOCKS = frozenset(_BLOCK_NAMES.split())


def minified(text: str) -> str:
    """The hypertext with comments gone, runs of white space made one, and none beside tags that break lines."""
    out: list[str] = []
    at, beside_block = 0, True
    while at < len(text):
        found = _PART.match(text, at)
        if found is None:
            out.append(text[at:])
            break
        part, name, at = found[0], (found[1] or "").lower(), found.end()
        if part.startswith("<!--"):
            if part.startswith("<!--[if"):
                out.append(part)
        elif name:
            at = _tag(text, part, name, at, out)
            beside_block = name in _BLOCKS
        else:
            shown = _SPACES.sub(" ", part)
            out.append(shown.lstrip(" ") if beside_block or (out and out[-1].endswith(" ")) else shown)
            beside_block = beside_block and not out[-1]
    return "".join(out).strip(" \t\r\n\f")


def _tag(text: str, part: str, name: str, at: int, out: list[str]) -> int:
    """Take a tag, with its content where that is kept as it is: where to go on."""
    if name in _BLOCKS and out:
        out[-1] = out[-1] if out[-1].startswith("<") else out[-1].rstrip(" ")
    out.append(part)
    if name not in _KEPT or part.startswith("</"):
        return at
    closing = re.compile(rf"</{re.escape(name)}\s*>", re.IGNORECASE).search(text, at)
    end = closing.start() if closing else len(text)
    out.append(text[at:end])
    return end
