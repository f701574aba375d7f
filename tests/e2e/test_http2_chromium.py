"""A browser as it comes: headless Chromium before servers of both versions of HTTP, WebSocket over HTTP/2 included."""
import base64
import hashlib
import pathlib
import shutil
import subprocess
import tempfile
import threading
import unittest
import urllib.parse

import h2client as h2
from h2_origin import HTTP2, Connection, H2Origin
from h2_support import H2Case, Peer
from support import json_lines, wait_until

MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
PAGE = b"""<!doctype html><title>t</title><script>
const big = "x".repeat(200000);
async function run() {
  const said = [];
  const posted = await fetch("/length", {method: "POST", body: big});
  said.push(await posted.text());
  said.push(...(await Promise.all([...Array(20).keys()].map(async i => (await fetch("/name/" + i)).text()))));
  const socket = new WebSocket("wss://" + location.host + "/chat");
  const got = await new Promise((resolve, reject) => {
    const seen = [];
    socket.onopen = () => { socket.send("one"); socket.send("y".repeat(60000)); };
    socket.onmessage = event => { seen.push(event.data.length + event.data[0]); if (seen.length == 2) socket.close(1000); };
    socket.onclose = event => resolve(seen.concat(event.code));
    socket.onerror = () => reject("the socket failed");
  });
  return said.concat(got).join(",");
}
run().catch(error => "failed: " + error).then(text => fetch("/report?" + encodeURIComponent(text)));
</script>"""
SAID = ",".join(["200000", *[f"/name/{i}" for i in range(20)], "3o", "60000y", "1000"])


def frames_of(data: bytes) -> tuple[list[tuple[int, bytes]], bytes]:
    """The whole WebSocket frames (RFC 6455 5.2) of a client, by opcode, and what is left."""
    found = []
    while len(data) >= 2:
        size, at = data[1] & 127, 2
        if size >= 126:
            width = 2 if size == 126 else 8
            size, at = int.from_bytes(data[2:2 + width], "big"), 2 + width
        if len(data) < at + 4 + size:
            break
        mask, body = data[at:at + 4], data[at + 4:at + 4 + size]
        found.append((data[0] & 15, bytes(byte ^ mask[i % 4] for i, byte in enumerate(body))))
        data = data[at + 4 + size:]
    return found, data


def frame_of(opcode: int, body: bytes) -> bytes:
    size = bytes([len(body)]) if len(body) < 126 else b"\x7e" + len(body).to_bytes(2, "big")
    return bytes([0x80 | opcode]) + size + body


def respond(path: str, body: bytes, reports: list[str]) -> bytes:
    """What both kinds of origin say to a request that is no WebSocket's."""
    if path.startswith("/report?"):
        reports.append(urllib.parse.unquote(path.split("?", 1)[1]))
    if path == "/":
        return PAGE
    return str(len(body)).encode() if path == "/length" else path.encode()


class BrowserConnection(Connection):
    """An HTTP/2 server with a WebSocket that sends back what comes; small enough for the windows to begin with."""

    def __init__(self, origin, sock):
        super().__init__(origin, sock)
        self.left = b""

    def take(self, kind: int, flags: int, stream: int, payload: bytes):
        super().take(kind, flags, stream, payload)
        if self.requests.get(stream, {}).get(":method") != "CONNECT":
            return
        if kind == h2.HEADERS:
            self.send(h2.headers(stream, [(":status", "200")], end=False))
        elif kind == h2.DATA:
            found, self.left = frames_of(self.left + payload)
            for opcode, body in found:
                out = frame_of(opcode, body)
                self.send(*[h2.data(stream, out[at:at + 16384]) for at in range(0, len(out), 16384)])
            if flags & h2.END_STREAM:
                self.send(h2.data(stream, b"", True))


@unittest.skipUnless(shutil.which("chromium"), "chromium is not installed")
class Chromium(H2Case):
    tls = True

    def browse(self, origin, upstream: str = "") -> list[dict]:
        """Lets the browser run the page until it has reported; the records of the access log."""
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        log = pathlib.Path(folder.name) / "access.log"
        port = self.serve(origin, upstream=upstream, rest=f'[logs.access]\noutput = "file:{log}"\n')
        # No name but localhost exists for it, so it asks nobody outside.
        browser = subprocess.Popen(
            ["chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
             "--disable-background-networking", "--disable-component-update", "--disable-sync", "--ignore-certificate-errors",
             "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost", f"--user-data-dir={folder.name}/profile",
             f"https://localhost:{port}/"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            wait_until(lambda: self.reports, 60)
        finally:
            browser.terminate()
            browser.wait()
        wait_until(lambda: any(record["target"] == "/chat" for record in json_lines(log)))
        return json_lines(log)

    def check(self, records: list[dict]):
        self.assertEqual(self.reports, [SAID])
        by_path = {record["target"]: record for record in records}
        for path in ("/", "/length", "/name/7", "/chat"):
            self.assertEqual(by_path[path]["version"], "HTTP/2.0", path)
        self.assertEqual(by_path["/chat"]["status"], 101)

    def test_before_a_server_of_http1(self):
        self.reports: list[str] = []

        def script(peer: Peer, connection, head: bytes, rest: bytes) -> bool:
            lines = head.decode("latin-1").split("\r\n")
            fields = {name.lower(): value.strip() for name, value in (line.split(":", 1) for line in lines[1:])}
            path = lines[0].split(" ")[1]
            if path != "/chat":
                while len(rest) < int(fields.get("content-length", 0)):
                    rest += connection.recv(65536)
                body = respond(path, rest, self.reports)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
                return True
            accept = base64.b64encode(hashlib.sha1(fields["sec-websocket-key"].encode() + MAGIC).digest())
            connection.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                               b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n")
            while part := connection.recv(65536):
                found, rest = frames_of(rest + part)
                for opcode, body in found:
                    connection.sendall(frame_of(opcode, body))
            return False

        self.check(self.browse(self.peer(script)))

    def test_before_a_server_of_http2(self):
        self.reports = []
        guard = threading.Lock()

        def script(connection: Connection, stream: int, fields: dict, body: bytes):
            if fields[":method"] != "CONNECT":
                with guard:
                    answer = respond(fields[":path"], body, self.reports)
                connection.answer(stream, answer, [("content-type", "text/html")])

        origin = H2Origin(script, (8, 1))
        origin.connection = BrowserConnection
        self.addCleanup(origin.stop)
        self.check(self.browse(origin, HTTP2))


if __name__ == "__main__":
    unittest.main()
