"""The PROXY protocol: raw headers of both versions, and haproxy and nginx as peers on either side."""
import json
import pathlib
import shutil
import socket
import ssl as ssl_module
import struct
import subprocess
import tempfile
import threading
import unittest

from support import Balancer, Case, free_port, metrics, ok, raw, read_all, wait_until

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
V1 = b"PROXY TCP4 192.0.2.7 198.51.100.1 5555 443\r\n"
GET = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
FROM_LOOPBACK = 'from = ["127.0.0.0/8", "::1"]'


def tlv(kind: int, value: bytes) -> bytes:
    return struct.pack(">BH", kind, len(value)) + value


def v2(tlvs: bytes = b"", command: int = 0x21) -> bytes:
    block = socket.inet_aton("192.0.2.7") + socket.inet_aton("198.51.100.1") + struct.pack(">HH", 5555, 443) + tlvs
    return SIGNATURE + struct.pack(">BBH", command, 0x11, len(block)) + block


def crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ 0x82F63B78 if crc & 1 else crc >> 1
    return crc ^ 0xFFFFFFFF


def with_crc(header: bytes) -> bytes:
    """Fills in the CRC32C that `header` ends with."""
    return header[:-4] + struct.pack(">I", crc32c(header))


def read_v2(data: bytes) -> tuple[dict, bytes]:
    """The header that `data` begins with, and the rest."""
    assert data.startswith(SIGNATURE), data[:40]
    command, family, length = struct.unpack(">BBH", data[12:16])
    block, rest = data[16:16 + length], data[16 + length:]
    header = {"command": command, "family": family, "tlvs": {}}
    if family == 0x11:
        header["source"] = socket.inet_ntoa(block[:4]), struct.unpack(">H", block[8:10])[0]
        header["destination"] = socket.inet_ntoa(block[4:8]), struct.unpack(">H", block[10:12])[0]
        block = block[12:]
    while block:
        kind, size = struct.unpack(">BH", block[:3])
        header["tlvs"][kind], block = block[3:3 + size], block[3 + size:]
    if 3 in header["tlvs"]:
        whole = data[:16 + length]
        at = whole.rindex(tlv(3, header["tlvs"][3])) + 3
        header["checksum"] = header["tlvs"][3] == struct.pack(">I", crc32c(whole[:at] + bytes(4) + whole[at + 4:]))
    return header, rest


class Recorder:
    """A TCP server that keeps all that each connection brings and answers with `answer` what ends in `end`."""

    def __init__(self, answer: bytes, end: bytes):
        self.answer, self.end = answer, end
        self.got: list[bytes] = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.got.append(b"")
            threading.Thread(target=self.record, args=(connection, len(self.got) - 1), daemon=True).start()

    def record(self, connection, number: int):
        with connection:
            try:
                while part := connection.recv(65536):
                    self.got[number] += part
                    if self.got[number].endswith(self.end):
                        connection.sendall(self.answer)
            except OSError:
                pass

    def stop(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


class Proxy(Case):
    def balancer(self, server: str, proxy: str = "", upstream: str = "", protocol: str = "http",
                 rest: str = "", bind: str | None = None) -> tuple[Balancer, int]:
        port = free_port()
        listener = f'proxy_protocol = {{ {proxy} }}\ntimeouts.proxy_header = "300ms"\n' if proxy else ""
        text = (f'version = 1\n[process]\nshards = 2\ndrain_timeout = "2s"\n[engine]\nkind = "{self.engine}"\n'
                f'receive = "{self.receive}"\n[logs.access]\n[listeners.web]\nbind = "{bind or f"127.0.0.1:{port}"}"\n'
                f'protocol = "{protocol}"\n{listener}'
                f'[[routes]]\nname = "all"\nupstream = "app"\n[upstreams.app]\nprotocol = "{protocol}"\n'
                f'servers = [{{ address = "{server}" }}]\n{upstream}\n{rest}\n')
        return Balancer(self, text), port

    def recorder(self, answer: bytes = b".", end: bytes = b"") -> Recorder:
        recorder = Recorder(answer, end)
        self.addCleanup(recorder.stop)
        return recorder

    def haproxy(self, front: str, back: str, mode: str = "http", extra: str = "") -> int:
        """haproxy on a port of its own; `front` are words of its bind line, `back` its server line, `extra` lines of its
        frontend."""
        port = free_port()
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        path = pathlib.Path(folder.name) / "haproxy.cfg"
        path.write_text(f"defaults\n mode {mode}\n timeout client 20s\n timeout server 20s\n timeout connect 5s\n"
                        f"frontend f\n bind 127.0.0.1:{port} {front}\n option forwardfor\n{extra} default_backend b\n"
                        f"backend b\n server s {back}\n")
        process = subprocess.Popen(["haproxy", "-db", "-f", str(path)], stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL)

        def stop():
            process.kill()
            process.wait(timeout=20)
        self.addCleanup(stop)

        def up() -> bool:
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", port)) == 0
        wait_until(up)
        return port

    def access_lines(self, balancer: Balancer) -> list[str]:
        return [line for line in balancer.log().splitlines() if line.startswith('{"time"')]


class In(Proxy):
    def test_the_carried_address_is_the_clients(self):
        origin = self.origin()
        balancer, port = self.balancer(f"127.0.0.1:{origin.port}", f'accept = "required", {FROM_LOOPBACK}')
        good = with_crc(v2(tlv(2, b"a.example") + tlv(5, b"id-1") + tlv(3, bytes(4))))
        for header in (V1, v2(), good, v2(tlv(0xEA, b"\x01vpce") + tlv(4, b"pad"))):
            with self.subTest(header=header):
                self.assertIn(b"X-Forwarded-For: 192.0.2.7\r\n", raw(port, header + GET))
        self.assertIn(b"X-Forwarded-For: 127.0.0.1\r\n", raw(port, v2(command=0x20) + GET))
        self.assertIn(b"X-Forwarded-For: 127.0.0.1\r\n", raw(port, b"PROXY UNKNOWN\r\n" + GET))
        wait_until(lambda: len(self.access_lines(balancer)) == 6)
        lines = self.access_lines(balancer)
        self.assertEqual(sum('"client":"192.0.2.7","client_port":5555' in line for line in lines), 4)
        self.assertEqual(sum('"sni":"a.example","unique_id":"id-1"' in line for line in lines), 1)

    def test_the_log_tells_what_the_header_said(self):
        """Of requests and of sessions; haproxy's own SSL TLVs are in test_haproxy_in_front_with_tls()."""
        ssl = tlv(0x20, b"\x07\0\0\0\0" + tlv(0x21, b"TLSv1.3") + tlv(0x22, b"Ann") + tlv(0x23, b"TLS_AES_128_GCM_SHA256"))
        tlvs = (tlv(1, b"h2") + tlv(2, b"a.example") + ssl + tlv(0x30, b"blue") + tlv(0xE4, b"some \"text\"")
                + tlv(0xE5, b"\0\xff") + tlv(0xEA, b"\x01vpce-08d2bf15fac5001c9"))
        wanted = {"sni": "a.example", "proxy_alpn": "h2", "proxy_tls_version": "TLSv1.3", "proxy_tls_cipher": "TLS_AES_128_GCM_SHA256",
                  "proxy_tls_certificate": "ok", "proxy_tls_cn": "Ann", "proxy_netns": "blue", "proxy_tlv_e4": 'some "text"',
                  "proxy_tlv_e5": "0x00ff", "proxy_aws_vpce": "vpce-08d2bf15fac5001c9"}
        for protocol in ("http", "tcp"):
            with self.subTest(protocol=protocol):
                origin = self.origin(lambda head, body: ok(b"x") + b"<CLOSE>")
                balancer, port = self.balancer(f"127.0.0.1:{origin.port}", f'accept = "required", {FROM_LOOPBACK}', protocol=protocol)
                self.assertIn(b"200 OK", raw(port, with_crc(v2(tlvs + tlv(3, bytes(4)))) + GET))
                self.assertIn(b"200 OK", raw(port, V1 + GET))
                wait_until(lambda: len(self.access_lines(balancer)) == 2)
                # Of two shards, in any order.
                told, plain = sorted(map(json.loads, self.access_lines(balancer)), key=lambda line: "sni" not in line)
                self.assertEqual({key: value for key, value in told.items() if key.startswith("proxy_") or key == "sni"}, wanted)
                self.assertFalse([key for key in plain if key.startswith("proxy_")])

    @unittest.skipUnless(shutil.which("haproxy") and shutil.which("openssl"), "needs haproxy and openssl")
    def test_haproxy_in_front_with_tls(self):
        """haproxy ends TLS, asks for the client's certificate, and says so in its TLVs."""
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        root = pathlib.Path(folder.name)
        for name in ("server", "client"):
            subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
                            "-subj", f"/CN={name} of the test", "-addext", "subjectAltName=DNS:a.example",
                            "-keyout", str(root / f"{name}.key"), "-out", str(root / f"{name}.pem")], check=True, capture_output=True)
        (root / "both.pem").write_bytes((root / "server.pem").read_bytes() + (root / "server.key").read_bytes())
        origin = self.origin()
        balancer, port = self.balancer(f"127.0.0.1:{origin.port}", f'accept = "required", {FROM_LOOPBACK}')
        front = self.haproxy(f"ssl crt {root}/both.pem ca-file {root}/client.pem verify optional",
                             f"127.0.0.1:{port} send-proxy-v2-ssl-cn proxy-v2-options ssl,cert-cn,ssl-cipher,authority,crc32c")
        context = ssl_module.create_default_context(cafile=str(root / "server.pem"))
        with socket.create_connection(("127.0.0.1", front), timeout=20) as plain:
            with context.wrap_socket(plain, server_hostname="a.example") as client:
                client.sendall(GET)
                self.assertIn(b"200 OK", read_all(client))
        context.load_cert_chain(str(root / "client.pem"), str(root / "client.key"))
        with socket.create_connection(("127.0.0.1", front), timeout=20) as plain:
            with context.wrap_socket(plain, server_hostname="a.example") as client:
                cipher = client.cipher()[0]
                client.sendall(GET)
                self.assertIn(b"200 OK", read_all(client))
        wait_until(lambda: len(self.access_lines(balancer)) == 2)
        without, told = sorted(map(json.loads, self.access_lines(balancer)), key=lambda line: "proxy_tls_cn" in line)
        for line in (without, told):
            self.assertEqual((line["sni"], line["proxy_tls_version"], line["proxy_tls_cipher"]), ("a.example", "TLSv1.3", cipher))
        self.assertEqual((told["proxy_tls_certificate"], told["proxy_tls_cn"]), ("ok", "client of the test"))
        self.assertFalse({"proxy_tls_certificate", "proxy_tls_cn"} & set(without))

    def test_what_is_wrong_closes_is_counted_and_reaches_no_server(self):
        for protocol in ("http", "tcp"):
            recorder = self.recorder()
            scrape, scrape_other = free_port(), free_port()
            trusted, port = self.balancer(
                f"127.0.0.1:{recorder.port}", f'accept = "required", {FROM_LOOPBACK}, header_bytes = "1KiB"',
                protocol=protocol, rest=f'[metrics]\nprometheus = "127.0.0.1:{scrape}"')
            bad = with_crc(v2(tlv(2, b"name") + tlv(3, bytes(4))))
            cases = {"missing": GET, "malformed": b"PROXY TCP4 1.2.3.4 1.2.3.4 0 x\r\n" + GET,
                     "too_long": SIGNATURE + b"\x21\x11\xff\xff", "unsupported": v2(command=0x31) + GET,
                     "checksum": bad[:-1] + bytes([bad[-1] ^ 1]) + GET}
            for reason, data in cases.items():
                with self.subTest(protocol=protocol, reason=reason):
                    self.assertIn(raw(port, data), (b"", b"<RESET>"))
            self.assertEqual(raw(port, V1[:-1]), b"")  # No more follows: the time for it ends.
            with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
                client.sendall(v2()[:20])
                client.shutdown(socket.SHUT_WR)
                self.assertEqual(read_all(client), b"")
            _, other = self.balancer(f"127.0.0.1:{recorder.port}", 'accept = "optional", from = ["192.0.2.0/24"]',
                                     protocol=protocol, rest=f'[metrics]\nprometheus = "127.0.0.1:{scrape_other}"')
            self.assertIn(raw(other, V1 + GET), (b"", b"<RESET>"))
            counted = metrics(scrape)
            name = 'ringway_proxy_protocol_errors_total{listener="web",reason="%s"}'
            for reason in (*cases, "timeout", "truncated"):
                self.assertEqual(counted[name % reason], 1, reason)
                self.assertIn(f"listener web, reason {reason}", trusted.log())
            self.assertEqual(counted[name % "untrusted"], 0)
            self.assertEqual(metrics(scrape_other)[name % "untrusted"], 1)
            self.assertEqual(recorder.got, [])

    def test_a_header_in_single_bytes_and_together_with_a_pipeline(self):
        origin = self.origin()
        _, port = self.balancer(f"127.0.0.1:{origin.port}", f'accept = "optional", {FROM_LOOPBACK}')
        with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for byte in v2(tlv(4, b"xy")) + GET:
                client.sendall(bytes([byte]))
            self.assertIn(b"X-Forwarded-For: 192.0.2.7\r\n", read_all(client))
        answer = raw(port, V1 + GET.replace(b"Connection: close\r\n", b"") + GET)
        self.assertEqual(answer.count(b"X-Forwarded-For: 192.0.2.7\r\n"), 2)
        self.assertIn(b"X-Forwarded-For: 127.0.0.1\r\n", raw(port, GET))

    def test_unix_sockets_are_trusted_by_name(self):
        with tempfile.TemporaryDirectory() as folder:
            for word, expected in (('"unix"', b"X-Forwarded-For: 192.0.2.7\r\n"), ('"0.0.0.0/0"', b"")):
                origin = self.origin()
                path = f"{folder}/{len(word)}"
                self.balancer(f"127.0.0.1:{origin.port}", f'accept = "required", from = [{word}]',
                              bind=f"unix:{path}")
                with socket.socket(socket.AF_UNIX) as client:
                    client.settimeout(20)
                    client.connect(path)
                    try:
                        client.sendall(V1 + GET)
                        answer = read_all(client)
                    except BrokenPipeError:
                        answer = b""
                self.assertIn(expected, answer)
                self.assertEqual(len(origin.requests), 1 if expected else 0)

    @unittest.skipUnless(shutil.which("haproxy"), "needs haproxy")
    def test_haproxy_in_front(self):
        for words in ("send-proxy", "send-proxy-v2", "send-proxy-v2 proxy-v2-options crc32c,unique-id,authority"):
            with self.subTest(words=words):
                origin = self.origin()
                _, port = self.balancer(f"127.0.0.1:{origin.port}", f'accept = "required", {FROM_LOOPBACK}')
                # The address in front of haproxy comes from a header as well, so it is none of loopback.
                front = self.haproxy("accept-proxy", f"127.0.0.1:{port} {words}", "tcp")
                self.assertIn(b"X-Forwarded-For: 192.0.2.7\r\n", raw(front, V1 + GET))


class Out(Proxy):
    def test_layer_4_sends_the_header_first_and_the_bytes_behind_it(self):
        recorder = self.recorder()
        _, port = self.balancer(f"127.0.0.1:{recorder.port}", protocol="tcp",
                                upstream='send_proxy_protocol = "v1"')
        with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
            own = client.getsockname()[1]
            line = b"PROXY TCP4 127.0.0.1 127.0.0.1 %d %d\r\n" % (own, port)
            wait_until(lambda: recorder.got == [line])  # Before any byte of the client.
            client.sendall(b"abc")
            wait_until(lambda: recorder.got == [line + b"abc"])

    def test_version_2_with_tlvs_passes_on_what_the_client_brought(self):
        recorder = self.recorder()
        balancer, port = self.balancer(
            f"127.0.0.1:{recorder.port}", f'accept = "optional", {FROM_LOOPBACK}', protocol="tcp",
            upstream='send_proxy_protocol = "v2"\nsend_proxy_tlvs = ["alpn", "authority", "unique_id", "ssl", "crc32c"]')
        ssl = tlv(0x20, b"\x01\0\0\0\1" + tlv(0x21, b"TLSv1.3"))
        sent = [v2(tlv(1, b"h2") + tlv(2, b"a.example") + ssl) + b"x", v2(tlv(5, b"mine")) + b"y", b"z"]
        for number, data in enumerate(sent):
            with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
                client.sendall(data)
                own = client.getsockname()
                self.assertTrue(client.recv(10))  # One piece may hold both, or not.
                wait_until(lambda: recorder.got[number].endswith(data[-1:]))
                header, rest = read_v2(recorder.got[number])
                self.assertEqual(rest, data[-1:])
                self.assertTrue(header["checksum"])
                self.assertEqual(header["source"], ("192.0.2.7", 5555) if number < 2 else own)
                self.assertEqual(header["destination"], ("198.51.100.1", 443) if number < 2 else ("127.0.0.1", port))
                identifier = header["tlvs"][5]
                self.assertEqual(identifier == b"mine", number == 1)
                self.assertEqual(header["tlvs"].get(1), b"h2" if number == 0 else None)
                self.assertEqual(header["tlvs"].get(2), b"a.example" if number == 0 else None)
                self.assertEqual(header["tlvs"].get(0x20), ssl[3:] if number == 0 else None)
            wait_until(lambda: f'"unique_id":"{identifier.decode()}"' in balancer.log())

    def test_netns_and_custom_tlvs_are_passed_on_where_they_are_asked_for(self):
        custom = {0xE0: b"text", 0xEA: b"\x01vpce-1", 0xEF: b"\0\xff"}
        sent = with_crc(v2(tlv(0x30, b"blue") + b"".join(tlv(kind, value) for kind, value in custom.items()) + tlv(1, b"h2")
                           + tlv(0xF0, b"experiment") + tlv(3, bytes(4))))
        for asked, wanted in (('"netns", "custom", "crc32c"', {0x30: b"blue", **custom}), ('"custom"', custom), ('"netns"', {0x30: b"blue"}),
                              ('"alpn"', {1: b"h2"})):
            with self.subTest(asked=asked):
                recorder = self.recorder()
                _, port = self.balancer(f"127.0.0.1:{recorder.port}", f'accept = "required", {FROM_LOOPBACK}', protocol="tcp",
                                        upstream=f'send_proxy_protocol = "v2"\nsend_proxy_tlvs = [{asked}]')
                with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
                    client.sendall(sent + b"x")
                    wait_until(lambda: recorder.got and recorder.got[0].endswith(b"x"))
                header, rest = read_v2(recorder.got[0])
                self.assertEqual(rest, b"x")
                self.assertTrue(header.pop("checksum", True))
                header["tlvs"].pop(3, None)
                self.assertEqual(header["tlvs"], wanted)

    def test_http_connections_carry_one_client_only(self):
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
        recorder = self.recorder(answer, b"\r\n\r\n")
        _, port = self.balancer(f"127.0.0.1:{recorder.port}",
                                upstream='send_proxy_protocol = "v2"\npool.reuse = "always"')
        clients = [self.client(port) for _ in range(3)]
        for _ in range(3):
            for client in clients:
                self.assertEqual(client.get().status, 200)
        self.assertEqual(len(recorder.got), 3)
        sources = set()
        for got in recorder.got:
            header, rest = read_v2(got)
            sources.add(header["source"])
            self.assertEqual(rest.count(b"GET / HTTP/1.1\r\n"), 3)
            self.assertTrue(rest.startswith(b"GET"))
        self.assertEqual(sources, {client.socket.getsockname() for client in clients})

    def test_checks_speak_for_nobody(self):
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        recorder = self.recorder(answer, b"\r\n\r\n")
        self.balancer(f"127.0.0.1:{recorder.port}",
                      upstream='send_proxy_protocol = "v2"\n'
                               'health = { type = "http", interval = "50ms", fast_interval = "50ms", timeout = "50ms" }')
        wait_until(lambda: recorder.got and b"ringway-health" in recorder.got[0])
        header, rest = read_v2(recorder.got[0])
        self.assertEqual((header["command"], header["family"]), (0x20, 0x00))
        self.assertTrue(rest.startswith(b"GET / HTTP/1.1\r\n"))

    @unittest.skipUnless(shutil.which("haproxy"), "needs haproxy")
    def test_haproxy_behind(self):
        """Requests of several clients, and checks that find it up, over haproxy's own reader."""
        for version, tlvs in (("v1", ""), ("v2", ""), ("v2", 'send_proxy_tlvs = ["unique_id", "crc32c"]\n')):
            with self.subTest(version=version, tlvs=tlvs):
                origin = self.origin()
                back = self.haproxy("accept-proxy", f"127.0.0.1:{origin.port}")
                balancer, port = self.balancer(
                    f"127.0.0.1:{back}", f'accept = "optional", {FROM_LOOPBACK}',
                    upstream=f'send_proxy_protocol = "{version}"\n{tlvs}'
                             'health = { type = "http", initial = "down", rise = 1, interval = "100ms", down_interval = "100ms", timeout = "100ms" }')
                wait_until(lambda: "is up" in balancer.log())
                for header, address in ((V1, b"192.0.2.7"), (b"", b"127.0.0.1"), (v2(), b"192.0.2.7")):
                    answer = raw(port, header + GET.replace(b"Connection: close\r\n", b"") + GET)
                    self.assertEqual(answer.count(b"200 OK"), 2)
                    self.assertEqual(answer.lower().count(b"x-forwarded-for: " + address), 4)  # Ringway's and haproxy's.

    @unittest.skipUnless(shutil.which("nginx"), "needs nginx")
    def test_nginx_behind(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        root, back = pathlib.Path(folder.name), free_port()
        temp = "".join(f"{kind}_temp_path {root}/t-{kind};"
                       for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        (root / "nginx.conf").write_text(
            f"daemon off; master_process off; pid {root}/pid; error_log {root}/error.log; events {{ }}\n"
            f"http {{ access_log off; {temp} server {{ listen 127.0.0.1:{back} proxy_protocol;\n"
            f"location / {{ return 200 $proxy_protocol_addr; }} }} }}\n")
        process = subprocess.Popen(["nginx", "-c", f"{root}/nginx.conf"], stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL)

        def stop():
            process.kill()
            process.wait(timeout=20)
        self.addCleanup(stop)

        def up() -> bool:
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", back)) == 0
        wait_until(up)
        for version in ("v1", "v2"):
            _, port = self.balancer(f"127.0.0.1:{back}", f'accept = "optional", {FROM_LOOPBACK}',
                                    upstream=f'send_proxy_protocol = "{version}"')
            self.assertTrue(raw(port, V1 + GET).endswith(b"192.0.2.7"))
            self.assertTrue(raw(port, GET).endswith(b"127.0.0.1"))


class EpollIn(In):
    """The same on the other engine."""
    engine = "epoll"


class MultishotOut(Out):
    """The same with bytes that come by completions."""
    receive = "multishot"
