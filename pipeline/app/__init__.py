"""The composition root: the only room that knows every layer. It builds the parts that a configuration names.

`parts` opens databases, logs, stores and queues; `roles` runs them; `once` is one pass of everything,
`service` a process that works until it is told to stop; `child` is the process in which a suspected object
runs alone.
"""

from pipeline.app.installation import App
from pipeline.app.parts import Feed
from pipeline.app.progress import Progress
from pipeline.app.service import serve

__all__ = ["App", "Feed", "Progress", "serve"]
