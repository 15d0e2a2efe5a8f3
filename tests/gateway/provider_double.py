"""A model provider on a real port that behaves well or badly, as the name of the asked model says."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "sk-of-the-test-0123456789"


@dataclass
class ProviderDouble:
    """Where it serves and what it was asked. `go_on` lets the model `slow` finish."""

    url: str = ""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    connections: set[Any] = field(default_factory=set)
    """The other ends of those that asked."""
    go_on: threading.Event = field(default_factory=threading.Event)
    was_left: threading.Event = field(default_factory=threading.Event)


Send = Callable[[str], None]


def chunk(delta: dict[str, Any], finish: str | None = None) -> str:
    """A line of an answer's stream."""
    choices = [{"index": 0, "delta": delta, "finish_reason": finish}]
    return "data: " + json.dumps({"id": "c1", "object": "chat.completion.chunk", "model": "m", "choices": choices})


def usage(**tokens: Any) -> str:
    return "data: " + json.dumps({"id": "c1", "choices": [], "usage": tokens})


CALL = {"index": 0, "id": "t1", "type": "function", "function": {"name": "read", "arguments": '{"path": '}}
REST = {"index": 0, "function": {"arguments": '"a.txt"}'}}
END = ["data: [DONE]"]
SIGNED = {"google": {"thought_signature": "c2ln"}}
HELLO = [chunk({"role": "assistant", "content": "Hel"}), chunk({"content": "lo"}), chunk({}, "stop")]
STREAMS = {
    "good": [*HELLO, usage(prompt_tokens=7, completion_tokens=2, prompt_tokens_details={"cached_tokens": 3}), *END],
    "gpt-5": [*HELLO, usage(prompt_tokens=1_000_000, completion_tokens=0), *END],
    "tools": [chunk({"tool_calls": [CALL]}), chunk({"tool_calls": [REST]}), chunk({}, "tool_calls"), *END],
    "silent": [*HELLO, *END],
    "comments": [": hello", "", "event: x", *HELLO, *END],
    "strange-usage": [*HELLO, usage(prompt_tokens="many", completion_tokens=-1), *END],
    "endless-usage": [*HELLO, usage(prompt_tokens=10**20, completion_tokens=1), *END],
    "half-emoji": ['data: {"choices": [{"index": 0, "delta": {"content": "\\ud83d"}}]}', chunk({}, "stop"), *END],
    "cut": HELLO[:1],
    "garbage": [HELLO[0], "data: {nonsense"],
    "no-chunk": [HELLO[0], "data: [1, 2]"],
    "bad-delta": ['data: {"choices": [{"index": 0, "delta": "text"}]}', *END],
    "says-error": [HELLO[0], 'data: {"error": {"message": "overloaded\\u0000 now"}}'],
    "google": [
        chunk(
            {
                "tool_calls": [
                    {**CALL, "id": "a", "extra_content": SIGNED, "function": {"name": "read", "arguments": "{}"}}
                ]
            }
        ),
        chunk({"tool_calls": [{**CALL, "id": "b", "function": {"name": "grep", "arguments": "{}"}}]}, "stop"),
        usage(prompt_tokens=10, completion_tokens=5, total_tokens=115),
        *END,
    ],
    "google-cut": [
        chunk({"content": "Hel"}),
        usage(prompt_tokens=10, completion_tokens=5, total_tokens=115),
    ],
    "compressed": HELLO,
    "stalled": HELLO[:1],
    "murmuring": HELLO[:1],
    "no-finish": [chunk({"content": "Hello"}), *END],
    "nothing": END,
    "mid-limit": [HELLO[0], 'data: {"error": {"message": "slow down", "code": 429}}'],
    "first-limit": ['data: {"error": {"message": "slow down", "code": 429}}'],
    "first-key": ['data: {"error": {"message": "no ' + KEY + '", "type": "authentication_error"}}'],
    "long-line": [HELLO[0], "data: " + "x" * (5 * 1024 * 1024)],
    "null-error": ['data: {"error": null, "choices": []}', *HELLO, *END],
}
REFUSALS: dict[str, tuple[int, dict[str, str], str]] = {
    "401": (401, {}, json.dumps({"error": {"message": f"Incorrect API key provided: {KEY}."}})),
    "404": (404, {}, json.dumps({"error": {"message": "no such model"}})),
    "long": (400, {}, json.dumps({"error": {"message": "too much", "code": "context_length_exceeded"}})),
    "quota": (429, {}, json.dumps({"error": {"message": "pay", "code": "insufficient_quota"}})),
    "big": (400, {}, json.dumps({"error": {"message": "y" * 10_000_000}})),
    "429": (429, {"Retry-After": "7.2"}, json.dumps({"error": {"message": "slow down"}})),
    "429-date": (429, {"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}, "slow down"),
    "429-odd": (429, {"Retry-After": "9" * 400}, "slow down"),
    "500": (500, {}, "<html>oops</html>"),
    "504": (504, {}, "<html>gateway timeout</html>"),
    "529": (529, {}, json.dumps({"error": "overloaded"})),
    "301": (301, {"Location": "http://127.0.0.1:1/"}, ""),
}


class _Answers(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    double: ProviderDouble

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.double.bodies.append(body)
        self.double.connections.add(self.client_address)
        self.double.headers.append({name.lower(): value for name, value in self.headers.items()})
        if body["model"] in REFUSALS:
            self._refuse(*REFUSALS[body["model"]])
        else:
            self._stream(body["model"])

    def _refuse(self, status: int, headers: dict[str, str], text: str) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(text))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(text.encode())

    def _stream(self, model: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        if model == "compressed":
            self.send_header("Content-Encoding", "gzip")
        self.end_headers()
        try:
            if model == "slow":
                self._line(HELLO[0])
                self.double.go_on.wait(30)
            for line in STREAMS.get(model, HELLO[1:]):
                self._line(line)
            while model in ("stalled", "murmuring") and not self.double.go_on.wait(0.2):
                if model == "murmuring":
                    self._line(": still here")
            while model == "flood":
                self._line("data: " + json.dumps({"choices": [], "x": "x" * 1_000_000}))
            while model == "endless":
                self._line(HELLO[0])
                self.double.go_on.wait(0.05)
            self.wfile.write(b"0\r\n\r\n")
        except OSError:
            self.double.was_left.set()
            self.close_connection = True

    def _line(self, line: str) -> None:
        content = line.encode() + b"\n\n"
        self.wfile.write(b"%x\r\n%s\r\n" % (len(content), content))
        self.wfile.flush()

    def log_message(self, *_: Any) -> None:
        """Says nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    """Many may come at once; those behind the first five would wait for seconds."""


@contextmanager
def provider_double() -> Iterator[ProviderDouble]:
    """A running double."""
    double = ProviderDouble()
    server = _Server(("127.0.0.1", 0), type("Bound", (_Answers,), {"double": double}))
    double.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield double
    finally:
        double.go_on.set()
        server.shutdown()
        thread.join()
        server.server_close()
