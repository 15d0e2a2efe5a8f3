"""A client of the sockets: ASGI messages in and out of the real application."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from asgiref.testing import ApplicationCommunicator
from django.test import Client

from djinn.asgi import application
from djinn.runs.models import Run

SECONDS = 20


class Socket:
    """An accepted socket."""

    def __init__(self, served_by: Any, scope: dict[str, Any]) -> None:
        self._application = ApplicationCommunicator(served_by, scope)

    async def connect(self) -> None:
        await self._application.send_input({"type": "websocket.connect"})
        assert (await self.next())["type"] == "websocket.accept"

    async def next(self) -> dict[str, Any]:
        """The next ASGI message of the server."""
        return await self._application.receive_output(SECONDS)

    async def read_to(self, seq: int) -> list[str]:
        """The messages with events, up to the one that ends with `seq`; each begins where the one before it ended."""
        messages: list[str] = []
        while not messages or ends(messages[-1])[1] < seq:
            text = (await self.next())["text"]
            if 'id="cursor"' in text:
                assert not messages or ends(text)[0] == ends(messages[-1])[1]
                messages.append(text)
        return messages

    async def closing_code(self) -> int:
        """The code with which the server closes; what it sends before is passed over."""
        while (message := await self.next())["type"] != "websocket.close":
            pass
        return message["code"]

    async def disconnect(self) -> None:
        await self._application.send_input({"type": "websocket.disconnect", "code": 1000})
        await self._application.wait(SECONDS)


@asynccontextmanager
async def socket(client: Client, run: Run, after: object = 0, served_by: Any = application) -> AsyncIterator[Socket]:
    """An open socket of the run, with the client's cookies."""
    cookies = "; ".join(f"{name}={morsel.value}" for name, morsel in client.cookies.items())
    scope = {
        "type": "websocket",
        "path": f"/ws/runs/{run.pk}/",
        "query_string": f"after={after}".encode(),
        "headers": [(b"cookie", cookies.encode()), (b"origin", b"http://localhost"), (b"host", b"localhost")],
        "subprotocols": [],
    }
    opened = Socket(served_by, scope)
    await opened.connect()
    try:
        yield opened
    finally:
        await opened.disconnect()


def ends(message: str) -> tuple[int, int]:
    """The sequence numbers behind which a message begins and with which it ends."""
    found = re.match(r'<span id="cursor" hx-swap-oob="true" hidden data-after="(\d+)" data-seq="(\d+)">', message)
    assert found
    return int(found[1]), int(found[2])
