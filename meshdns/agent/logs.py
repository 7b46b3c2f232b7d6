"""Outside: the log as JSON lines, for `twistd --logger=meshdns.agent.logs.json_lines`. Events of twisted.logger enter, one
line of JSON each leaves on standard output. It must never know what is logged.
"""

import json
import sys
from datetime import UTC, datetime
from typing import IO

from twisted.logger import ILogObserver, LogEvent, formatEvent
from zope.interface import implementer


@implementer(ILogObserver)
class JsonLines:
    """Writes `time` (RFC 3339, UTC), `level`, `source`, `message`, and `traceback` where there is one."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def __call__(self, event: LogEvent) -> None:
        failure = event.get("log_failure")
        said = {
            "time": datetime.fromtimestamp(event["log_time"], UTC).isoformat(timespec="milliseconds"),
            "level": event["log_level"].name if "log_level" in event else "info",
            "source": event.get("log_namespace", ""),
            "message": formatEvent(event),
        }
        if failure is not None:
            said["traceback"] = failure.getTraceback()
        self._stream.write(json.dumps(said, ensure_ascii=False) + "\n")
        self._stream.flush()


def json_lines() -> JsonLines:
    """What `twistd --logger` calls for an observer."""
    return JsonLines(sys.stdout)
