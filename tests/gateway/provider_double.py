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
    "null-error": ['data: {"error": null, "choices": []}', *HELLO, *END],
}
REFUSALS: dict[str, tuple[int, dict[str, str], str]] = {
    "401": (401, {}, json.dumps({"error": {"message": f"Incorrect API key provided: {KEY}."}})),
    "404": (404, {}, json.dumps({"error": {"message": "no such model"}})),
    "429": (429, {"Retry-After": "7.2"}, json.dumps({"error": {"message": "slow down"}})),
    "429-date": (429, {"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}, "slow down"),
    "429-odd": (429, {"Retry-After": "9" * 400}, "slow down"),
    "500": (500, {}, "<html>oops</html>"),
    "504": (504, {}, "<html>gateway timeout</html>"),
    "529": (529, {}, json.dumps({"error": "overloaded"})),
    "301": (301, {"Location": "http://127.0.0.1:1/"}, ""),
}


@contextmanager
def provider_double() -> Iterator[ProviderDouble]:
    """A running double."""
    double = ProviderDouble()

    class Answers(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            double.bodies.append(body)
            double.headers.append({name.lower(): value for name, value in self.headers.items()})
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
            self.end_headers()
            try:
                if model == "slow":
                    self._line(HELLO[0])
                    double.go_on.wait(30)
                for line in STREAMS.get(model, HELLO[1:]):
                    self._line(line)
                while model == "endless":
                    self._line(HELLO[0])
                    double.go_on.wait(0.05)
            except OSError:
                double.was_left.set()

        def _line(self, line: str) -> None:
            self.wfile.write(line.encode() + b"\n\n")
            self.wfile.flush()

        def log_message(self, *_: Any) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    server.daemon_threads = True
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
