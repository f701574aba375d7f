"""bench/answers.py - the head of an answer, as far as the probes of bench/compare need it."""
import dataclasses
import io
import socket


@dataclasses.dataclass(frozen=True)
class Head:
    status: bytes       # the whole status line
    length: int | None  # Content-Length
    size: int           # bytes of the head, with the empty line behind it


def read_head(file: io.BufferedIOBase) -> Head:
    """Reads a head off `file`. At an early end it is what came until then."""
    status = file.readline()
    length, size = None, len(status)
    while line := file.readline():
        size += len(line)
        name, _, value = line.partition(b":")
        if not line.strip():
            break
        if name.strip().lower() == b"content-length":
            length = int(value)
    return Head(status, length, size)


def answer_bytes(port: int, request: bytes) -> int:
    """How many bytes a server answers `request` with, head and body. OSError: it does not."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
        client.sendall(request)
        file = client.makefile("rb")
        head = read_head(file)
        if head.length is None or len(file.read(head.length)) != head.length:
            raise OSError(f"the origin's answer is not complete: {head.status!r}")
    return head.size + head.length
