"""The hot path and the ordinary one agree (D4, D11, D18, D24, D25, D28); what is kept packed is bounded and outlasts a flood."""

from twisted.trial.unittest import SynchronousTestCase

from meshdns.agent.packed import Packed, PackedAnswers
from meshdns.defaults import PACKED_BYTES
from tests.agent.hot_fuzz import World
from tests.agent.mesh import HOSTS, Mesh


class SameTests(SynchronousTestCase):
    def test_same_bytes(self) -> None:
        """D28: thousands of questions while hosts, tables, places and time change; `make fuzz` does a million."""
        for seed in (1, 2, 3):
            world = World(seed)
            world.run(4000)
            self.assertGreater(world.packed, 300)
            self.assertGreater(world.memory.singles, 300)
            self.assertGreater(world.questions - world.memory.singles, 300)


def question(number: int) -> bytes:
    label = b"n%07d" % number
    return b"\x01\0\0\1\0\0\0\0\0\0" + bytes([len(label)]) + label + b"\7example\0\0\1\0\1"


def packed(**options: object) -> Packed:
    return Packed([b"x" * 60], 1, 0, **{"alone": True, **options})  # type: ignore[arg-type]


class RoomTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.packs = PackedAnswers()
        self.useful = [question(number) for number in range(1000)]
        for each in self.useful:
            self.packs.keep(each, packed())

    def flood(self, first: int, count: int) -> None:
        for number in range(first, first + count):
            self.packs.keep(question(number), packed())

    def give(self, asked: bytes) -> bool:
        """As a door and the resolver do it; whether it had to be packed."""
        known = self.packs.known.get(asked)
        if known is None:
            self.packs.keep(asked, packed())
            return True
        known.hits += 1
        return False

    def is_sound(self) -> None:
        packs = self.packs
        self.assertEqual(packs.octets, sum(each.octets for each in packs.known.values()))
        self.assertEqual(packs._used_octets, sum(packs.known[each].octets for each in packs._used))
        self.assertEqual(packs.known.keys(), packs._used.keys() | packs._idle.keys())
        self.assertFalse(packs._used.keys() & packs._idle.keys())
        self.assertLessEqual(packs.octets, PACKED_BYTES)

    def test_flood(self) -> None:
        """Questions that nobody asks again push out only their like, however many; nothing grows."""
        for each in self.useful:
            self.packs.known[each].hits += 1
        for turn in range(10):
            self.flood(10_000 + turn * 10_000, 10_000)
            self.is_sound()
        self.assertEqual([], [each for each in self.useful if each not in self.packs.known])

    def test_flood_asked_twice(self) -> None:
        """A flood that asks everything twice does not push out what is asked again and again, but for once when room is up."""
        lost = 0
        for turn in range(100):
            for each in self.useful:
                lost += self.give(each)
            for number in range(10_000 + turn * 500, 10_500 + turn * 500):
                self.give(question(number))
                self.give(question(number))
        self.is_sound()
        self.assertLess(lost, len(self.useful) / 10)

    def test_out_of_use(self) -> None:
        """What was in use once, but is no longer, makes room in the end."""
        for each in self.useful:
            self.packs.known[each].hits += 1
        for turn in range(100):
            for number in range(10_000 + turn * 500, 10_500 + turn * 500):
                self.give(question(number))
                self.give(question(number))
        self.is_sound()
        self.assertLess(len([each for each in self.useful if each in self.packs.known]), 100)

    def test_counted_for_ever(self) -> None:
        """Whatever becomes of an answer, what it counted stays counted."""
        self.packs.known[self.useful[0]].hits = 3
        self.packs.keep(self.useful[0], packed())
        self.packs.known[self.useful[0]].hits = 4
        self.flood(10_000, 20_000)
        self.packs.forget_about({b"n0010001"})
        self.assertEqual({(1, 0, "mesh"): 7}, self.packs.counts())
        self.packs.forget()
        self.is_sound()
        self.assertEqual({(1, 0, "mesh"): 7}, self.packs.counts())

    def test_forget_about(self) -> None:
        """D28: what begins with a label goes, and what hangs on more than that."""
        self.packs.keep(question(2000), packed(alone=False))
        self.packs.forget_about({b"n0000007", b"ns1"})
        self.assertEqual({self.useful[7], question(2000)}, {*self.useful, question(2000)} - self.packs.known.keys())
        self.is_sound()


class DeltaTests(SynchronousTestCase):
    def test_others_stay(self) -> None:
        """D28: a change of one host leaves the packed addresses of the others, and is in force for the very next packet."""
        mesh = Mesh()
        for name in ("productpage.ns1", "reviews.ns2", "dual.ns1"):
            mesh.ask(f"{name}.svc.cluster.local.")
        self.assertEqual(3, len(mesh.resolver.packs.datagrams.known))
        changed = [{**HOSTS[0], "ips": ["10.9.9.9"]}, *HOSTS[1:]]
        mesh.adopt_delta(changed)
        self.assertEqual(2, len(mesh.resolver.packs.datagrams.known))
        self.assertIn("10.9.9.9", mesh.say("productpage.ns1.svc.cluster.local.")[1][0])
