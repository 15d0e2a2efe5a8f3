"""Server-sent events over the log, by django-eventstream's view with a storage and a channel manager of ours.

Its own storages drop bursts or trim, its Redis listener dies with the connection, and it lets everybody read
everything. Here nothing is ever queued in memory: a hint only wakes the view, which then reads the log behind its
cursor. The cursor (`Last-Event-ID`) is `stream:seq`; a plain `seq` is understood too.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from django.db import connection
from django.http import HttpRequest, StreamingHttpResponse
from django_eventstream.channelmanager import ChannelManagerBase
from django_eventstream.event import Event as SseEvent
from django_eventstream.eventrequest import EventRequest
from django_eventstream.storage import EventDoesNotExist, StorageBase
from django_eventstream.utils import add_default_headers
from django_eventstream.views import Listener, get_listener_manager, stream

from djinn.accounts.credentials import Credential
from djinn.accounts.models import User
from djinn.core.database import released
from djinn.core.errors import UserError
from djinn.core.faults import fault
from djinn.events import log
from djinn.events.access import may_read
from djinn.events.serial import event_json
from djinn.events.watch import Viewer, watcher_of_this_loop


class LogStorage(StorageBase):  # type: ignore[misc]  # the package has no types
    """django-eventstream's view of the event log."""

    def append_event(self, channel: str, event_type: str, data: Any) -> SseEvent:
        raise UserError("Events are written by the engine, in the transaction of what they tell.")

    def get_events(self, channel: str, last_id: int, limit: int = 100) -> list[SseEvent]:
        """The events behind `last_id`; raises `EventDoesNotExist` for a cursor that the stream never gave out."""
        with released():
            newest = log.last_seq(channel)
            if not 0 <= int(last_id) <= newest:
                raise EventDoesNotExist(f"{channel} has no event {last_id}", newest)
            events = log.read_after(channel, int(last_id), limit=limit)
        return [SseEvent(channel, event.type, json.dumps(event_json(event)), id=event.seq) for event in events]

    def get_current_id(self, channel: str) -> int:
        """Where a client without a cursor begins: before the first event."""
        return 0


class LogChannelManager(ChannelManagerBase):  # type: ignore[misc]  # the package has no types
    """Streams are named by our URLs only, and read by whom `may_read` lets."""

    def get_channels_for_request(self, request: HttpRequest, view_kwargs: dict[str, Any]) -> set[str]:
        return {view_kwargs["stream"]}

    def can_read_channel(self, user: Any, channel: str) -> bool:
        """Asked before every read, about the person as they are now: a right that was taken ends the stream."""
        with released():
            person = User.objects.filter(pk=user.pk).first()
            return person is not None and may_read(person, channel)

    def is_channel_reliable(self, channel: str) -> bool:
        return True


def event_stream_response(request: HttpRequest, name: str, credential: Credential) -> StreamingHttpResponse:
    """The stream's events behind the request's `Last-Event-ID`, then each as it happens, while they may be read.

    Raises `UserError` for a cursor that cannot be read. Whoever calls has checked `may_read`; it is checked again at
    every read of the log, and every few seconds together with the credential.
    """
    event_request = EventRequest()
    event_request.channels = {name}
    event_request.user = request.user
    event_request.is_next = event_request.is_recover = False
    event_request.channel_last_ids = {name: str(cursor(request, name))}
    listener = Listener()
    listener.user_id = request.user.pk
    listener.channels = event_request.channels
    response = StreamingHttpResponse(
        _woken_by_hints(event_request, listener, name, credential), content_type="text/event-stream"
    )
    add_default_headers(response, request=request)
    connection.close()  # what the request read so far is read; a viewer who waits holds no connection of the pool
    return response


def cursor(request: HttpRequest, name: str) -> int:
    """The sequence number behind which a client goes on: `Last-Event-ID`, else `?after=`, else 0."""
    text = request.headers.get("Last-Event-ID") or request.GET.get("after") or "0"
    seq = text.removeprefix(f"{name}:")
    if not (seq.isascii() and seq.isdigit() and len(seq) < 19):
        raise UserError(f"{text[:40]!r} is no cursor of this stream.", details={"after": "a sequence number"})
    return int(seq)


async def _woken_by_hints(
    event_request: EventRequest, listener: Any, name: str, credential: Credential
) -> AsyncIterator[str]:
    """The package's stream, with a task beside it that turns hints into "read the log again"; a refusal ends it."""
    with watcher_of_this_loop().watch(name, credential) as more:
        waking = asyncio.create_task(_wake(listener, more))
        try:
            async with aclosing(stream(event_request, listener)) as bodies:
                async for body in bodies:
                    fault("sse.before_flush")
                    yield body
                    if more.refusal is not None:  # the package would ask again, and know nothing of credentials
                        return
        finally:
            waking.cancel()


async def _wake(listener: Any, more: Viewer) -> None:
    while True:
        await more.wait()
        more.clear()
        with get_listener_manager().lock:
            listener.overflow = True  # the package's word for "go to the storage"
            if more.refusal is not None:  # and for "tell this and end"
                listener.error = {"condition": "forbidden", "text": f"Permission denied: {more.refusal}"}
            listener.aevent.set()
