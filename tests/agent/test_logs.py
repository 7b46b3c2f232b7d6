"""The log as JSON lines."""

import io
import json

from twisted.logger import Logger, LogPublisher
from twisted.trial.unittest import SynchronousTestCase

from meshdns.agent.logs import JsonLines


class JsonLinesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.stream = io.StringIO()
        self.log = Logger("meshdns.test", observer=LogPublisher(JsonLines(self.stream)))

    def test_a_line_an_event(self) -> None:
        self.log.warn("{what} is\nwrong", what="this")
        (line,) = self.stream.getvalue().splitlines()
        said = json.loads(line)
        self.assertRegex(said.pop("time"), r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00$")
        self.assertEqual(said, {"level": "warn", "source": "meshdns.test", "message": "this is\nwrong"})

    def test_a_failure_keeps_its_traceback(self) -> None:
        try:
            raise ZeroDivisionError("why")
        except ZeroDivisionError:
            self.log.failure("it broke")
        self.assertIn("ZeroDivisionError: why", json.loads(self.stream.getvalue())["traceback"])
