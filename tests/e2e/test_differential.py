"""A thousand questions of all kinds, asked of the agent and of the server behind it: nobody can tell them apart, cold or
warm, over UDP and TCP (rules D5, D18, D25, D29)."""

import socket
from collections.abc import Collection, Iterator

import attrs
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset

from tests.e2e.agent import Agent
from tests.e2e.stage import WAIT, DnsServer, Stage, framed, read_frame
from tests.e2e.upstreams import Authority, Knotd, Named, Unbound
from tests.e2e.zone import ORIGIN, Asked, questions, records

COUNT = 1000
SECTIONS = ("answer", "authority", "additional")
UDP_MAX = 1232  # octets of any datagram of the agent's
_FREE_FLAGS = dns.flags.AA | dns.flags.RA | dns.flags.TC | dns.flags.CD
_AT_ONCE = 50  # questions on their way over one connection

Records = dict[tuple[str, int, bytes], int]  # owner in lower case, type, canonical RDATA -> TTL


@attrs.frozen
class Said:
    """A message as it is compared: without order, compression and case, which are the relay's or the random case's."""

    message: dns.message.Message
    size: int

    @property
    def truncated(self) -> bool:
        return bool(self.message.flags & dns.flags.TC)

    @property
    def head(self) -> tuple[str, int, int, str]:
        """Flags but for AA, RA, TC and CD; rcode; EDNS flags; question."""
        (question,) = self.message.question
        flags = dns.flags.to_text(self.message.flags & ~_FREE_FLAGS)
        return flags, self.message.rcode(), self.message.ednsflags, question.to_text()

    @property
    def sections(self) -> list[Records]:
        return [_records(section) for section in self.message.sections[1:]]


class Line:
    """A way to ask one server many questions: a UDP socket, or a TCP connection used for all."""

    def __init__(self, server: DnsServer, *, tcp: bool) -> None:
        self._tcp = tcp
        self._server = server

    def ask(self, asked: list[Asked]) -> list[Said]:
        """The answers, in the order of the questions."""
        kind = socket.SOCK_STREAM if self._tcp else socket.SOCK_DGRAM
        said: list[Said] = []
        for start in range(0, len(asked), _AT_ONCE):
            with self._server.place.make_socket(socket.AF_INET, kind) as line:
                line.settimeout(WAIT)
                line.connect(("127.0.0.1", self._server.port))
                said += self._some(line, asked[start : start + _AT_ONCE])
        return said

    def _some(self, line: socket.socket, asked: list[Asked]) -> list[Said]:
        """By their ids, for each is answered when it can be."""
        queries = [each.query() for each in asked]
        for number, query in enumerate(queries):
            query.id = number
            packet = query.to_wire()
            line.sendall(framed(packet) if self._tcp else packet)
        found: dict[int, Said] = {}
        while len(found) < len(asked):
            packet = read_frame(line) if self._tcp else line.recv(65535)
            message = dns.message.from_wire(packet)
            if not queries[message.id].is_response(message):
                raise AssertionError(f"{queries[message.id]}\nwas answered by\n{message}")
            found[message.id] = Said(message, len(packet))
        return [found[number] for number in range(len(asked))]


def _records(section: list[dns.rrset.RRset]) -> Records:
    return {
        (rrset.name.to_text().lower(), rrset.rdtype, record.to_digestable(dns.name.root)): rrset.ttl
        for rrset in section
        for record in rrset
    }


def differences(asked: Asked, direct: Said, relayed: Said, whole: Said, *, tcp: bool) -> Iterator[str]:
    """How the agent's answer differs from the server's own, `whole` being what that says over TCP."""
    limit = 65535 if tcp else min(UDP_MAX, max(512, asked.payload or 512))
    if relayed.size > limit:
        yield f"{relayed.size} octets, more than {limit}"
    if (relayed.message.flags ^ asked.flags) & dns.flags.CD:
        yield "CD is not as asked"  # knotd says none
    # Of an answer that it had to empty named says that all in it is authentic.
    head = whole.head if direct.truncated else direct.head
    if relayed.head != head:
        yield f"{relayed.head} instead of {head}"
    if direct.message.rcode() == dns.rcode.SERVFAIL:
        return  # named fills it with the circle of CNAMEs that it went through; a failure has no records
    if relayed.truncated and not tcp and (direct.truncated or whole.size > limit):
        # What does not fit is the agent's to choose; what it chose must be there, and nothing else.
        yield from _above(relayed, whole, all_of=())
    elif relayed.truncated:
        yield f"truncated, but {whole.size} octets fit"
    else:
        # Here the server itself may have left out what is additional, or all for which there was no room.
        shorter = direct.truncated or any(direct.sections[n].keys() < whole.sections[n].keys() for n in (1, 2))
        said = whole if shorter else direct
        # The agent asks for so many octets: what is additional and beyond them named leaves out.
        yield from _above(relayed, said, all_of=SECTIONS if said.size <= UDP_MAX else SECTIONS[:2])


def _above(relayed: Said, direct: Said, *, all_of: Collection[str]) -> Iterator[str]:
    """What the agent says more than the server, and of the sections `all_of` what it says less."""
    for name, ours, theirs in zip(SECTIONS, relayed.sections, direct.sections, strict=True):
        if more := ours.keys() - theirs.keys():
            yield f"{name}: more, {sorted(more)}"
        if name in all_of and (less := theirs.keys() - ours.keys()):
            yield f"{name}: missing, {sorted(less)}"
        if older := [key for key in ours.keys() & theirs.keys() if ours[key] > theirs[key]]:
            yield f"{name}: a TTL above the server's own, {sorted(older)}"


class Differential:
    """One server, and an agent before it that is cold over UDP or over TCP first, and then warm."""

    kind: type[Authority]

    def setUp(self) -> None:
        super().setUp()
        zone = records()
        self.asked = questions(zone, COUNT)
        self.server = self.kind.start(self, ORIGIN, zone)
        self.direct = {tcp: Line(self.server, tcp=tcp).ask(self.asked) for tcp in (False, True)}

    def compare(self, agent: Agent, what: str, *, tcp: bool) -> None:
        relayed = Line(agent, tcp=tcp).ask(self.asked)
        found = [
            f"{what}: {asked.name} {asked.rdtype} {asked}:\n{problem}"
            for asked, direct, said, whole in zip(self.asked, self.direct[tcp], relayed, self.direct[True], strict=True)
            for problem in differences(asked, direct, said, whole, tcp=tcp)
        ]
        if found:
            self.fail("\n".join([f"{len(found)} differences, of which the first are", *found[:5]]))

    def test_the_zone_is_hard(self) -> None:
        """The comparison compares something: each kind of answer is among the questions many times."""
        messages = [said.message for said in self.direct[True]]
        self.assertEqual(COUNT, len(set(self.asked)))
        self.assertLessEqual({0, 3}, {message.rcode() for message in messages})
        counts = {
            "nothing of the name": sum(message.rcode() == 3 for message in messages),
            "nothing of the type": sum(not message.rcode() and not message.answer for message in messages),
            "aliases": sum(any(rrset.rdtype == dns.rdatatype.CNAME for rrset in each.answer) for each in messages),
            "long chains": sum(len(message.answer) > 5 for message in messages),
            "DNAMEs": sum(any(rrset.rdtype == dns.rdatatype.DNAME for rrset in each.answer) for each in messages),
            "signed": sum(any(rrset.rdtype == dns.rdatatype.RRSIG for rrset in each.answer) for each in messages),
            "too long for 512": sum(said.size > 512 for said in self.direct[True]),
            "too long for 1232": sum(said.size > 1232 for said in self.direct[True]),
            "CD": sum(bool(asked.flags & dns.flags.CD) for asked in self.asked),
        }
        self.assertEqual([], [what for what, count in counts.items() if count < 10], counts)

    def test_udp_first(self) -> None:
        """D5, D18, D25, D29: cold over UDP, then warm over UDP and TCP: same rcode, same records, TTLs no higher."""
        agent = Agent.start(self, servers=[self.server.address])
        self.compare(agent, "cold over UDP", tcp=False)
        self.compare(agent, "warm over UDP", tcp=False)
        self.compare(agent, "warm over TCP", tcp=True)
        self.assertEqual([], agent.complaints())

    def test_tcp_first(self) -> None:
        """D5, D18, D25, D29: the same, cold over TCP."""
        agent = Agent.start(self, servers=[self.server.address])
        self.compare(agent, "cold over TCP", tcp=True)
        self.compare(agent, "warm over UDP", tcp=False)
        self.compare(agent, "warm over TCP", tcp=True)
        self.assertEqual([], agent.complaints())


class UnboundTests(Differential, Stage):
    kind = Unbound


class NamedTests(Differential, Stage):
    kind = Named


class KnotdTests(Differential, Stage):
    kind = Knotd
