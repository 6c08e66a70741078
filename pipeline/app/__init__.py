"""The composition root: the only room that knows every layer. It builds the parts that a configuration names.

`parts` opens databases, logs, stores and queues; `roles` runs them; `once` is one pass of everything;
`child` is the process in which a suspected object runs alone.
"""

from pipeline.app.installation import App
from pipeline.app.parts import Feed
from pipeline.app.progress import Progress

__all__ = ["App", "Feed", "Progress"]
