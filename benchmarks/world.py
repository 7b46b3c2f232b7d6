"""A large mesh as manifests: what `kubectl get -o yaml` would give of it, some 1,000 octets a service."""

from pathlib import Path

from benchmarks.names import MESH_ZONE

_SERVICE = """\
apiVersion: v1
kind: Service
metadata:
  name: {name}
  namespace: {namespace}
  uid: 6f1c9f3a-0000-4000-8000-{number:012d}
  resourceVersion: "{version}"
  creationTimestamp: "2026-01-01T00:00:00Z"
  labels:
    app: {name}
    app.kubernetes.io/name: {name}
    app.kubernetes.io/instance: {name}-{namespace}
    app.kubernetes.io/part-of: shop
    app.kubernetes.io/managed-by: Helm
    helm.sh/chart: service-4.2.{number}
  annotations:
    meta.helm.sh/release-name: {name}
    meta.helm.sh/release-namespace: {namespace}
    prometheus.io/scrape: "true"
    prometheus.io/port: "9090"
spec:
  type: ClusterIP
  clusterIP: {address}
  clusterIPs:
  - {address}
  internalTrafficPolicy: Cluster
  ipFamilies:
  - IPv4
  ipFamilyPolicy: SingleStack
  ports:
  - name: http
    port: 80
    protocol: TCP
    targetPort: 8080
    appProtocol: http
  - name: grpc
    port: 9080
    protocol: TCP
    targetPort: grpc
  selector:
    app: {name}
    version: v1
  sessionAffinity: None
status:
  loadBalancer: {{}}
---
"""


def service(number: int, namespace: str, version: int = 1) -> str:
    """One document; `version` moves its address."""
    return _SERVICE.format(
        name=f"service-{number}",
        namespace=namespace,
        number=number,
        address=address(number, version),
        version=1000 + version,
    )


def address(number: int, version: int) -> str:
    """The address of a service; another one in the next version."""
    return f"10.{64 * (version % 3) + (number >> 16)}.{number >> 8 & 255}.{number & 255}"


def host(number: int, namespace: str) -> str:
    """What it is called."""
    return f"service-{number}.{namespace}.svc.{MESH_ZONE}"


def namespace_text(index: int, services: int, changed: int = 0) -> str:
    """A namespace's file. `changed` is the version of its first service."""
    first = index * services
    name = f"ns{index}"
    return "".join(service(first + each, name, changed if each == 0 else 0) for each in range(services))


def write(folder: Path, namespaces: int, services: int) -> int:
    """A file for each namespace; how many octets they have."""
    folder.mkdir()
    total = 0
    for index in range(namespaces):
        total += (folder / f"ns{index}.yaml").write_text(namespace_text(index, services))
    return total
