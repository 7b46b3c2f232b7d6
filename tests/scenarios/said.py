"""The messages of scenario scripts: made from entries, and compared with them, by dnspython's eyes."""

from collections.abc import Iterable, Iterator

import dns.edns
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset

from tests.scenarios.script import SECTIONS, Entry

LIES = frozenset({"wrong_id", "wrong_port", "wrong_case"})
_FLAGS = {name: dns.flags.Flag[name] for name in ("QR", "AA", "TC", "RD", "RA", "AD", "CD")}
MANY = 1 << 32  # seconds: any TTL
_EDNS = frozenset({"EDNS", "DO"})


def query(entry: Entry, number: int) -> dns.message.Message:
    """What a client sends."""
    assert entry.name is not None, "a QUERY needs a question"
    made = dns.message.make_query(entry.name, entry.rdtype, id=number)
    made.flags = _flags(entry)
    if _EDNS & set(entry.reply):
        made.use_edns(0, dns.flags.DO if "DO" in entry.reply else 0, 1232)
    return made


def reply(entry: Entry, asked: bytes) -> bytes:
    """What a server says to a query; the case of its question is kept, unless the entry lies."""
    query = dns.message.from_wire(asked)
    said = dns.message.Message(query.id ^ 1 if "wrong_id" in entry.adjust else query.id)
    said.flags = _flags(entry)
    said.set_rcode(dns.rcode.from_text(_rcode(entry)))
    question = query.question[0]
    is_same = "copy_query" in entry.adjust or is_about(entry, query)
    said.question = [
        question if is_same else dns.rrset.RRset(entry.name or dns.name.root, question.rdclass, entry.rdtype)
    ]
    for section, name in zip(said.sections[1:], SECTIONS, strict=True):
        for each in entry.sections[name]:
            section.append(each.copy())
    if _EDNS & set(entry.reply):
        said.use_edns(0, dns.flags.DO if "DO" in entry.reply else 0, 1232)
    made = said.to_wire()
    if "wrong_case" in entry.adjust:
        end = 12 + len(question.name.to_wire() or b"")
        made = made[:12] + asked[12:end].swapcase() + made[end:]
    return made


def is_lie(entry: Entry, asked: bytes) -> bool:
    """Whether a careful client goes on waiting when it gets this."""
    strange = entry.name is not None and "copy_query" not in entry.adjust
    return (
        bool(LIES & set(entry.adjust))
        or "QR" not in entry.reply
        or (strange and not is_about(entry, dns.message.from_wire(asked)))
    )


def is_about(entry: Entry, message: dns.message.Message) -> bool:
    """Whether the message's question is the entry's, if it has one."""
    question = message.question[0]
    return entry.name is None or (question.name == entry.name and question.rdtype == entry.rdtype)


def matches(entry: Entry, packet: bytes, tcp: bool) -> bool:
    """Whether an entry is meant for a query: the words behind MATCH hold."""
    message = dns.message.from_wire(packet)
    question = message.question[0]
    tests = {
        "qname": question.name == entry.name,
        "qtype": question.rdtype == entry.rdtype,
        "question": is_about(entry, message),
        "subdomain": entry.name is not None and question.name.is_subdomain(entry.name),
        "UDP": not tcp,
        "TCP": tcp,
        "DO": bool(message.ednsflags & dns.flags.DO),
        "flags": message.flags == _flags(entry),
    }
    return all(tests.get(word, True) for word in entry.match)


def differences(
    entry: Entry, message: dns.message.Message, *, only_answer: bool = False, slack: int = 0
) -> Iterator[str]:
    """What is not as MATCH demands. `only_answer`: of the records, those of the answer section are compared; TTLs may be
    lower by `slack` seconds."""
    words = set(entry.match)
    everything = "all" in words
    if everything or words & {"question", "qname", "qtype"}:
        yield from _differ("right question", True, is_about(entry, message))
    if everything or "rcode" in words:
        yield from _differ("rcode", _rcode(entry), dns.rcode.to_text(message.rcode()))
    if everything or "flags" in words:
        yield from _differ("flags", dns.flags.to_text(_flags(entry)), dns.flags.to_text(message.flags))
    if everything or "DO" in words:
        yield from _differ("DO", "DO" in entry.reply, bool(message.ednsflags & dns.flags.DO))
    if "noedns" in words:
        yield from _differ("EDNS version", -1, message.edns)
    yield from _records_differ(entry, message, only_answer, slack if "ttl" in words else MANY)
    if (wanted := entry.value("ede")) is not None:
        codes = [str(int(option.code)) for option in message.options if isinstance(option, dns.edns.EDEOption)]
        if wanted not in codes and not (wanted == "any" and codes):
            yield f"EDE: wanted {wanted}, got {codes}"


def _records_differ(entry: Entry, message: dns.message.Message, only_answer: bool, slack: int) -> Iterator[str]:
    everything = "all" in entry.match and not only_answer
    for name, section in zip(SECTIONS, message.sections[1:], strict=True):
        if everything or name.lower() in entry.match or (name == "ANSWER" and "all" in entry.match):
            wanted, got = _lines(entry.sections[name]), _lines(section)
            pairs = zip(wanted, got, strict=False)
            lower = all(slack == MANY or most - slack <= ttl <= most for (_, most), (_, ttl) in pairs)
            if [line for line, _ in wanted] != [line for line, _ in got] or not lower:
                yield f"{name}: wanted {wanted}, got {got}"


def _differ(what: str, wanted: object, got: object) -> Iterator[str]:
    if wanted != got:
        yield f"{what}: wanted {wanted}, got {got}"


def _flags(entry: Entry) -> dns.flags.Flag:
    flags = dns.flags.Flag(0)
    for word in entry.reply:
        flags |= _FLAGS.get(word, 0)
    return flags


def _rcode(entry: Entry) -> str:
    return next((word for word in entry.reply if word not in _FLAGS and word not in _EDNS), "NOERROR")


def _lines(rrsets: Iterable[dns.rrset.RRset]) -> list[tuple[str, int]]:
    """Each record and its TTL, in an order of its own: that of a section means nothing (RFC 2181 section 5)."""
    return sorted(
        (f"{rrset.name} {dns.rdatatype.to_text(rrset.rdtype)} {rdata}".lower(), rrset.ttl)
        for rrset in rrsets
        for rdata in rrset
    )
