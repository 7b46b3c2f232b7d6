"""Root: `meshdns demo`. A control plane and an agent in one process, on a sample mesh of two clusters; a directory with all
of it is left behind, to look at and to change.
"""

import argparse
import os
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

from meshdns.cli import DONE, FAILED
from meshdns.cli.screen import complain

_SAMPLES = Path(__file__).resolve().parents[1] / "samples" / "mesh"
_CONTROL = """\
# The control plane of the demo.
listen: ["127.0.0.1:15012"]
tls: {certificate: pki/server.pem, key: pki/server.key}
tokens: tokens.yaml
clusters:
  - {name: east, network: east-net, manifests: east/}
  - {name: west, network: west-net, manifests: west/}
vips: {store: "sqlite:vips.sqlite"}
status: 127.0.0.1:15014
"""
_AGENT = """\
# An agent for a workload in namespace ns1 of the cluster east.
workload: {namespace: ns1, cluster: east, network: east-net}
listen: ["127.0.0.1:15053", "[::1]:15053"]
search: [ns1.svc.cluster.local, svc.cluster.local, cluster.local]
table:
  control_plane: {urls: ["https://127.0.0.1:15012"], ca: pki/root.pem, token_file: token}
  snapshot: table.jsonl
status: 127.0.0.1:15054
"""
_TRY = """\
A control plane on 127.0.0.1:15012 and an agent on 127.0.0.1:15053 run on the mesh in {folder}; Ctrl-C ends them.
Try, in another terminal:

  dig @127.0.0.1 -p 15053 +noall +answer productpage.ns1.svc.cluster.local
  dig @127.0.0.1 -p 15053 +noall +answer loyalty.ns2             # runs in the cluster west only
  dig @127.0.0.1 -p 15053 +noall +answer db1.example.com db2.example.com   # one port, told apart by VIPs

Change the mesh, and ask again at once:

  sed -i s/10.4.0.5/10.4.0.99/ {folder}/east/bookinfo.yaml
  dig @127.0.0.1 -p 15053 +noall +answer productpage.ns1.svc.cluster.local

And ask why a host is not in the workload's table:

  curl -s 'http://127.0.0.1:15014/v1/explain?host=payroll.example.com&namespace=ns1'
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "directory",
        nargs="?",
        default="meshdns-demo",
        help="made if it is not there, else run as it is (default: %(default)s)",
    )


def run(args: argparse.Namespace) -> int:
    """Runs until a signal."""
    folder = Path(args.directory)
    try:
        if not folder.exists():
            prepare(folder)
        elif not (folder / "control.yaml").exists():
            complain(f"{folder} is there and holds no demo; name another directory")
            return FAILED
    except OSError as error:
        complain(f"{folder} cannot be made: {error.strerror}")
        return FAILED
    print(_TRY.format(folder=folder), flush=True)
    from meshdns.embedded import run_both

    why = run_both(str(folder / "control.yaml"), str(folder / "agent.yaml"))
    if why:
        complain(why)
    return FAILED if why else DONE


def prepare(folder: Path) -> None:
    """The sample mesh with its two configurations, certificates and a token."""
    from meshdns.control.tokens import PREFIX, Token, hashed, text

    shutil.copytree(_SAMPLES, folder)
    (folder / "control.yaml").write_text(_CONTROL)
    (folder / "agent.yaml").write_text(_AGENT)
    secret = PREFIX + os.urandom(32).hex()
    (folder / "tokens.yaml").write_text(text([Token(id="demo", hash=hashed(secret), namespace="ns1")]))
    _secret(folder / "token", f"{secret}\n".encode())
    (folder / "pki").mkdir()
    make_certificates(folder / "pki")


def _secret(path: Path, content: bytes) -> None:
    path.touch(0o600)
    path.write_bytes(content)


def make_certificates(folder: Path) -> None:
    """An authority of our own, whose key nobody keeps, and a certificate for 127.0.0.1."""
    from ipaddress import ip_address

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    begin = datetime.now(UTC) - timedelta(hours=1)
    root, server = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    authority = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "meshdns demo authority")])
    here = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "meshdns demo")])
    own: list[tuple[str, x509.Name, ec.EllipticCurvePrivateKey, x509.ExtensionType]] = [
        ("root.pem", authority, root, x509.BasicConstraints(ca=True, path_length=0)),
        ("server.pem", here, server, x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])),
    ]
    for file, subject, key, says in own:
        number, end = x509.random_serial_number(), begin + timedelta(days=365)
        built = x509.CertificateBuilder(authority, subject, key.public_key(), number, begin, end)
        built = built.add_extension(says, critical=subject is authority)
        (folder / file).write_bytes(built.sign(root, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    form = serialization.PrivateFormat.PKCS8
    pem = server.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    _secret(folder / "server.key", pem)
