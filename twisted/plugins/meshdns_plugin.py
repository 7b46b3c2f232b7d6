"""Root: what `twistd` can run. It imports nothing of meshdns: every `twistd` on the machine reads this file."""

from twisted.application.service import ServiceMaker

agent = ServiceMaker("meshdns", "meshdns.daemon", "the mesh's DNS proxy beside a workload", "meshdns")
control = ServiceMaker(
    "meshdns-control",
    "meshdns.control.service",
    "the mesh's control plane, which gives agents their tables",
    "meshdns-control",
)
