"""A gateway played by a real HTTP server on a Unix socket: it gives the scripted replies, one a request."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingMixIn, UnixStreamServer
from typing import Any

CHECK_PATH = "/v1/outputs/check"

Reply = Callable[["Exchange"], None]


@dataclass(frozen=True)
class Request:
    """One request as it came in."""

    path: str
    headers: Mapping[str, str]
    body: dict[str, Any]

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The conversation that the model is shown."""
        messages: list[dict[str, Any]] = self.body["messages"]
        return messages

    @property
    def tool_texts(self) -> list[str]:
        """What the tools answered so far."""
        return [message["content"] for message in self.messages if message["role"] == "tool"]


@dataclass
class Gateway:
    """The replies still to come, the last of which repeats for ever, and the requests so far.

    Where `checks` is set, it answers the checks of outputs in the same way, and `checked` holds those requests.
    """

    socket: Path
    replies: list[Reply] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    checks: list[Reply] = field(default_factory=list)
    checked: list[Request] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, request: Request) -> Reply:
        """Note the request; the reply to it."""
        is_check = bool(self.checks) and request.path == CHECK_PATH
        replies, requests = (self.checks, self.checked) if is_check else (self.replies, self.requests)
        with self.lock:
            requests.append(request)
            return replies.pop(0) if len(replies) > 1 else replies[0]


class Exchange(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    gateway: Gateway

    def do_POST(self) -> None:
        """Answer by the script."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        request = Request(self.path, dict(self.headers.items()), json.loads(body))
        self.gateway.take(request)(self)

    def answer(self, status: int, content: bytes, headers: Mapping[str, str]) -> None:
        """A whole answer."""
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), "Connection": "close", **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def begin_stream(self) -> None:
        """The head of a chunked stream of events."""
        self.send_response(200)
        for name, value in {"Content-Type": "text/event-stream", "Transfer-Encoding": "chunked"}.items():
            self.send_header(name, value)
        self.end_headers()

    def chunk(self, content: bytes) -> None:
        """One chunk; an empty one ends the stream."""
        self.wfile.write(b"%x\r\n%s\r\n" % (len(content), content))
        self.wfile.flush()

    def reset(self) -> None:
        """Cut the connection where it is."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.shutdown(socket.SHUT_RDWR)
        self.close_connection = True

    def address_string(self) -> str:
        """A Unix socket's peer has no address."""
        return "unix"

    def log_message(self, format: str, *args: object) -> None:
        """Keep the tests' output clean."""


class _Server(ThreadingMixIn, UnixStreamServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A runtime that was killed in the middle of an answer is what some tests want."""


@contextmanager
def serving(path: Path, replies: list[Reply]) -> Iterator[Gateway]:
    """A gateway that listens at `path`."""
    gateway = Gateway(path, replies)
    handler = type("Bound", (Exchange,), {"gateway": gateway})
    server = _Server(str(path), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield gateway
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def delta(**values: Any) -> dict[str, Any]:
    """A chunk of a streamed completion."""
    return {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": values, "finish_reason": None}]}


def finish(reason: str = "stop") -> dict[str, Any]:
    """The chunk that ends the choice."""
    return {"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]}


def usage(prompt: int = 100, completion: int = 20, cached: int = 40) -> dict[str, Any]:
    """The last chunk, which has no choice."""
    details = {"cached_tokens": cached}
    tokens = {"prompt_tokens": prompt, "completion_tokens": completion, "prompt_tokens_details": details}
    return {"choices": [], "usage": tokens}


def call_delta(index: int, name: str | None, arguments: str, call_id: str | None = None) -> dict[str, Any]:
    """A piece of a tool call."""
    function = {"arguments": arguments, **({"name": name} if name else {})}
    return delta(tool_calls=[{"index": index, "function": function, **({"id": call_id} if call_id else {})}])


def event(chunk: Mapping[str, Any]) -> bytes:
    """A chunk as a server-sent event."""
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


def stream(*chunks: Mapping[str, Any]) -> Reply:
    """A well-formed stream, one chunk of HTTP an event."""
    return raw_stream(*[event(chunk) for chunk in chunks], b"data: [DONE]\n\n")


def raw_stream(*pieces: bytes) -> Reply:
    """A stream of exactly these pieces."""

    def reply(exchange: Exchange) -> None:
        exchange.begin_stream()
        for piece in (*pieces, b""):
            exchange.chunk(piece)

    return reply


def cut_stream(*chunks: Mapping[str, Any]) -> Reply:
    """A stream that breaks off after these chunks."""

    def reply(exchange: Exchange) -> None:
        exchange.begin_stream()
        for chunk in chunks:
            exchange.chunk(event(chunk))
        exchange.reset()

    return reply


def calls(*tools: tuple[str, Any]) -> Reply:
    """A streamed answer that calls tools; arguments are a JSON value, or the text as the model wrote it."""
    chunks = []
    for index, (name, arguments) in enumerate(tools):
        text = arguments if isinstance(arguments, str) else json.dumps(arguments)
        chunks.append(call_delta(index, name, text[:5], f"call_{index}"))
        chunks.append(call_delta(index, None, text[5:]))
    return stream(*chunks, finish("tool_calls"), usage())


def completes(summary: str = "done", **outputs: Any) -> Reply:
    """A streamed answer that calls `complete`."""
    return calls(("complete", {"outputs": outputs, "summary": summary}))


def says(text: str) -> Reply:
    """A streamed answer without a tool call."""
    return stream(delta(content=text), finish(), usage())


def status(code: int, message: str = "no", **headers: str) -> Reply:
    """An error answer in OpenAI's shape; `Retry_After="0"` becomes a header."""
    content = json.dumps({"error": {"message": message, "type": "test"}}).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda exchange: exchange.answer(code, content, {"Content-Type": "application/json", **named})


def fault(kind: str, **stated: Any) -> dict[str, Any]:
    """What the gateway says of a provider's fault."""
    error = {"message": "It failed.", "type": "provider_error", "code": 502, "kind": kind, "failure": kind}
    return {"error": {**error, "permanent": False, "doubtful": False, "retry_after": None, **stated}}


def refusal(code: int, *, kind: str, **stated: Any) -> Reply:
    """A provider's fault as the answer."""
    content = json.dumps(fault(kind, code=code, **stated)).encode()
    return lambda exchange: exchange.answer(code, content, {"Content-Type": "application/json"})


def whole(text: str) -> Reply:
    """An answer that is one JSON body."""
    message = {"role": "assistant", "content": text}
    content = json.dumps({"choices": [{"message": message, "finish_reason": "stop"}], **_tokens()}).encode()
    return lambda exchange: exchange.answer(200, content, {"Content-Type": "application/json"})


def problems(*texts: str, **more: str) -> Reply:
    """What a check of outputs found."""
    content = json.dumps({"problems": texts, **more}).encode()
    return lambda exchange: exchange.answer(200, content, {"Content-Type": "application/json"})


def silence() -> Reply:
    """Takes the request and says nothing until the other side goes away."""

    def reply(exchange: Exchange) -> None:
        exchange.connection.recv(1)

    return reply


def _tokens() -> dict[str, Any]:
    return {"usage": {"prompt_tokens": 7, "completion_tokens": 3}}
