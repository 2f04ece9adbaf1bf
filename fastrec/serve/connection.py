"""Connections with what uvicorn's lack for the open: a deadline for whole requests, and a limit of their number."""

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from fastrec.serve.door import Door


class Connection(HttpToolsProtocol):
    """A connection must have its whole request in time, and there may only be so many.

    uvicorn's own timeout runs between requests alone: who connects and says nothing, or a byte now and then, would
    stay for ever.
    """

    receive_timeout = 15.0
    most = 10_000
    door: Door | None = None
    _open = 0
    _deadline: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None
    #: Whether the parser has a part of a request.
    _begun = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        Connection._open += 1
        super().connection_made(transport)
        if Connection._open > Connection.most:
            transport.abort()
            return
        self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        Connection._open -= 1
        self._disarm()
        if self._unread is not None:
            self._unread.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        cycle = self.cycle
        if self.door is not None and not self._begun and (cycle is None or cycle.response_complete):
            answer = self.door.refuse(data)
            if answer is not None:
                self.transport.write(answer)
                self._disarm()
                return
        super().data_received(data)

    def on_message_begin(self) -> None:
        self._begun = True
        super().on_message_begin()
        if self._deadline is None:
            self._arm()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._begun = False
        self._disarm()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread = self.loop.call_later(self.receive_timeout, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _arm(self) -> None:
        self._deadline = self.loop.call_later(self.receive_timeout, self._too_slow)

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _too_slow(self) -> None:
        self._deadline = None
        if not self.transport.is_closing():
            self.transport.abort()
