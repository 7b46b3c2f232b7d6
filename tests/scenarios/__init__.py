"""Scenarios: who asks what, what upstreams say and when, and what must be answered, as scripts that a reader of RFCs follows.

The format is that of unbound's testbound and Knot's Deckard. First the configuration, up to CONFIG_END: the agent's own
YAML without `workload` and `table`, and a key `resolv.conf` with that file's content; unless it says otherwise there is
one upstream server, 192.0.2.1. The mesh is that of tests/agent/mesh.py. Then RANGEs of what upstream servers say while
steps of these numbers are under way, and the STEPs:

    QUERY              a client asks: REPLY has the flags (RD DO CD AD, EDNS for a bare OPT), MATCH TCP the transport
    CHECK_OUT_QUERY    the oldest question upstream not looked at yet; with ADDRESS, of those to that server
    REPLY              a server answers the oldest question that MATCHes; with ADDRESS, that server does
    CHECK_ANSWER       the oldest answer not looked at yet to this question
    TIME_PASSES ELAPSE, TIMEOUT (the oldest question upstream is never answered), ERROR (it cannot be sent)
    NOTHING, TRAFFIC   nothing

and ours: NO_ANSWER and NO_OUT_QUERY (there is none), TABLE (one JSON line per host, up to TABLE_END, replaces the
mesh's table), WALL_CLOCK (the machine's clock is stepped by so many seconds). At the end every question upstream must
have been answered and every answer looked at: so what a script does not mention does not happen.

An entry without TTL means 3600. MATCH says what is compared: opcode, qname, qtype, rcode, flags, question, answer, DO,
authority, additional, noedns, UDP, TCP, ede=N (among others) or ede=any, all (the message but for TTLs), ttl (TTLs,
too). ADJUST says how a reply is made: copy_id is always done; copy_query takes the question asked, packet_sleep=SECONDS
waits first, do_not_answer stays silent; and the lies: wrong_id, wrong_port, wrong_case.
"""
