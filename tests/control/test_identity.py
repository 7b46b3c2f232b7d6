"""Who is asking (rule X10), the tokens file, and the poll as values (rules X5 to X7)."""

from twisted.trial.unittest import SynchronousTestCase

from meshdns import exchange
from meshdns.control.identity import Identity, Refusal, identify
from meshdns.control.tokens import Token, by_hash, find, hashed, parse, text
from meshdns.defaults import POLL_MOST
from meshdns.exchange import Poll, read_answer, read_poll
from meshdns.settings import Invalid
from meshdns.web import Refused

SPIFFE = "spiffe://cluster.local/ns/ns1/sa/default"
TOKEN = Token(id="one", hash=hashed("secret"), namespace="ns2", service_account="vm", expires=100.0)
G = "0123456789abcdef" * 2


class IdentityTests(SynchronousTestCase):
    """X10: the namespace comes from the identity alone."""

    def who(self, uris: list[str] | None = None, authorization: str = "", now: float = 1.0) -> Identity | Refusal:
        return identify(uris, authorization, "cluster.local", by_hash([TOKEN]), now)

    def test_certificate(self) -> None:
        self.assertEqual(Identity("ns1", "default", SPIFFE), self.who([SPIFFE, "https://x.example"]))

    def test_token(self) -> None:
        self.assertEqual(Identity("ns2", "vm", "token one"), self.who(None, "Bearer secret"))
        self.assertEqual("ns2", getattr(self.who([SPIFFE], "bearer  secret"), "namespace", None))

    def test_refused(self) -> None:
        """X10: 401 for nobody, 403 for somebody else; each with its cause."""
        for uris, authorization, status, cause in (
            (None, "", 401, "no certificate and no token"),
            (None, "Basic abc", 401, "no bearer token"),
            (None, "Bearer other", 401, "an unknown token"),
            ([SPIFFE], "Bearer other", 401, "an unknown token"),
            ([], "", 403, "0 SPIFFE names"),
            ([SPIFFE, SPIFFE + "x"], "", 403, "2 SPIFFE names"),
            (["spiffe://other.example/ns/ns1/sa/default"], "", 403, "the name spiffe://other.example"),
            (["spiffe://cluster.local/ns/ns1"], "", 403, "the name spiffe://cluster.local/ns/ns1"),
            (["spiffe://cluster.local/ns/a/b/sa/default"], "", 403, "the name"),
        ):
            found = self.who(uris, authorization)
            assert isinstance(found, Refusal), found
            self.assertEqual(status, found.status)
            self.assertIn(cause, found.cause)

    def test_expired_token(self) -> None:
        found = self.who(None, "Bearer secret", now=100.0)
        assert isinstance(found, Refusal)
        self.assertEqual((401, "the token one, expired"), (found.status, found.cause))


class TokensTests(SynchronousTestCase):
    def test_there_and_back(self) -> None:
        """X10: tokens stand in the file as hashes only."""
        tokens = (TOKEN, Token(id="two", hash=hashed("x"), namespace="a"))
        self.assertEqual(tokens, parse(text(tokens).encode(), "t"))
        self.assertNotIn("secret", text(tokens))
        self.assertEqual((), parse(text(()).encode(), "t"))
        self.assertEqual((), parse(b"# nothing\n", "t"))

    def test_find(self) -> None:
        self.assertEqual((TOKEN, None), (find(by_hash([TOKEN]), "secret"), find(by_hash([TOKEN]), TOKEN.hash)))

    def test_wrong_file(self) -> None:
        for wrong, told in (
            ("tokens: [{id: a, namespace: b, hash: secret}]", "is no hash"),
            ("tokens: [{id: a, namespace: b}]", "hash is required"),
            ("tokens: x", "a list is wanted"),
            (text([TOKEN, TOKEN]), "the same as"),
            (text([TOKEN]).replace("1970-01-01T00:01:40Z", "tomorrow"), "is no time"),
        ):
            self.assertIn(told, str(self.assertRaises(Invalid, parse, wrong.encode(), "t")))


class PollTests(SynchronousTestCase):
    """X5: as curl or any agent says it."""

    def test_there_and_back(self) -> None:
        poll = Poll(cluster="east", network="n", known=(G,), wait=55.0, deltas=True, gzip=True)
        self.assertEqual("/v1/nametable?cluster=east&network=n", poll.path)
        headers = {name.lower(): value for name, value in poll.headers.items()}
        self.assertEqual(poll, read_poll({"cluster": "east", "network": "n"}, headers))
        self.assertEqual(Poll(), read_poll({}, {}))

    def test_what_clients_write(self) -> None:
        headers = {
            "if-none-match": f'W/"{G}", "x", *',
            "prefer": "respond-async, wait=7",
            "a-im": "gzip, Meshdns-Delta;q=1",
            "accept-encoding": "br, GZIP;q=0.5",
            "accept": "text/html, */*;q=0.1",
        }
        said = read_poll({}, headers)
        self.assertEqual(Poll(known=(G,), wait=7.0, deltas=True, gzip=True), said)
        none = read_poll(
            {}, {"accept-encoding": "gzip;q=0", "a-im": "diffe", "prefer": "wait=x", "accept": "application/jsonl"}
        )
        self.assertEqual(Poll(), none)

    def test_bounded(self) -> None:
        self.assertEqual(POLL_MOST, read_poll({}, {"prefer": "wait=99999"}).wait)

    def test_istio(self) -> None:
        """X4: Accept: application/json gets Istio's form."""
        self.assertTrue(read_poll({}, {"accept": "application/json"}).istio)
        self.assertFalse(read_poll({}, {"accept": "application/json, application/jsonl"}).istio)

    def test_refused(self) -> None:
        """X6: what makes no sense."""
        self.assertEqual(406, self.assertRaises(Refused, read_poll, {}, {"accept": "text/html"}).code)
        self.assertEqual(400, self.assertRaises(Refused, read_poll, {"x": "y"}, {}).code)

    def test_answers(self) -> None:
        lines = {"content-type": "application/jsonl; charset=utf-8", "etag": f'"{G}"', "content-encoding": "gzip"}
        self.assertEqual(("table", G, True), _of(read_answer(200, lines)))
        self.assertEqual(("delta", G, True), _of(read_answer(226, lines)))
        self.assertEqual(("nothing", G, False), _of(read_answer(304, {"etag": f'"{G}"'})))
        self.assertEqual(7.0, read_answer(503, {"retry-after": "7"}).retry_after)
        self.assertRaises(ValueError, read_answer, 200, {"content-type": "text/html"})

    def test_acknowledgement(self) -> None:
        """X7: the generation named in the next poll."""
        self.assertEqual((G,), exchange.next_poll(Poll(), G).known)


def _of(answer: exchange.Answer) -> tuple[str, str, bool]:
    return answer.kind, answer.generation, answer.gzip
