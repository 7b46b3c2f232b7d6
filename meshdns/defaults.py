"""Vocabulary: every port, path, cap and interval, each with its reason. Durations in seconds, sizes in octets."""

# answers.py, resolver.py, packed.py
NEGATIVE_TTL = (
    5  # of NXDOMAIN and NODATA in the mesh: a service that appears must not stay unknown (CoreDNS uses 5, too)
)
ALIAS_HOPS = 8  # aliases behind aliases: more is a mistake in the mesh, and unbound stops at about as many
PACKED_BYTES = 2 << 20  # of answers kept as bytes, for each transport: some 3,000 questions, more than a workload asks
PACKED_ANSWER_BYTES = 590  # of one beside key and answers, as tracemalloc measures it
PACKED_TURNS = 16  # orders of addresses kept packed; a service of more addresses is answered anew each time
SEARCH_TTL = 30  # of the CNAME to where a search ended: an earlier step may come to exist
CHAIN_RECORDS = 32  # records in front of a name that a chain of CNAMEs leads to; more is a circle through the mesh
PROBE_ZONE = "loop.meshdns.example"  # names below it are our own questions coming back, a forwarding loop

# splitdict.py
SPLIT_PARTS = 128  # dicts of one mapping, a power of two: of 100,000 hosts each has 800, copied in 0.03 ms; empty ones take 10 KiB

# authority.py
AUTHORITY_STEP = 200  # hosts taken in or followed between two breaths: a millisecond, in which no packet is answered

FOREIGN_PARENTS = 4096  # domains whose names are known to be an upstream's; a look costs microseconds

# shortway.py
PLAIN_OPTS = 64  # OPT records without options that are remembered: sizes and DO of the clients' resolvers

# lookups.py
STALE_PATIENCE = 1.8  # a client waits so long before it gets an expired answer (RFC 8767 section 5)

# service.py
DESCRIPTORS = 8192  # asked of the host: a thousand TCP clients, and 512 sockets for each of a dozen upstream servers
GC_THRESHOLD = 20_000  # objects made before circles of garbage are looked for; questions under way are fewer

# child.py, feed.py, frames.py, worker.py, workers.py
WORKERS_MOST = 64  # processes that answer: each holds the whole table, and more cores no machine has for its sidecar
WORKER_BEAT = 0.2  # seconds from one question to a worker how it does to the next: some 0.2 % of a core, both sides
WORKER_MISSED = (
    3  # of these without an answer, and the worker hangs: after 0.6 to 0.8 s, so that it is mended within one
)
WORKER_COUNTS = 5  # of so many of these one asks for its counts, too: to add them up takes a millisecond in a busy one
WORKER_START = (
    30.0  # seconds for a new worker to say its first word: half of one is usual; others do its work meanwhile
)
WORKER_ALONE = (
    1.5  # a worker that was asked nothing for so long ends: a redirect must not hold while the main process hangs
)
WORKER_STEADY = 10.0  # seconds after which a worker's death is no consequence of its start: the next one starts at once
WORKER_REST_LEAST = 0.5  # seconds before one is started in the place of a worker that died sooner, doubled each time
WORKER_REST_MOST = 30.0
WORKER_LOOK = 0.5  # seconds that a status page waits for the numbers of the workers; then their last ones must do
WORKER_STOP = 1.0  # seconds beyond DRAIN for a worker to end
WORKER_LEAVE = 1.0  # seconds in which what waits in the sockets of a worker that is not wanted any more is answered
WORKER_FRAME = 4 << 20  # octets of one message between main process and worker: a line of a table has at most one
WORKER_PIECE = 1 << 16  # octets of lines in one message, and one line more
WORKER_DELTAS = 64  # changes of the table that wait for a worker; with more the whole table is told anew
WORKER_LINE = 4096  # octets of a worker's last words that the log repeats

# doors.py, hotpath.py, slots.py, streams.py
DRAIN = 3.0  # at the end, what upstreams still owe is waited for so long: clients ask again after about five
DRAIN_READS = 100  # batches that are read at the end; a flood must not put it off
TCP_IDLE = 10.0  # a TCP connection without a whole query for so long is closed (rule D1)
TCP_CONNECTIONS = 1000  # open at once (rule D1); the one idle longest makes room
TCP_PENDING = 100  # unanswered queries of one TCP connection; more are read when these are answered
TCP_WRITE = 1 << 16  # octets of answers gathered before they are sent: as much as Twisted buffers of one connection
TCP_BACKLOG = 128  # connections that the kernel holds until we accept them
UDP_DATAGRAM = (
    4096  # octets of one datagram: no query is that long, and one cut short is refused as malformed; udp_max ends here
)
UDP_BATCH = 32  # datagrams read and answered at once, before anything else has its turn; more gain nothing
UDP_SINGLES = 16  # datagrams read one by one, where they seem to come so, before a look whether there are several
UDP_BACKLOG = 1 << 20  # octets of datagrams that the kernel holds while we are busy; it grants what it allows
REFUSAL_MEMORY = 4096  # source addresses whose right to ask is remembered
REFUSAL_MEMORY_LIFE = 60.0  # for so long: a host's own addresses change with DHCP

# yamltext.py, agent/config.py
CONFIG_FILE = "/etc/meshdns/agent.yaml"  # where `meshdns` looks when it is told no other
SETTINGS_MAX_BYTES = 256 * 1024  # of a configuration: some hundred times the largest sensible one
SETTINGS_MAX_NODES = 10_000  # keys and values in it, so that a hostile file costs milliseconds
SETTINGS_MAX_DEPTH = 16  # levels; our own keys need six
SETTINGS_MAX_PROBLEMS = 100  # told of one file: the rest is noise
LISTEN = (("127.0.0.1", 15053), ("::1", 15053))  # loopback, beside Istio's own 15053 habit; `intercept` brings port 53
STATUS = ("127.0.0.1", 15054)  # loopback: it tells what the mesh looks like, and asks nobody who they are
UDP_MAX = 1232  # octets of an answer over UDP: fits one packet on any path (DNS flag day 2020)
CLUSTER_DOMAIN = "cluster.local"  # what Kubernetes and Istio take when nothing is said
RESOLV_CONF = "/etc/resolv.conf"
UPSTREAM_TIMEOUT = 2.0  # for one server's answer, where neither configuration nor resolv.conf says
UPSTREAM_ATTEMPTS = 2  # rounds over the servers, likewise; what glibc does
UPSTREAM_DEADLINE = 5.0  # for all of it: glibc's clients give up after 5 s
UPSTREAM_MAX_INFLIGHT = 2000  # questions outstanding (rule D22)
CACHE_MAX_BYTES = 16 << 20  # some 22,000 answers (rule D27)
CACHE_MAX_TTL = 3600.0  # a mistake upstream is forgotten within the hour (rule D25)
CACHE_SERVE_STALE = 3600.0  # how long after its end an answer may stand in for a failing upstream (rule D26)

# certificates.py, bundles.py, cli/bundle*.py
CERTIFICATE_BACKDATE = 300.0  # seconds: the clock of who sees it first may be behind
RSA_BITS = 2048  # the least that is called safe until 2030 (NIST SP 800-131A)
BUNDLE_BYTES = 256 << 10  # of a bundle: ten times one with a chain of authorities and much configuration
BUNDLE_EXPIRES = (
    7 * 86400.0
)  # seconds after which a bundle cannot be installed any more: one that got lost is no harm for long
IDENTITY_LIFETIME = 30 * 86400.0  # of a certificate or token made for a VM; renewed at two thirds of it
CLOCK_SLACK = 300.0  # seconds that two machines' clocks may be apart
STATE = "/var/lib/meshdns"  # what an agent writes: the identity that it renews, and its snapshot
FIRST_TABLE = (
    15.0  # seconds that `bundle install` waits for a table: as many as a control plane across the world takes, and some
)
FIRST_TABLE_LOOK = 0.2
USER = "meshdns"  # whom the agent runs as

# host/services.py
SERVICE_WAIT = 120.0  # seconds for a service to be started: systemd itself gives up after 90

# control/issuing.py, agent/renewal.py
REQUEST_BYTES = 8192  # of a request for a certificate: one with an RSA key of 4,096 bits has 1,700
RENEWAL_LOOK = 3600.0  # seconds between two looks at an identity: clocks are stepped, files replaced by hand
RENEWAL_RETRY = 600.0  # after a failure it is tried again within so long, by chance: a fleet must not come back as one
RENEWAL_RETRY_LEAST = 1.0
RENEWAL_BODY = 65_536  # octets read of a certificate and its issuers: ten of them with large keys

# net/supervisor.py
SUPERVISOR_SOCKETS = 200  # handed over in one message: the kernel takes 253

# control/config.py, control/service.py
CONTROL_CONFIG_FILE = "/etc/meshdns/control.yaml"
CONTROL_LISTEN = (("0.0.0.0", 15012),)  # agents are on other machines; 15012 is Istio's habit for its agents
CONTROL_STATUS = ("127.0.0.1", 15014)  # loopback, as the agent's
VIPS_IPV4 = "240.240.0.0/16"  # class E, which nothing routes; Istio's own range
VIPS_IPV6 = "2001:2::/48"  # benchmarking (RFC 5180), which nothing routes; Istio's own range
VIPS_STORE = "/var/lib/meshdns/vips.sqlite"
ROOT_NAMESPACE = "istio-system"  # whose Sidecars count for every namespace; Istio's own
DEBOUNCE_QUIET = 0.1  # seconds without a further change before tables are made (rule X8)
DEBOUNCE_MOST = 1.0  # and after so long they are made all the same

# exchange.py, control/longpoll.py
POLL_WAIT = 55.0  # seconds an agent wants to be parked: below the minute after which many proxies give up
POLL_MOST = 300.0  # seconds that anybody may be parked
PARKED_POLLS = 20_000  # at once; one process holds 10,000 agents, and two replicas may be down to one
POLL_CONNECTIONS = 25_000  # open at once; the one idle longest makes room
CONTROL_DESCRIPTORS = 26_000  # asked of the host, for these and files
POLL_IDLE = 75.0  # a connection without a request is closed after so long; agents ask at once again
POLL_WAKE = (
    5_000  # parked polls answered before the reactor looks at other things: it would find those answered, asking anew
)
POLL_TOLD = 60.0  # a refusal of one cause and peer is logged once in so long
PACKED_BODIES = 256  # bodies kept packed: of a change each view's delta and table, plain and gzipped

# control/sources/files.py
FILES_POLL = 0.1  # seconds between two looks; one costs some 5 us a file
FILES_REST = 4  # and at least so many times what the look took: ten thousand files must not keep a core busy
FILES_STEP = 200  # files looked at between two breaths: a millisecond, in which no packet is answered
FILES_LEVELS = 32  # directories within each other
FILES_MOST = 100_000  # files below one path; with more it is a mistake

# control/views.py
VIEW_GENERATIONS = 64  # changes that an agent may be behind and still get a delta: a minute of one change a second

# control/vips.py, control/leases.py
VIP_REST = 86400.0  # seconds that a freed VIP is given to nobody: whoever still has it must not reach another host
LEASES_RETRY = 5.0  # seconds after which a store that failed is tried again
LEASES_WAIT = 5.0  # for another process that writes into the same store

# control/documents.py, control/fields.py, control/manifests.py
MANIFEST_FILE_BYTES = 64 << 20  # of one file: a cluster's every object, exported, has some 50 MiB
MANIFEST_DEPTH = 64  # levels; a Pod, the deepest that is common, has some twelve
MANIFEST_VALUES = 1_000_000  # values of one document: a list of every object of a large cluster
MANIFEST_PROBLEMS = 20  # told of one document: the rest is noise
MANIFEST_STEP = 4  # documents read between two breaths: about a millisecond each, in which no packet is answered

# host/resolvconf.py
RESOLV_MAX_BYTES = 64 * 1024  # read of a resolv.conf; the longest sensible one is some 2 KiB
RESOLV_NAMESERVERS = 8  # taken of one file: glibc asks three only, but our order by health makes use of more
RESOLV_SEARCH = 32  # search domains taken of one file, as many as Kubernetes allows
RESOLV_STUBS = ("127.0.0.53", "127.0.0.54")  # where systemd-resolved listens; what it asks stands elsewhere
RESOLV_FALLBACKS = (
    "/run/systemd/resolve/resolv.conf",  # the servers behind systemd-resolved's stub
    "/var/lib/meshdns/resolv.conf",  # INTERCEPT_KEPT: what /etc/resolv.conf was before `meshdns intercept` pointed it at the agent
)

# agent/watch.py
RESOLV_POLL = 1.0  # seconds; a look is one stat for each file
RESOLV_SETTLE = 0.2  # a file that changed is taken when it has not changed again for so long: it may be half written
RESOLV_DOUBT = 5.0  # one that names no server any more is not believed for so long: it may be about to be filled

# host/nftables.py, host/iptables.py, host/netfilter.py
INTERCEPT_TABLE = "meshdns"  # of nftables: ours alone
INTERCEPT_CHAIN = "MESHDNS"  # in iptables' tables raw and nat
INTERCEPT_BEGIN_CHAIN = "MESHDNS-BEGIN"  # and in raw, for what begins an exchange
INTERCEPT_ZONE = 15053  # of conntrack, for redirected flows: nobody else's; the number is that of the agent's port
INTERCEPT_ALIVE = 1.8  # seconds after the agent's last answer that the redirect holds: old servers are back within two
INTERCEPT_ALIVE_SECONDS = 1  # the same for iptables, which counts whole seconds only
INTERCEPT_DRAIN = (
    1.0  # seconds from the last query that is redirected to the end of the rules: most answers take milliseconds
)
INTERCEPT_COMMAND = 10.0  # for nft or iptables to end: both wait for others who change rules
INTERCEPT_USER = "meshdns"  # whose process the agent is, if nothing else is said: the user that its package makes

# host/resolvfile.py
INTERCEPT_KEPT = (
    "/var/lib/meshdns/resolv.conf"  # what /etc/resolv.conf was; one of RESOLV_FALLBACKS, so the agent asks it
)
INTERCEPT_RESOLV_CONF_TIMEOUT = 1  # seconds that a client waits for a stopped agent: the least that resolv.conf can say

# cli/intercept.py, cli/proof.py
HOLD_TURN = 0.5  # seconds between two looks whether resolv.conf has changed, or, where that names it, the agent answers
HOLD_LOOK = 5.0  # and between two looks whether the rules are still there: others flush the whole ruleset
PROOF_WAIT = 1.0  # seconds for one answer that `verify` asks for
PROOF_PATIENCE = 2.0  # seconds in which a redirect just put up must have seen a sign of the agent: a few HEARTBEATs

# agent/heartbeat.py
HEARTBEAT = (
    0.25  # seconds from one query of the agent to itself to the next: 0.1 % of a core, and a busy second is survived
)

# agent/special.py
SPECIAL_TTL = 10_800  # of special-use names, which never change; what unbound gives its own

# agent/subscription.py, agent/poller.py, agent/addresses.py, agent/snapshot.py
POLL_BACKOFF_LEAST = 0.5  # seconds before a control plane that failed is asked again (rule X8)
POLL_BACKOFF_MOST = 30.0
POLL_CONNECT = 10.0  # seconds to be connected, and for the handshake of TLS
POLL_SLACK = 15.0  # beyond what it was asked to park us a control plane gets so long for its answer to begin
POLL_SILENCE = 20.0  # of a body nothing came for so long: it never will
POLL_BODY = 300.0  # for a whole body: a gigabyte an hour is no table
POLL_REFUSAL = 4096  # octets read of a refusal
POLL_RESOLVE = 5.0  # for the addresses of a control plane's name
SNAPSHOT_REST = 1.0  # seconds from one snapshot to the next
SNAPSHOT_REST_PART = 20  # and so many times what it took to write one: of a huge table it is a twentieth of the time
POLL_LIMIT_TOLD = 200  # characters of a control plane's own words that a sentence repeats

# entries.py, table.py, agent/tablefile.py
TABLE_TTL = 30  # seconds, of a table that says none: Istio's own constant
TABLE_LINE = 1 << 20  # octets of one line: 4,096 addresses take 200 KiB with all else that an entry may say
TABLE_ENTRY_LIST = 4096  # addresses, ports or pods of one entry: more fit no DNS message (64 KiB, 16 octets each)
TABLE_STEP = 100  # lines between two breaths while a table loads: 1 ms, in which no packet is answered
TABLE_FILE_BYTES = 256 << 20  # a larger file is a mistake: a million hosts take 200 MiB
TABLE_FILE_POLL = 0.5  # seconds; one stat costs some microseconds, and a person who saved the file looks at once

# agent/servers.py, agent/flights.py, agent/upstream.py, agent/pool.py
UPSTREAM_UDP_SIZE = 1232  # asked of upstreams: what passes every path unfragmented (DNS flag day 2020)
UPSTREAM_WAITERS = 1000  # clients waiting for one question; unbound's wait-limit
UPSTREAM_SOCKETS = (
    512  # UDP sockets per server: with the id 25 bits to guess, even for who knows all their ports (rule D20)
)
UPSTREAM_LEAST_SOCKETS = 4  # per server, however few descriptors there are
UPSTREAM_SOCKET_USES = 128  # questions per socket, and up to as many again: then it is replaced by one on another port
UPSTREAM_SPARE_DESCRIPTORS = 256  # never taken by upstream sockets: doors, status, control plane and files need some
UPSTREAM_BATCH = 32  # messages sent together at most: more gain nothing, and the first of them waits
UPSTREAM_READS = 256  # datagrams from upstreams handled before the reactor looks at other sockets and timers
UPSTREAM_STREAM_IDLE = 5.0  # a TCP connection to a server is kept so long without a question (RFC 7766 section 6.2.3)
UPSTREAM_TLS_IDLE = 30.0  # and one under TLS so long: it is dearer to open (RFC 7858 section 3.4)
HEDGE_LEAST = 0.02  # before this the next server is not asked (rule D21)
HEDGE_UNKNOWN = 0.2  # the same of a server whose answers are too few to know: what Tailscale staggers by
HEDGE_SAMPLES = 64  # recent answers of a server whose 95th percentile is its hedge
SUSPECT_AFTER = 3  # hedges in a row without any reply between them: the server is asked last
DEAD_AFTER = 2  # timeouts in a row without any reply between them: it is dead; CoreDNS takes two failed checks
EXPLORE_EVERY = 64  # of so many questions one is also put to another server, so that its latency stays known
PROBE_DEAD = 1.0  # a dead server is probed so often: it must be back in use two seconds after its return
PROBE_LOOP = 60.0  # and one that sends our questions back to us so often

# agent/cache.py, agent/lifetimes.py, agent/shelf.py
CACHE_NEGATIVE_TTL = 300.0  # of NXDOMAIN and NODATA at most: what was missing may be there soon (rule D25)
CACHE_FAILURE_TTL = 5.0  # RFC 9520 allows 1 s to 5 min; CoreDNS takes 5 s, and clients ask again after about as long
CACHE_STALE_TTL = 30  # in expired answers: what RFC 8767 section 4 recommends
CACHE_RECHECK = 30.0  # a failed refresh is not tried again for so long: RFC 8767 section 5 recommends it
CACHE_PREFETCH_PART = 0.1  # the last part of a life, in which an answer in use is refreshed (rule D26); unbound's, too
CACHE_PREFETCH_LEAST = 10.0  # a shorter life is not: its last tenth is less than a second
CACHE_USED_PART = 0.8  # of the room for what was given at least once: a flood of unique names has the rest to itself
CACHE_FAILURE_PART = 1 / 16  # of the room, some 2,000 failures: a flood of them must not push out good answers
CACHE_LARGEST_PART = 1 / 8  # of the room: a larger answer would push out too many; only a tiny cache meets one
CACHE_ENTRY_BYTES = 560  # of an answer beside key and message, as tracemalloc measures it
CACHE_RECORD_BYTES = 40  # of each record in it: where it stands, as a number in a list
CACHE_FAILURE_BYTES = 400  # of a failure beside key, text and message

# agent/explain.py, agent/nearby.py
NEARBY_SCANNED = 50_000  # hosts looked through for one like a name that is not there: some 20 ms, on a person's request
NEARBY_COMPARED = 200  # of these compared letter by letter
NEARBY_SIMILAR = 0.75  # of the letters must agree: a slip or two in a short name
NEARBY_HINTS = 3  # told at most: more are no help

# agent/status.py
STATUS_CONNECTIONS = 64  # open at once; the one idle longest makes room. Scrapers, probes and people are few
STATUS_IDLE = 30.0  # a connection without a request is closed after so long
STATUS_REQUEST = 60.0  # a response not taken by then is given up: it may hold an old table
STATUS_LINE = 4096  # octets of a request's first line and of each header: a name has at most 1,004 when escaped
STATUS_HEADERS = 16384  # octets of all headers of a request
STATUS_PIECE = 200  # lines of a table written at once: some milliseconds, in which no packet is answered

# cli
AGENT_TIMEOUT = 5.0  # an agent that has not answered a command by then is stuck
QUERY_TIMEOUT = 6.0  # for a DNS answer: longer than upstream.deadline, so that its own failure is seen
