"""tests/e2e/shared_writes.py - which cache lines two shards write, or one writes and another reads.

The program is one compiled with -fsanitize=thread, but the library behind those calls is tests/shared_writes/recorder.cc,
which follows who has written each line last. Its table is a file that both sides map; the layout is the recorder's."""
import collections
import dataclasses
import mmap
import pathlib
import re
import struct
import subprocess
import tempfile
import unittest

from support import RINGWAY

LIBRARY = pathlib.Path(RINGWAY).resolve().parent.parent / "tests" / "libshared_writes.so"
SHARDS, SLOTS = 4, 1 << 17
HEADER = 128
SLOT = struct.Struct(f"<QII{SHARDS}I{SHARDS}I{SHARDS}I{SHARDS}Q{SHARDS}Q")
assert SLOT.size == 128


@dataclasses.dataclass
class Line:
    """A cache line that moved."""
    address: int
    writes: list[int]   # by shard
    takes: list[int]    # of those, by shard: writes to what another shard had written last
    fetches: list[int]  # by shard: reads of what another shard had written since
    code: set[int]      # where the last of each came from

    @property
    def moves(self) -> int:
        return sum(self.takes) + sum(self.fetches)


class Recorder:
    """What a program started with `env` has to say."""

    def __init__(self, case: unittest.TestCase):
        self.case = case
        self.file = tempfile.NamedTemporaryFile()
        case.addCleanup(self.file.close)
        self.file.truncate(HEADER + SLOTS * SLOT.size)
        self.table = mmap.mmap(self.file.fileno(), 0)
        self.writes: list[int] = []  # by shard, of the last record()
        self.env = {"LD_PRELOAD": str(LIBRARY), "SHARED_WRITES_FILE": self.file.name}

    def record(self, run) -> list[Line]:
        """The lines that moved while `run()` ran, the most often moved first."""
        self.table[HEADER:] = bytes(len(self.table) - HEADER)
        self.table[0] = 1
        run()
        self.table[0] = 0
        self.case.assertEqual(self.table[4:8], bytes(4), "lines that the table had no room for")
        slots = [slot for slot in SLOT.iter_unpack(self.table[HEADER:]) if slot[0] != 0]
        self.case.assertGreater(len(slots), 0, "nothing was recorded")
        self.writes = [sum(slot[3 + shard] for slot in slots) for shard in range(SHARDS)]
        lines = []
        for address, _, _, *rest in slots:
            writes, takes, fetches, write_code, fetch_code = (rest[at:at + SHARDS] for at in range(0, 5 * SHARDS, SHARDS))
            if any(takes) or any(fetches):
                lines.append(Line(address * 64, writes, takes, fetches, {one for one in write_code + fetch_code if one}))
        return sorted(lines, key=lambda line: -line.moves)

    @staticmethod
    def symbols(pid: int, addresses: set[int]) -> dict[int, str]:
        """The functions, from the inmost of those that were put into each other, for return addresses."""
        maps = []
        for row in pathlib.Path(f"/proc/{pid}/maps").read_text().splitlines():
            if match := re.match(r"(\w+)-(\w+) ..x. (\w+) \S+ \d+ +(/.*)", row):
                maps.append((int(match[1], 16), int(match[2], 16), int(match[3], 16), match[4]))
        files = collections.defaultdict(list)
        for address in addresses:
            for first, end, offset, path in maps:
                if first <= address < end:
                    files[path].append((address, address - 1 - first + offset))
        names = {address: hex(address) for address in addresses}
        for path, wanted in files.items():
            said = subprocess.run(["addr2line", "-e", path, "-afiC"] + [hex(offset) for _, offset in wanted],
                                  stdout=subprocess.PIPE, text=True, check=True).stdout
            for (address, _), block in zip(wanted, re.split(r"^0x\w+\n", said, flags=re.M)[1:]):
                rows = block.splitlines()
                places = [f"{function.replace('(anonymous namespace)::', '').split('(')[0]} ({re.sub(r'.*/(?=[^/]*/[^/]*$)', '', place)})"
                          for function, place in zip(rows[::2], rows[1::2]) if function != "??"]
                names[address] = " < ".join(places) or f"{pathlib.Path(path).name}"
        return names

    def explain(self, pid: int, lines: list[Line], requests: int) -> str:
        names = self.symbols(pid, set().union(*(line.code for line in lines)))
        return "\n".join(
            f"line {line.address:#x}, by shard: {line.writes} writes, {line.takes} taken from another, {line.fetches} read "
            f"after another's write, in {requests} requests\n" + "\n".join(f"    {names[code]}" for code in sorted(line.code))
            for line in lines)
