"""A small client of OpenAI's streaming protocol that notes when each piece of a text comes.

It does as little as it can while texts come: events are parsed when all is over. Needs nothing
beyond Python's library.
"""

import asyncio
import json
import time
import urllib.request
from dataclasses import dataclass, field
from urllib.parse import urlsplit


@dataclass
class Answer:
    """What came of a request. Times are seconds of `time.perf_counter`."""

    begun: float
    status: int = 0
    events: list = field(default_factory=list)
    """Pairs of a time and the bytes of an event's data."""
    body: bytes = b""
    """The body of an answer that is no stream."""
    ended: float = 0.0

    def parsed(self):
        """The events as pairs of a time and JSON, without the last mark; raises on an error."""
        if self.status != 200:
            raise RuntimeError(f"status {self.status}: {self.body[:500]!r}")
        if not self.events or self.events[-1][1] != b"[DONE]":
            raise RuntimeError(f"the stream was cut: {self.events[-1:]!r}")
        return [(at, json.loads(data)) for at, data in self.events[:-1]]

    def pieces(self):
        """Times at which tokens came, one a token, and the text."""
        times, text = [], ""
        for at, event in self.parsed():
            for choice in event["choices"]:
                piece = choice.get("text")
                if piece is None:
                    piece = choice.get("delta", {}).get("content")
                if piece:
                    text += piece
                    times.append(at)
        return times, text

    def logprobs(self):
        """The log-probability of each token."""
        found = []
        for _, event in self.parsed():
            for choice in event["choices"]:
                logprobs = choice.get("logprobs") or {}
                # llama.cpp's server has the shape of conversations here, too.
                found += [token["logprob"] for token in logprobs.get("content") or []]
                found += logprobs.get("token_logprobs") or []
        return found

    def usage(self):
        """The tokens that the server counted, if it was asked to say."""
        return next((event["usage"] for _, event in self.parsed() if event.get("usage")), None)


async def _chunks(reader):
    """The pieces of a body that is sent in chunks."""
    while True:
        size = int((await reader.readuntil(b"\r\n")).split(b";")[0], 16)
        data = (await reader.readexactly(size + 2))[:-2]
        if size == 0:
            return
        yield data


async def stream(server, path, body, leave_after=None, pause=0.0):
    """Sends a request and reads its stream to the end.

    With `leave_after`, closes the connection once this many events have come. Waits for `pause`
    seconds before it reads each piece.
    """
    address = urlsplit(server)
    data = json.dumps({**body, "stream": True}).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nhost: {address.netloc}\r\nconnection: close\r\n"
        f"content-type: application/json\r\ncontent-length: {len(data)}\r\n\r\n"
    )
    answer = Answer(time.perf_counter())
    reader, writer = await asyncio.open_connection(address.hostname, address.port, limit=1 << 20)
    try:
        writer.write(head.encode() + data)
        header = (await reader.readuntil(b"\r\n\r\n")).lower()
        answer.status = int(header.split(b" ", 2)[1])
        if answer.status != 200:
            answer.body = await reader.read()
            return answer
        pieces = _chunks(reader) if b"transfer-encoding: chunked" in header else _lines(reader)
        rest = b""
        async for piece in pieces:
            now = time.perf_counter()
            *frames, rest = (rest + piece).split(b"\n\n")
            answer.events += [(now, frame[6:]) for frame in frames if frame.startswith(b"data: ")]
            if leave_after is not None and len(answer.events) >= leave_after:
                break
            if pause:
                await asyncio.sleep(pause)
        answer.ended = time.perf_counter()
        return answer
    finally:
        writer.close()


async def _lines(reader):
    """The pieces of a body that ends with the connection."""
    while data := await reader.read(1 << 16):
        yield data


def get(server, path):
    """The body of a small answer."""
    with urllib.request.urlopen(server + path, timeout=30) as answer:
        return answer.read().decode()


def metrics(server):
    """The server's counters by their names and labels."""
    lines = get(server, "/metrics").splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if line and not line.startswith("#"))
    return {name: float(value) for name, value in pairs}
