"""Root: how commands reach the agent of this machine. A configuration file enters, answers of its status page leave.

What stands in the way is raised as `Stop`, with the exit code and the sentence for it.
"""

import argparse
import http.client
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast
from urllib.parse import urlencode

from meshdns import defaults
from meshdns.agent.config import AgentConfig, load
from meshdns.cli import DEGRADED, FAILED, NOT_RUNNING, USAGE
from meshdns.cli.screen import complain
from meshdns.settings import Invalid
from meshdns.values import Endpoint

_CHUNK = 1 << 16
_CODES = {400: USAGE, 404: FAILED, 503: DEGRADED}


class Stop(Exception):
    """Why a command ends here: its exit code, and a sentence that says what to do."""

    def __init__(self, code: int, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code
        self.sentence = sentence


Command = Callable[[argparse.Namespace, AgentConfig], int]


def run(command: Command, args: argparse.Namespace) -> int:
    """Run a command on the configuration that `--config` names; says why if it has to stop."""
    try:
        return command(args, configuration(args.config))
    except Stop as stop:
        advice = f" It starts with `twistd meshdns --config {args.config}`; --config FILE names that of another agent."
        complain(stop.sentence + (advice if stop.code == NOT_RUNNING else ""))
        return stop.code


def configuration(file: str) -> AgentConfig:
    """The agent's configuration; raises Stop."""
    try:
        return load(file)
    except Invalid as invalid:
        advice = "Name the configuration of the agent with --config FILE"
        if "cannot be read" not in str(invalid):
            advice = "The agent could not start with it; mend it"
        raise Stop(FAILED, f"the configuration cannot be used:\n{invalid}\n{advice}.") from None


def get_json(config: AgentConfig, path: str, parameters: Mapping[str, str] | None = None) -> dict[str, Any]:
    """A page of JSON; raises Stop."""
    body = b"".join(get(config, path, parameters))
    try:
        value = json.loads(body)
        if isinstance(value, dict):
            return value
    except ValueError:
        pass
    raise _stranger(config.status)


def get(config: AgentConfig, path: str, parameters: Mapping[str, str] | None = None) -> Iterator[bytes]:
    """A page of the agent's status address, in pieces as they come; raises Stop."""
    where = config.status
    if where is None:
        raise Stop(FAILED, "the status page is off in the configuration, so the agent cannot be looked into.")
    target = f"{path}?{urlencode(parameters)}" if parameters else path
    connection = http.client.HTTPConnection(near(where.host), where.port, timeout=defaults.AGENT_TIMEOUT)
    try:
        connection.request("GET", target)
        response = connection.getresponse()
        if response.status != 200:
            raise _refused(response, where)
        while piece := response.read(_CHUNK):
            yield piece
    except http.client.HTTPException:
        raise _stranger(where) from None
    except OSError as error:
        raise not_running(f"at {where} (its status page)", error) from None
    finally:
        connection.close()


def near(host: str) -> str:
    """The address by which to reach what listens on this one: a wildcard is reached over loopback."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)


def not_running(where: str, error: OSError) -> Stop:
    why = "no answer in time" if isinstance(error, TimeoutError) else error.strerror or str(error)
    return Stop(NOT_RUNNING, f"no agent answers {where}: {why}.")


def _refused(response: http.client.HTTPResponse, where: Endpoint) -> Stop:
    """What a page says that is none."""
    try:
        detail = cast("dict[str, Any]", json.loads(response.read(_CHUNK)))["detail"]
    except (ValueError, KeyError, TypeError):
        return _stranger(where)
    return Stop(_CODES.get(response.status, FAILED), str(detail))


def _stranger(where: Endpoint | None) -> Stop:
    return Stop(NOT_RUNNING, f"what listens at {where} is not the agent.")
