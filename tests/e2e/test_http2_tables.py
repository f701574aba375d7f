"""`header_table`: the dynamic tables of HPACK (RFC 7541 4), towards clients and towards servers; and fields that no table may
hold."""
import h2client as h2
from h2_origin import HTTP2, Connection, H2Origin
from h2_support import H2Case
from h2client import COMPRESSION_ERROR, HEADER_TABLE_SIZE, block, get, indexed, integer, literal
from support import ok

GET = block(get())
TO_ZERO = integer(0, 5, 0x20)  # A table size update (RFC 7541 6.3).


class ToClients(H2Case):
    def before(self, size: str, *initial: tuple[int, int]) -> h2.H2:
        origin = self.origin(lambda head, body: ok(head, b"X-Answer: %s\r\n" % (b"a" * 500)))
        return self.connect(self.serve(origin, listener=f'h2 = {{ header_table = "{size}" }}'), *initial)

    def test_the_default_is_not_announced(self):
        client = self.before("4KiB")
        self.assertNotIn(HEADER_TABLE_SIZE, client.theirs)
        self.assertEqual(client.response(client.raw_request(GET + literal("x-kept", "v", 0x40))).status, 200)
        self.assertIn(b"x-kept: v", client.response(client.raw_request(GET + indexed(62))).body)

    def test_a_larger_table_is_announced_and_used(self):
        client = self.before("16KiB", (HEADER_TABLE_SIZE, 1 << 16))
        self.assertEqual(client.theirs[HEADER_TABLE_SIZE], 16384)
        big = literal("x-kept", "v" * 5000, 0x40)  # Larger than the default.
        self.assertEqual(client.response(client.raw_request(integer(16384, 5, 0x20) + GET + big)).status, 200)
        self.assertIn(b"x-kept: vvv", client.response(client.raw_request(GET + indexed(62))).body)
        # We would let it use 64 KiB.
        self.assertEqual(client.decoder.size_max, 16384)
        self.assertTrue(client.decoder.table)

    def test_more_than_was_announced_is_an_error(self):
        client = self.before("16KiB")
        client.raw_request(integer(16385, 5, 0x20) + GET)
        self.refused(client, COMPRESSION_ERROR)

    def test_a_small_table_bounds_answers_though_the_client_takes_more(self):
        client = self.before("100B", (HEADER_TABLE_SIZE, 1 << 16))
        for first in (integer(100, 5, 0x20), b"", b""):
            self.assertEqual(client.response(client.raw_request(first + GET)).get("x-answer"), "a" * 500)
        self.assertEqual(client.decoder.size_max, 100)

    def test_without_a_table(self):
        client = self.before("0B")
        self.assertEqual(client.theirs[HEADER_TABLE_SIZE], 0)
        for first in (TO_ZERO, b"", b""):
            stream = client.response(client.raw_request(first + GET + literal("x-none", "v", 0x40)))
            self.assertEqual((stream.status, stream.get("x-answer")), (200, "a" * 500))
        self.assertEqual((client.decoder.table, client.decoder.size_max), ([], 0))
        client.raw_request(GET + indexed(62))
        self.refused(client, COMPRESSION_ERROR)

    def test_a_smaller_table_has_to_be_confirmed(self):
        """RFC 7541 4.2: the first block behind the acknowledgement says so."""
        client = self.before("0B")
        client.raw_request(GET)
        self.refused(client, COMPRESSION_ERROR)


class ToServers(H2Case):
    def before(self, size: str, *settings: tuple[int, int], first: bytes = b"") -> tuple[H2Origin, h2.H2]:
        def script(connection: Connection, stream: int, fields: dict, body: bytes):
            head = (first if stream == 1 else b"") + block([(":status", "200"), ("x-seen", fields["x-asked"])])
            connection.send(h2.headers(stream, head + literal("x-kept", "v", 0x40), end=True))
        origin = H2Origin(script, *settings)
        self.addCleanup(origin.stop)
        port = self.serve(origin, upstream=f'{HTTP2}\npool.header_table = "{size}"')
        return origin, self.connect(port)

    def ask(self, client: h2.H2, times: int = 4):
        for i in range(times):
            stream = client.get(fields=[("x-asked", f"{i}" * 40)])
            self.assertEqual((stream.status, stream.get("x-seen"), stream.get("x-kept")), (200, f"{i}" * 40, "v"))

    def test_the_default_is_not_announced(self):
        origin, client = self.before("4KiB")
        self.ask(client)
        self.assertNotIn(HEADER_TABLE_SIZE, origin.connections[0].settings)
        self.assertTrue(origin.connections[0].decoder.table)

    def test_a_larger_table_is_announced_and_bounds_requests(self):
        origin, client = self.before("16KiB", (HEADER_TABLE_SIZE, 1 << 16), first=integer(16384, 5, 0x20))
        self.ask(client)
        only, = origin.connections
        self.assertEqual(only.settings[HEADER_TABLE_SIZE], 16384)
        self.assertEqual(only.decoder.size_max, 16384)

    def test_without_a_table(self):
        origin, client = self.before("0B", (HEADER_TABLE_SIZE, 1 << 16), first=TO_ZERO)
        self.ask(client)
        only, = origin.connections
        self.assertEqual(only.settings[HEADER_TABLE_SIZE], 0)
        self.assertEqual((only.decoder.size_max, only.decoder.table), (0, []))

    def test_a_server_that_keeps_more_is_answered_502(self):
        """It does not confirm the smaller table, so nobody knows what its next block means."""
        _, client = self.before("0B")
        self.assertEqual(client.get(fields=[("x-asked", "1")]).status, 502)


class NeverIndexed(H2Case):
    """RFC 7541 6.2.3: an intermediary keeps the mark."""
    NEVER = 0x10

    def test_of_requests_and_answers(self):
        def script(connection: Connection, stream: int, fields: dict, body: bytes):
            self.assertEqual((fields["x-key"], fields["x-open"]), ("secret", "1"))
            connection.send(h2.headers(stream, indexed(8) + literal("x-token", "t", self.NEVER) + literal("x-plain", "p"), end=False),
                            h2.headers(stream, literal("x-sum", "s", self.NEVER), end=True))
        origin = H2Origin(script)
        self.addCleanup(origin.stop)
        client = self.connect(self.serve(origin, upstream=HTTP2))
        fields = [literal("x-key", "secret", self.NEVER), literal("x-open", "1", 0x40), literal("cookie", "a=b", self.NEVER),
                  literal("cookie", "long=" + "c" * 50)]
        stream = client.response(client.raw_request(GET + b"".join(fields)))
        self.assertEqual((stream.get("x-token"), stream.get("x-plain"), stream.trailers), ("t", "p", [("x-sum", "s")]))
        self.assertEqual(client.decoder.never, {"x-token", "x-sum"})
        self.assertEqual(origin.connections[0].decoder.never, {"x-key", "cookie"})

    def test_http1_servers_see_usual_lines(self):
        origin = self.origin(lambda head, body: ok(head, b"X-Bare:1\r\n"))
        client = self.connect(self.serve(origin))
        stream = client.response(client.raw_request(GET + literal("x-key", "secret", self.NEVER)))
        self.assertIn(b"\r\nx-key: secret\r\n", bytes(stream.body))
        self.assertEqual((stream.get("x-bare"), client.decoder.never), ("1", set()))
