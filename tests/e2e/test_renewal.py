"""Identities renewed between a real agent and a real control plane, and `POST /v1/identity` by hand (rules X6, X9, X10)."""

import json
import time
from glob import glob
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from meshdns import certificates
from meshdns.certificates import Authority
from tests.e2e.agent import Agent, command
from tests.e2e.control import Control, Grounds, agent
from tests.e2e.stage import HERE, Stage

URI = "spiffe://cluster.local/ns/ns1/sa/default"
SERVICE = "productpage.ns1.svc.cluster.local"


class RenewalStage(Stage):
    def setUp(self) -> None:
        super().setUp()
        self.grounds = Grounds.lay(self)
        root = self.grounds.root
        (self.grounds.folder / "root.key").write_text(certificates.key_text(root.key))
        self.authority = Authority(root.certificate, root.key)

    def start_control(self, name: str = "one", renews: bool = True, **sections: int) -> Control:
        served = self.grounds.root.issue(f"server-{name}", "localhost", "127.0.0.1")
        key = {"client_ca_key": "root.key"} if renews else {}
        tls = {"certificate": served.pem.name, "key": served.key.name, "client_ca": "root.pem", **key}
        return Control.start(self.grounds, name, **{"tls": tls, **sections})  # type: ignore[arg-type]

    def identity(self, left: float, lasts: float = 60, uri: str = URI) -> Path:
        """An identity that ends in so many seconds, key and certificate in one file."""
        key = ec.generate_private_key(ec.SECP256R1())
        made = self.authority.issue(key.public_key(), uri, "vm1", time.time() + left - lasts, lasts, 7)
        path = self.folder / "identity.pem"
        path.touch(0o600)
        path.write_text(certificates.key_text(key) + certificates.text([made]))
        return path


class AgentTests(RenewalStage):
    def test_renewed(self) -> None:
        """In time, with another key and the same name; the next connection shows the new one, after the old one's end, too."""
        control = self.start_control()
        path = self.identity(left=8)
        old = certificates.read_certificates(path.read_bytes())[0]
        following = agent(self.grounds, control, certificate=str(path), key=str(path))
        following.await_line("the agent's certificate is renewed until")
        new = certificates.read_certificates(path.read_bytes())[0]
        self.assertTrue(certificates.fits(new, certificates.read_key(path.read_bytes())))
        self.assertNotEqual(old.public_key(), new.public_key())
        self.assertEqual([URI], certificates.spiffe_names(new))
        self.assertEqual(0o600, path.stat().st_mode & 0o777)
        self.assertEqual(["identity.pem"], [each.name for each in self.folder.iterdir() if "identity" in each.name])
        following.await_true("the old one's end", lambda: old.not_valid_after_utc.timestamp() < time.time())
        control.stop()
        control = self.start_control(port=control.port, status=control.status)
        following.await_true("the agent's return", lambda: control.json("/v1/agents"))
        self.grounds.edit("10.4.0.5", "10.4.0.77")
        following.await_true("news", lambda: "10.4.0.77" in following.ask(SERVICE).to_text())
        self.assertEqual([], control.complaints())

    def test_off(self) -> None:
        """Without the authority's key nothing is renewed: told once, with what to do; the agent goes on with what it has."""
        control = self.start_control(renews=False)
        path = self.identity(left=15)
        before = path.read_bytes()
        following = agent(self.grounds, control, certificate=str(path), key=str(path))
        line = following.await_line("was not renewed")
        self.assertIn("tls.client_ca_key is not set: have a new bundle made", line)
        following.await_true("a table", lambda: "10.4.0.5" in following.ask(SERVICE).to_text())
        self.assertEqual(before, path.read_bytes())
        self.assertEqual(1, len(following.lines("was not renewed")))

    def test_clock_wrong(self) -> None:
        """A clock that is a year off at boot: answers come from the snapshot, the log names the clocks, and nothing is renewed."""
        found = glob("/usr/lib/*/faketime/libfaketime.so.1")
        if not found:
            self.skipTest("not installed: libfaketime (package faketime)")
        (library,) = found
        control = self.start_control()
        path = self.identity(left=50)
        following = agent(self.grounds, control, certificate=str(path), key=str(path))
        following.await_true("a snapshot", following.table.exists)
        following.stop()
        before = path.read_bytes()
        for offset, told in (("-365d", "not yet valid"), ("+365d", "expired")):
            log = self.folder / f"agent{offset}.log"
            words = ["env", f"LD_PRELOAD={library}", f"FAKETIME={offset}", "DONT_FAKE_MONOTONIC=1"]
            process = self.start([*words, *command(following.config)], log)
            later = Agent(following.port, process, log, HERE, following.config, following.table)
            later.await_answer("version.bind", "TXT", "CH")
            self.assertEqual(["10.4.0.5"], later.addresses(SERVICE))
            self.assertRegex(later.await_line("is not trusted"), rf"{told}.*look at the clocks of both machines")
            later.stop()
            self.assertEqual(before, path.read_bytes())

    def test_of_others(self) -> None:
        """Certificate and key in two files are somebody else's to renew (SPIRE's, say)."""
        control = self.start_control()
        path = self.identity(left=15)
        other = path.with_name("other.key")
        other.write_bytes(path.read_bytes())
        following = agent(self.grounds, control, certificate=str(path), key=str(other))
        following.await_true("a table", lambda: "10.4.0.5" in following.ask(SERVICE).to_text())
        self.assertEqual([], following.lines("renewed"))


class ByHandTests(RenewalStage):
    """With curl."""

    def setUp(self) -> None:
        super().setUp()
        self.control = self.start_control()
        self.path = self.identity(left=50)
        self.request = certificates.request(ec.generate_private_key(ec.SECP256R1()), "evil").encode()

    def post(self, data: bytes, *words: str, identity: bool = True) -> tuple[int, str]:
        """Status and body."""
        body = self.folder / "body"
        body.write_bytes(data)
        shown = ["--cert", str(self.path), "--key", str(self.path)] if identity else []
        common = [
            "curl",
            "-sS",
            "-w",
            "\n%{http_code}",
            "--cacert",
            str(self.grounds.root.pem),
            "--data-binary",
            f"@{body}",
        ]
        said = self.said_by([*common, *shown, *words, f"{self.control.url}/v1/identity"])
        text, _, status = said.rpartition("\n")
        return int(status), text

    def refused(self, status: int, told: str, data: bytes, *words: str, identity: bool = True) -> None:
        found, text = self.post(data, *words, identity=identity)
        self.assertEqual((status, status), (found, json.loads(text)["status"]), text)
        self.assertIn(told, json.loads(text)["detail"])

    def test_issued(self) -> None:
        status, text = self.post(self.request)
        self.assertEqual(200, status)
        (issued,) = certificates.read_certificates(text.encode())
        issued.verify_directly_issued_by(self.grounds.root.certificate)
        self.assertEqual([URI], certificates.spiffe_names(issued))
        self.assertEqual("vm1", certificates.subject(issued))

    def test_only_the_same_name(self) -> None:
        """Whatever a request asks for, the name is that of the certificate shown."""
        key = ec.generate_private_key(ec.SECP256R1())
        wanted = [
            x509.UniformResourceIdentifier("spiffe://cluster.local/ns/hr/sa/boss"),
            x509.DNSName("control.example"),
        ]
        built = x509.CertificateSigningRequestBuilder(x509.Name([]))
        built = built.add_extension(x509.SubjectAlternativeName(wanted), False)
        built = built.add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        pem = built.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        (issued,) = certificates.read_certificates(self.post(pem)[1].encode())
        self.assertEqual([URI], certificates.spiffe_names(issued))
        self.assertEqual([], certificates.names(issued))
        self.assertFalse(issued.extensions.get_extension_for_class(x509.BasicConstraints).value.ca)

    def test_refused(self) -> None:
        """X6: each with a sentence that says what to do."""
        self.refused(401, "Show a client certificate", self.request, identity=False)
        self.refused(
            401, "Show a client certificate", self.request, "-H", "Authorization: Bearer mdt_x", identity=False
        )
        self.refused(400, "no request for a certificate", b"nonsense")
        self.refused(400, "no request for a certificate", b"")
        self.refused(413, "8192 octets", b"x" * 9000)
        self.refused(413, "8192 octets", b"x" * 900_000)
        self.refused(405, "POST a request", b"", "-X", "PUT")
        self.path = self.identity(left=50, uri="spiffe://elsewhere/ns/ns1/sa/default")
        self.refused(403, "spiffe://cluster.local/ns/NAMESPACE", self.request)

    def test_expired(self) -> None:
        """Who comes too late is not let in at all."""
        self.path = self.identity(left=-5)
        done = self.run_to_end(
            [
                "curl",
                "-sS",
                "--cacert",
                self.grounds.root.pem,
                "--cert",
                self.path,
                "--key",
                self.path,
                self.control.url,
            ]
        )
        self.assertNotEqual(0, done.returncode)

    def test_key_gone(self) -> None:
        """The authority's key cannot be read any more: 503, and the log says why; polls are not touched."""
        (self.grounds.folder / "root.key").unlink()
        self.refused(503, "the log of this control plane says why", self.request)
        self.assertIn("root.key cannot be read", self.control.log.read_text())
        (self.grounds.folder / "root.key").write_text("nonsense")
        self.refused(503, "the log", self.request)

    def test_polls_take_no_body(self) -> None:
        """What is posted to the table's path is refused as before."""
        words = [
            "curl",
            "-sS",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
            "--cacert",
            str(self.grounds.root.pem),
            "-d",
            "x",
        ]
        self.assertEqual("405", self.said_by([*words, f"{self.control.url}/v1/nametable"]))
