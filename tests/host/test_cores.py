"""How many processors a process may use: affinity, and quotas of control groups."""

import os

from twisted.trial.unittest import SynchronousTestCase

from meshdns.host import cores


class CoresTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.files: dict[str, str] = {"/proc/self/cgroup": "0::/system.slice/meshdns.service\n"}
        self.patch(os, "sched_getaffinity", lambda pid: {0, 1, 2, 3, 4, 5, 6, 7})

    def count(self, **quotas: str) -> int:
        files = {"": "", "slice": "/system.slice", "unit": "/system.slice/meshdns.service"}
        self.files |= {f"/sys/fs/cgroup{files[each]}/cpu.max": said for each, said in quotas.items()}
        return cores.count(lambda path: self.files.get(path, ""))

    def test_affinity(self) -> None:
        self.assertEqual(8, self.count())

    def test_this_machine(self) -> None:
        self.assertTrue(1 <= cores.count() <= 8)

    def test_quota(self) -> None:
        """What is begun counts; the narrowest group does."""
        self.assertEqual(8, self.count(unit="max 100000\n"))
        self.assertEqual(3, self.count(unit="250000 100000\n"))
        self.assertEqual(1, self.count(slice="50000 100000\n"))

    def test_in_a_container(self) -> None:
        """A group of its own namespace is the root of what can be seen."""
        self.files["/proc/self/cgroup"] = "0::/\n"
        self.files["/sys/fs/cgroup/cpu.max"] = "200000 100000\n"
        self.assertEqual(2, self.count())

    def test_nonsense(self) -> None:
        self.files["/proc/self/cgroup"] = ""
        for said in ("", "0 100000", "100 0", "much", "-1 100000", "1 2 3"):
            self.files["/sys/fs/cgroup/cpu.max"] = said
            self.assertEqual(8, self.count(), said)
