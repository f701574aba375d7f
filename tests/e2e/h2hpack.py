"""tests/e2e/h2hpack.py - HPACK by hand (RFC 7541): literals of any bytes, and a decoder that judges what it reads."""

Fields = list[tuple[str, str]]


class Violation(AssertionError):
    """The server broke RFC 9113 or RFC 7541."""


STATIC: Fields = [tuple(line.partition("=")[::2]) for line in  # type: ignore[misc]
                  """:authority :method=GET :method=POST :path=/ :path=/index.html :scheme=http :scheme=https :status=200
:status=204 :status=206 :status=304 :status=400 :status=404 :status=500 accept-charset accept-encoding=gzip,_deflate
accept-language accept-ranges accept access-control-allow-origin age allow authorization cache-control
content-disposition content-encoding content-language content-length content-location content-range content-type cookie
date etag expect expires from host if-match if-modified-since if-none-match if-range if-unmodified-since last-modified
link location max-forwards proxy-authenticate proxy-authorization range referer refresh retry-after server set-cookie
strict-transport-security transfer-encoding user-agent vary via www-authenticate""".replace("\n", " ").split(" ")]
STATIC[15] = ("accept-encoding", "gzip, deflate")

# The code is canonical (RFC 7541, appendix B), so the lengths say it all: "A" is 5 bits, "Z" is 30; the last is EOS.
LENGTHS = (
    "ISXXXXXXXTZXXZXXXXXXXXZXXXXXXXXXBFFHIBDGFFDGDBBBAAABBBBBBBCDKBHFIBCCCCCCCCCCCCCCCCCCCCCCDC"
    "DIOIJBKABABABBBACCBBBABCBAABCCCCCKGJIXPRPPRRRSRSSSSSTSTTRSTSSSSQRSRSSTRQPRRSSQSRRTQRSSQQRQ"
    "SRSSPRRRSRRSVVPORSRUVVVWWVTUOQVWWVWTQQVVXWWWPTPQRQQSRRUUTTVSVWVVWWWWWXWWWWWVZ"
)


def huffman_table() -> dict[tuple[int, int], int]:
    """(bits, code) -> symbol."""
    table, code, last = {}, 0, 0
    for bits, symbol in sorted((ord(letter) - ord("A") + 5, symbol) for symbol, letter in enumerate(LENGTHS)):
        code <<= bits - (last or bits)
        table[bits, code] = symbol
        code, last = code + 1, bits
    return table


HUFFMAN = huffman_table()
HUFFMAN_CODES = {symbol: key for key, symbol in HUFFMAN.items()}


def huffman_encode(text: bytes) -> bytes:
    bits = "".join(f"{HUFFMAN_CODES[byte][1]:0{HUFFMAN_CODES[byte][0]}b}" for byte in text)
    bits += "1" * (-len(bits) % 8)
    return bytes(int(bits[at:at + 8], 2) for at in range(0, len(bits), 8))


def huffman_decode(coded: bytes) -> bytes:
    text, bits, code = bytearray(), 0, 0
    for byte in coded:
        for shift in range(7, -1, -1):
            bits, code = bits + 1, code << 1 | byte >> shift & 1
            symbol = HUFFMAN.get((bits, code))
            if symbol is not None:
                if symbol == 256:
                    raise Violation("EOS in a Huffman string")
                text.append(symbol)
                bits = code = 0
    if bits > 7 or code != (1 << bits) - 1:
        raise Violation("a Huffman string is padded wrongly")
    return bytes(text)


def integer(value: int, prefix: int, first: int = 0) -> bytes:
    """An HPACK integer behind the bits `first` of its first byte."""
    limit = (1 << prefix) - 1
    if value < limit:
        return bytes([first | value])
    out, value = bytearray([first | limit]), value - limit
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def string(text: bytes, huffman: bool = False) -> bytes:
    coded = huffman_encode(text) if huffman else text
    return integer(len(coded), 7, 128 if huffman else 0) + coded


def to_bytes(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode("latin-1")


def literal(name: str | bytes | int, value: str | bytes, kind: int = 0, huffman: bool = False) -> bytes:
    """A literal field of any bytes. `name` may be an index; `kind`: 0x00 without indexing, 0x10 never, 0x40 with."""
    prefix = 6 if kind == 0x40 else 4
    head = integer(name, prefix, kind) if isinstance(name, int) else bytes([kind]) + string(to_bytes(name), huffman)
    return head + string(to_bytes(value), huffman)


def indexed(index: int) -> bytes:
    return integer(index, 7, 0x80)


def block(fields) -> bytes:
    return b"".join(literal(name, value) for name, value in fields)


class Decoder:
    def __init__(self, limit: int = 4096):
        self.limit = limit  # What we announced; beyond 4,096 the encoder has to say that it uses more.
        self.size_max = min(limit, 4096)
        self.table: list[tuple[str, str]] = []
        self.never: set[str] = set()  # Names of fields that were never indexed (RFC 7541 6.2.3).

    @staticmethod
    def integer(data: bytes, at: int, prefix: int) -> tuple[int, int]:
        value, shift = data[at] & (1 << prefix) - 1, 0
        at += 1
        if value == (1 << prefix) - 1:
            while True:
                value += (data[at] & 127) << shift
                shift, at = shift + 7, at + 1
                if data[at - 1] < 128:
                    break
        return value, at

    def string(self, data: bytes, at: int) -> tuple[str, int]:
        coded = data[at] & 128
        length, at = self.integer(data, at, 7)
        if at + length > len(data):
            raise Violation("a string goes beyond its header block")
        text = data[at:at + length]
        return (huffman_decode(text) if coded else text).decode("latin-1"), at + length

    def entry(self, index: int) -> tuple[str, str]:
        if not 0 < index <= len(STATIC) + len(self.table):
            raise Violation(f"HPACK index {index} names nothing")
        return STATIC[index - 1] if index <= len(STATIC) else self.table[index - 1 - len(STATIC)]

    def evict(self):
        while sum(len(n) + len(v) + 32 for n, v in self.table) > self.size_max:
            self.table.pop()

    def decode(self, data: bytes) -> Fields:
        fields: Fields = []
        at = 0
        try:
            while at < len(data):
                first = data[at]
                if first & 0x80:
                    index, at = self.integer(data, at, 7)
                    fields.append(self.entry(index))
                elif first & 0xE0 == 0x20:
                    self.size_max, at = self.integer(data, at, 5)
                    if self.size_max > self.limit or fields:
                        raise Violation("a table size update is too large or too late")
                    self.evict()
                else:
                    index, at = self.integer(data, at, 6 if first & 0x40 else 4)
                    name, at = (self.entry(index)[0], at) if index else self.string(data, at)
                    value, at = self.string(data, at)
                    fields.append((name, value))
                    if first & 0xF0 == 0x10:
                        self.never.add(name)
                    if first & 0x40:
                        self.table.insert(0, (name, value))
                        self.evict()
        except IndexError:
            raise Violation("a header block ends inside a field") from None
        return fields
