"""One WebSocket of a client: receives messages, enforces the limits of a line, and hands audio to its session."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any

from aiohttp import WSMsgType, web

from echostream.serve.limits import Meter
from echostream.serve.outbox import Outbox, Pong
from echostream.serve.protocol import CloseCode, SessionError, parse, parse_resume, parse_start
from echostream.serve.session import Session

if TYPE_CHECKING:
    from echostream.serve.app import Server

log = logging.getLogger(__name__)

BURST_S = 1.0  # the messages of this time, at the maximum rate, may come at once
TURN = 16  # messages after which others have their turn, however many wait
MAX_IGNORED = 2_000  # messages that are read after the session's end, which the client may have sent before it knew
FAREWELL_S = 1.0  # for the close frame to a client that floods
NO_CLOSE_FRAME = 1006  # RFC 6455, section 7.4.1: the connection ended without a close frame


class Connection:
    """Serves one socket from its first message to the close frame.

    Args:
        server: to which it belongs.
        socket: socket of the client, already prepared.
        transport: transport of the socket.
        address: of the client, by which limits are counted.
        authorised: the request has brought an access token, or needs none.
    """

    def __init__(
        self,
        server: Server,
        socket: web.WebSocketResponse,
        transport: asyncio.Transport | None,
        address: str,
        authorised: bool,
    ) -> None:
        self.server, self.limits = server, server.limits
        self.socket, self._transport = socket, transport
        self.address, self.authorised = address, authorised
        self.session: Session | None = None
        self.outbox = Outbox(socket, 1000 * self.limits.max_unsent_kb, self.limits.max_stall_s)
        self._began_s = time.monotonic()
        self._meter = Meter(self.limits.max_messages_per_s, self.limits.max_messages_per_s * BURST_S, self._began_s)
        self._was_closed_by_client = False

    async def run(self) -> int:
        """Serve the client; returns the close code."""
        sending = asyncio.create_task(self.outbox.run())
        # A client that reads nothing would not read a close frame either, so its connection is aborted.
        sending.add_done_callback(lambda task: self._abort() if not task.cancelled() and task.exception() else None)
        try:
            if self.authorised:
                self._take_place()
            flooded = await self._receive()
            if self.outbox.is_closing:
                await asyncio.wait([sending], timeout=FAREWELL_S if flooded else self.limits.max_stall_s)
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
            if self.session is not None:
                session, self.session = self.session, None
                if self._was_closed_by_client and session.final is None:
                    session.discard()
                else:
                    session.detach()
            if not self.socket.closed:
                self._abort()
        if self.outbox.sent_code is not None:
            return self.outbox.sent_code
        if sending.done() and not sending.cancelled() and isinstance(sending.exception(), TimeoutError):
            return CloseCode.SLOW_CLIENT
        return self.socket.close_code or NO_CLOSE_FRAME

    def stop(self) -> None:
        """End at once because the server is stopping."""
        self.end(SessionError(CloseCode.GOING_AWAY, "the server is stopping"))

    def drain(self) -> None:
        """The server stops: translate what was heard, then end."""
        if self.session is not None:
            self.session.drain()
        else:
            self.stop()

    def end(self, error: SessionError) -> None:
        """End the session and tell the client why, after sending the output that is still queued."""
        if self.session is not None:
            self.session.fail(error)
        message = {"type": "error", "code": int(error.code), "message": error.message}
        self.outbox.close(error.code, error.message, message)

    def _take_place(self) -> None:
        try:
            self.server.take_place(self, self.address)
        except SessionError as error:
            self.end(error)

    async def _receive(self) -> bool:
        """Receive until the connection ends; returns whether it was left because the client floods."""
        received = ignored = 0
        while True:
            received += 1
            if received % TURN == 0:
                await asyncio.sleep(0)  # receiving what waits already gives no other task a turn
            try:
                message = await self.socket.receive(timeout=self._patience_s())
            except TimeoutError:
                self._on_silence()
                continue
            if message.type in (WSMsgType.CLOSE, WSMsgType.CLOSED, WSMsgType.CLOSING, WSMsgType.ERROR):
                # A browser whose page is left or loaded again says 1001; the page may come back to its session.
                in_order = message.type is WSMsgType.CLOSE and message.data != CloseCode.GOING_AWAY
                self._was_closed_by_client = in_order
                return False
            if self.outbox.is_closing:
                ignored += 1  # sent before the client could know that the session has ended
                if ignored > MAX_IGNORED:
                    if self._transport is not None:
                        self._transport.pause_reading()
                    return True
                continue
            try:
                await self._handle_message(message.type, message.data)
            except SessionError as error:
                self.end(error)
            except Exception:
                log.exception("a message of a client could not be handled")
                self.end(SessionError(CloseCode.INTERNAL_ERROR, "the server made a mistake; its log says which"))

    def _patience_s(self) -> float | None:
        """How long the next message may take; None: as long as the server has work."""
        now_s = time.monotonic()
        if self.outbox.is_closing:
            return None
        if self.session is None:
            return max(0.001, self._began_s + min(self.limits.max_handshake_s, self.limits.max_idle_s) - now_s)
        if self.session.stream.ended or self.session.final is not None:
            return None
        return max(0.001, self.session.last_audio_s + self.limits.max_idle_s - now_s)

    def _on_silence(self) -> None:
        """No audio for too long; pings, pongs and empty messages are none."""
        if self.session is None:
            most = min(self.limits.max_handshake_s, self.limits.max_idle_s)
            self.end(SessionError(CloseCode.IDLE, f"no start message came for {most:g} s"))
        elif time.monotonic() >= self.session.last_audio_s + self.limits.max_idle_s:
            self.session.end_source(CloseCode.IDLE, f"no audio came from the client for {self.limits.max_idle_s:g} s")

    async def _handle_message(self, kind: WSMsgType, data: str | bytes) -> None:
        if len(data) > 1000 * self.limits.max_message_kb:
            raise SessionError(
                CloseCode.TOO_BIG,
                f"messages may have {self.limits.max_message_kb} kB: send the audio in smaller pieces",
            )
        if not self._meter.take(1, time.monotonic()):
            raise SessionError(
                CloseCode.TOO_FAST,
                f"at most {self.limits.max_messages_per_s:g} messages a second: send the audio in larger pieces",
            )
        if kind is WSMsgType.PING:
            self.outbox.put(Pong(bytes(data)))  # type: ignore[arg-type]
        elif kind is WSMsgType.PONG:
            pass
        elif isinstance(data, bytes):
            self._require_session().hear(data)
        else:
            await self._handle_control(parse(data))

    async def _handle_control(self, message: dict[str, Any]) -> None:
        if message["type"] == "end":
            self._require_session().end()
            return
        if message["type"] not in ("start", "resume"):
            raise SessionError(CloseCode.BAD_MESSAGE, 'the type of a message must be "start", "resume" or "end"')
        if self.session is not None:
            raise SessionError(CloseCode.BAD_MESSAGE, "the session was started already: open another connection")
        start = parse_start(message, self.server.defaults) if message["type"] == "start" else None
        resume = parse_resume(message) if start is None else None
        if not self.authorised:
            if not self.server.access.accepts(message.get("token"), self.address):
                text = "this server needs an access token: send it as token, or in an Authorization header"
                raise SessionError(CloseCode.UNAUTHORISED, text)
            self.authorised = True
            self.server.take_place(self, self.address)
        if start is not None:
            session = Session(self.server, start)
            self.server.keep(session)
            session.attach(self)
        elif resume is not None:
            session = await self.server.find(resume.resume_token)
            session.attach(self, resume.seq)

    def _require_session(self) -> Session:
        if self.session is None:
            raise SessionError(CloseCode.BAD_MESSAGE, 'the first message must be a "start"')
        return self.session

    def _abort(self) -> None:
        """Abort the connection without a close frame."""
        if self._transport is not None:
            self._transport.abort()
