"""Inside: documents of the kinds that name services -> objects. One document enters; objects leave, with every problem of it.

A kind that is not known is no mistake: it is counted. What is known is read strictly where the mesh's names hang on it, and
not at all elsewhere. It must never know of files, nor of other documents.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from ipaddress import ip_address

import attrs

from meshdns.control import model
from meshdns.control.documents import TWICE, Value
from meshdns.control.fields import (
    Fields,
    Sheet,
    address,
    address_or_network,
    host,
    label,
    plain_host,
    subdomain,
)
from meshdns.control.model import Endpoint, Object, Ref
from meshdns.entries import Port
from meshdns.values import quote

EXPORT_TO = "networking.istio.io/exportTo"
AUTO_VIP = "networking.istio.io/enable-autoallocate-ip"
NETWORK = "topology.istio.io/network"
SERVICE_NAME = "kubernetes.io/service-name"
DEFAULT_NAMESPACE = "default"

_RESOLUTIONS = ("NONE", "STATIC", "DNS", "DNS_ROUND_ROBIN", "DYNAMIC_DNS")
_PORT_NAME = re.compile(r"[A-Za-z0-9_-]{0,63}")
_ISTIO = frozenset({"v1", "v1beta1", "v1alpha3"})
_VERSIONS: Mapping[str, tuple[str, frozenset[str]]] = {
    "Service": ("", frozenset({"v1"})),
    "Endpoints": ("", frozenset({"v1"})),
    "Pod": ("", frozenset({"v1"})),
    "Namespace": ("", frozenset({"v1"})),
    "EndpointSlice": ("discovery.k8s.io", frozenset({"v1", "v1beta1"})),
    "ServiceEntry": ("networking.istio.io", _ISTIO),
    "WorkloadEntry": ("networking.istio.io", _ISTIO),
    "Sidecar": ("networking.istio.io", _ISTIO),
    "ServiceImport": ("multicluster.x-k8s.io", frozenset({"v1alpha1", "v1beta1", "v1"})),
}
_CLUSTER_WIDE = frozenset({"Namespace"})


@attrs.frozen
class Read:
    """One object's document, read: the object, or why there is none. `ref` is whose it is, as far as that can be told; `kind`
    is what the document says, "" where it says nothing; with neither object nor problems it is of no interest."""

    kind: str
    line: int
    ref: Ref | None = None
    object: Object | None = None
    problems: tuple[tuple[int, str], ...] = ()


def read(cluster: str, document: Value) -> Iterator[Read]:
    """All that a document holds: one object, or those of a list; a null holds none."""
    if document.kind == "nothing":
        return
    if document.kind != "map":
        yield Read("", document.line, problems=((document.line, "this is no object: keys with values are wanted"),))
        return
    kind, version = _word(document, "kind"), _word(document, "apiVersion")
    items = document.fields.get("items")
    if kind.endswith("List") and (unclear := _twice(document, "items")):
        yield Read(kind, document.line, problems=unclear)
    elif kind.endswith("List") and items is not None and items.kind == "list":
        for item in items.items:
            yield _one(cluster, item, kind.removesuffix("List"), version)
    else:
        yield _one(cluster, document, "", "")


def _word(document: Value, name: str) -> str:
    found = document.fields.get(name)
    return found.text if found is not None and found.kind == "text" else ""


def _twice(document: Value, *names: str) -> tuple[tuple[int, str], ...]:
    """The problems of those of these keys that are there twice."""
    found = [(document.fields[name], name) for name in names if name in document.fields]
    return tuple((value.line, f"{name} is there twice; keep one") for value, name in found if value.kind == TWICE)


def _one(cluster: str, document: Value, kind: str, version: str) -> Read:
    """`kind` and `version` are what the list around it says of all its items."""
    if document.kind != "map":
        return Read(kind, document.line, problems=((document.line, "this is no object: keys with values are wanted"),))
    if unclear := _twice(document, "kind", "apiVersion"):
        return Read("", document.line, problems=unclear)
    kind, version = _word(document, "kind") or kind, _word(document, "apiVersion") or version
    if not kind:
        return Read("", document.line, problems=((document.line, "kind is required"),))
    if kind in _VERSIONS and not version:
        return Read(kind, document.line, problems=((document.line, "apiVersion is required, as a text"),))
    group, _, number = version.rpartition("/")
    known = _VERSIONS.get(kind)
    if known is None or known[0] != group:
        return Read(kind, document.line)  # somebody else's kind, perhaps of the same name
    if number not in known[1]:
        line = document.fields["apiVersion"].line if "apiVersion" in document.fields else document.line
        return Read(kind, document.line, problems=((line, f"apiVersion: {quote(version)} is not known for a {kind}"),))
    sheet = Sheet()
    fields = Fields(document, "", sheet)
    meta = fields.map("metadata")
    if not meta.text("name", str, "") and meta.text("generateName", str, ""):
        # What `kubectl create` makes objects from; the cluster names each of them.
        return Read(kind, document.line, problems=tuple(sheet.problems))
    name = meta.required("name", subdomain if kind not in ("Service", "Namespace", "ServiceImport") else label)
    namespace = "" if kind in _CLUSTER_WIDE else meta.text("namespace", label, DEFAULT_NAMESPACE)
    # With a namespace that is wrong nobody knows whose document it is, as without a name.
    ref = Ref(cluster, kind, namespace, name) if name and not sheet.problems else None
    found = _READERS[kind](ref or Ref(cluster, kind, namespace, ""), meta, fields)
    problems = tuple(sheet.problems)
    return Read(kind, document.line, ref, None if problems else found, problems)


# Kubernetes


def _service(ref: Ref, meta: Fields, document: Fields) -> Object:
    spec = document.map("spec")
    kind = spec.text("type", _one_of("ClusterIP", "NodePort", "LoadBalancer", "ExternalName"), "ClusterIP")
    first = spec.text("clusterIP", _cluster_ip, "")
    every = spec.texts("clusterIPs", _cluster_ip) or ((first,) if first else ())
    alias = ""
    if kind == "ExternalName":
        alias = spec.required("externalName", plain_host)
    return model.Service(
        ref,
        ips=() if alias else tuple(dict.fromkeys(ip for ip in every if ip not in ("", "None"))),
        ports=tuple(_ports(spec, "port", _transport)),
        headless="None" in every and not alias,
        publish_not_ready=spec.flag("publishNotReadyAddresses", False),
        alias=alias,
        selector=spec.labels("selector"),
        export_to=_exports(meta),
        created=_created(meta),
    )


def _cluster_ip(text: str) -> str:
    return text if text in ("", "None") else address(text)


def _exports(meta: Fields) -> tuple[str, ...]:
    words = dict(meta.labels("annotations")).get(EXPORT_TO, "")
    found = []
    for each in filter(None, (text.strip() for text in words.split(","))):
        try:
            found.append(_export(each))
        except ValueError as error:
            meta.refuse("annotations", f"{EXPORT_TO}: {error}")
    return tuple(found)


def _export(text: str) -> str:
    return text if text in ("*", ".", "~") else label(text)


def _created(meta: Fields) -> str:
    return meta.text("creationTimestamp", str, "")


def _one_of(*words: str) -> Callable[[str], str]:
    def convert(text: str) -> str:
        if text not in words:
            raise ValueError(f"{quote(text)} is none of {', '.join(words)}")
        return text

    return convert


def _transport(text: str) -> str:
    """A Kubernetes protocol."""
    return _one_of("TCP", "UDP", "SCTP")(text)


def _protocol(text: str) -> str:
    """The transport under one of Istio's protocols (HTTP, TLS, MONGO …), of which only UDP is no TCP."""
    return "UDP" if text.upper() == "UDP" else "TCP"


def _port_name(text: str) -> str:
    if not _PORT_NAME.fullmatch(text):
        raise ValueError(f'{quote(text)} is no name of a port: letters, digits, "-" and "_", at most 63')
    return text.lower()


def _ports(spec: Fields, number: str, protocol: Callable[[str], str]) -> Iterator[Port]:
    for each in spec.maps("ports"):
        if each.get(number, "text") is None:
            each.required(number, str)
            continue
        yield Port(
            each.text("name", _port_name, ""), each.number(number, 1, 65535, 1), each.text("protocol", protocol, "TCP")
        )


def _endpoint_slice(ref: Ref, meta: Fields, document: Fields) -> Object:
    service = dict(meta.labels("labels")).get(SERVICE_NAME, "")
    family = document.text("addressType", _one_of("IPv4", "IPv6", "FQDN"), "IPv4")
    endpoints = []
    for each in document.maps("endpoints") if family != "FQDN" else ():
        addresses = each.texts("addresses", address)
        ready = each.map("conditions").flag("ready", True)  # unknown is ready, says the API
        endpoints.append(Endpoint(addresses, each.text("hostname", label, ""), ready))
    return model.EndpointSlice(ref, service, tuple(endpoints))


def _endpoints(ref: Ref, meta: Fields, document: Fields) -> Object:
    endpoints = [
        Endpoint((ip,), each.text("hostname", label, ""), ready)
        for subset in document.maps("subsets")
        for name, ready in (("addresses", True), ("notReadyAddresses", False))
        for each in subset.maps(name)
        if (ip := each.required("ip", address))
    ]
    return model.EndpointSlice(ref, ref.name, tuple(endpoints))


def _pod(ref: Ref, meta: Fields, document: Fields) -> Object:
    spec, status = document.map("spec"), document.map("status")
    single = status.text("podIP", address, "")
    addresses = [ip for each in status.maps("podIPs") if (ip := each.text("ip", address, ""))]
    addresses = addresses or [ip for ip in (single,) if ip]
    ready = any(
        each.text("type", str, "") == "Ready" and each.text("status", str, "") == "True"
        for each in status.maps("conditions")
    )
    return model.Pod(
        ref,
        addresses=tuple(addresses),
        labels=meta.labels("labels"),
        hostname=spec.text("hostname", label, ""),
        subdomain=spec.text("subdomain", label, ""),
        ready=ready,
        service_account=spec.text("serviceAccountName", str, "default"),
    )


def _namespace(ref: Ref, meta: Fields, document: Fields) -> Object:
    return model.Namespace(ref, dict(meta.labels("labels")).get(NETWORK, ""))


def _service_import(ref: Ref, meta: Fields, document: Fields) -> Object:
    spec = document.map("spec")
    kind = spec.text("type", _one_of("ClusterSetIP", "Headless"), "ClusterSetIP")
    return model.ServiceImport(
        ref,
        ips=spec.texts("ips", address),
        ports=tuple(_ports(spec, "port", _transport)),
        headless=kind == "Headless",
    )


# Istio


def _service_entry(ref: Ref, meta: Fields, document: Fields) -> Object:
    spec = document.map("spec")
    hosts = spec.texts("hosts", _entry_host)
    if not hosts and not spec.sheet.problems:
        spec.refuse("hosts", "at least one host is required")
    assigned = [
        (each.text("host", host, ""), ip)
        for each in document.map("status").maps("addresses")
        if (ip := each.text("value", address, ""))
    ]
    return model.ServiceEntry(
        ref,
        hosts=tuple(dict.fromkeys(filter(None, hosts))),
        addresses=tuple(dict.fromkeys(spec.texts("addresses", address_or_network))),
        ports=tuple(_ports(spec, "number", _protocol)),
        resolution=spec.text("resolution", _one_of(*_RESOLUTIONS), "NONE"),
        endpoints=tuple(_entry_endpoints(spec)),
        selector=spec.map("workloadSelector").labels("labels"),
        export_to=spec.texts("exportTo", _export),
        auto_vip=dict(meta.labels("labels")).get(AUTO_VIP, "").lower() != "false",
        assigned=tuple(assigned),
        created=_created(meta),
    )


def _entry_host(text: str) -> str:
    """A host of a ServiceEntry; "" for `*rest` and `*-rest`, which Istio takes for traffic and which no DNS answers."""
    if text.startswith("*") and not text.startswith("*.") and len(text) > 1:
        host(text[1:].removeprefix("-"))
        return ""
    return host(text)


def _entry_endpoints(spec: Fields) -> Iterator[Endpoint]:
    """Those with an address of their own; a name or a socket's path is no answer."""
    for each in spec.maps("endpoints"):
        said = each.text("address", str, "")
        if _is_address(said):
            yield Endpoint((str(ip_address(said)),), network=each.text("network", str, ""))


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return "%" not in text


def _workload_entry(ref: Ref, meta: Fields, document: Fields) -> Object:
    spec = document.map("spec")
    said = spec.text("address", str, "")
    return model.WorkloadEntry(
        ref,
        address=str(ip_address(said)) if _is_address(said) else "",
        labels=spec.labels("labels"),
        network=spec.text("network", str, ""),
        service_account=spec.text("serviceAccount", str, ""),
    )


def _sidecar(ref: Ref, meta: Fields, document: Fields) -> Object:
    spec = document.map("spec")
    egress = []
    for each in spec.maps("egress"):
        hosts = each.texts("hosts", _egress_host)
        if not hosts and not each.sheet.problems:
            each.refuse("hosts", "at least one host is required")
        # A listener on a socket's path has port 0, and shows services whatever their port.
        port = each.map("port").number("number", 0, 65535, 0) or None
        egress.append(model.Egress(hosts, port))
    selector = spec.map("workloadSelector").labels("labels")
    return model.Sidecar(ref, selector, tuple(egress), _created(meta))


def _egress_host(text: str) -> str:
    """`NAMESPACE/HOST` with `*` or `.` for any or one's own namespace, and `*` or `*.rest` for the host; a `~` in front hides
    what it names, in every namespace where none follows."""
    namespace, slash, name = text.partition("/")
    if not slash or not name:
        raise ValueError(f'{quote(text)} has no namespace in front; write it like "./*" or "ns1/reviews.example.com"')
    if (named := namespace.removeprefix("~")) not in ("*", ".") and namespace != "~":
        label(named)
    return f"{namespace}/{name if name == '*' else host(name)}"


_READERS: Mapping[str, Callable[[Ref, Fields, Fields], Object]] = {
    "Service": _service,
    "Endpoints": _endpoints,
    "EndpointSlice": _endpoint_slice,
    "Pod": _pod,
    "Namespace": _namespace,
    "ServiceImport": _service_import,
    "ServiceEntry": _service_entry,
    "WorkloadEntry": _workload_entry,
    "Sidecar": _sidecar,
}
