"""The web application: page, WebSocket, health and metrics."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import logging
import mimetypes
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Protocol

from aiohttp import web
from aiohttp.typedefs import Handler

from echostream.constants import MAX_LIVE_SEGMENT_MS, TASKS
from echostream.serve.access import Access, is_loopback, unauthorised
from echostream.serve.batcher import Batcher
from echostream.serve.connection import NO_CLOSE_FRAME, Connection
from echostream.serve.files import refusal, translate_file
from echostream.serve.limits import Limits
from echostream.serve.metrics import CONTENT_TYPE, Metrics
from echostream.serve.protocol import VERSION, CloseCode, SessionError, Settings, policies
from echostream.serve.samples import Sample
from echostream.serve.session import TOO_LATE, Session, restored
from echostream.serve.session_store import SessionStore
from echostream.streaming import StreamingTranslator

log = logging.getLogger(__name__)

STATIC = Path(__file__).with_name("static")
OK = "ok"  # status of a server that serves
HEARTBEAT_S = 20  # interval of pings, which detect connections lost without a close frame
IDLE_S = 0.5  # time without a session after which memory is released
TOUCH_S = 5.0  # after so long, saved sessions are marked as in use
MAX_STRANGERS = 64  # sockets whose access token is still to come
HARD_LIMIT = 4  # aiohttp does not read messages that exceed the limit by this factor
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; media-src 'self' blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Permissions-Policy": "microphone=(self), camera=(), geolocation=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}


class Guest(Protocol):
    """What takes a place of the server: a session's connection, or a file that is being translated."""

    def drain(self) -> None:
        """The server stops: end as soon as what was heard has been translated."""

    def stop(self) -> None:
        """The server stops: end now."""


@dataclass
class Server:
    """A web server for one model and any number of sessions.

    Attributes:
        translator: translator that all sessions share.
        defaults: settings that a session has unless it chooses others.
        limits: limits of each session.
        max_batch: maximum number of sessions per step; 1: no batching.
        name: name of the model for the page.
        languages: BCP 47 tags of source and target language; empty if not known.
        access: who may use it.
        store: where sessions are saved, so that another process can go on with them; None: nowhere.
        description: whom and what the model understands, for the page; empty if nobody said.
        samples: recordings for a first try.
        sessions: who has a place, with the address of each.
        resumable: sessions that outlive their connections, by their resume tokens.
        silent: connections without a request so far.
        draining: the server is stopping and takes no more sessions.

    Raises:
        ValueError: the default settings can't be used in a live session.
    """

    translator: StreamingTranslator
    defaults: Settings = field(default_factory=Settings)
    limits: Limits = field(default_factory=Limits)
    max_batch: int = 32
    name: str = ""
    languages: tuple[str, str] = ("", "")
    access: Access = field(default_factory=Access)
    store: SessionStore | None = None
    description: str = ""
    samples: Sequence[Sample] = ()
    sessions: dict[Guest, str] = field(default_factory=dict, init=False)
    resumable: dict[str, Session] = field(default_factory=dict, init=False)
    silent: set[asyncio.BaseTransport] = field(default_factory=set, init=False)
    draining: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self.defaults.apply(self.translator)  # raises an error for settings that are not valid
        if not self.defaults.segment_ms or self.defaults.segment_ms > MAX_LIVE_SEGMENT_MS:
            raise ValueError(
                f"segment_ms must be from {self.translator.model.frame_ms} to {MAX_LIVE_SEGMENT_MS} to translate live, "
                f"got {self.defaults.segment_ms}"
            )
        self.metrics = Metrics()
        self._strangers = 0
        # Requested names are looked up in this table and never in the file system, and no request opens a file.
        self._static_files = {
            path.name: (path.read_bytes(), mimetypes.guess_type(path.name)[0] or "application/octet-stream")
            for path in STATIC.iterdir()
            if path.is_file()
        }
        self.started_s = time.monotonic()

    def application(self) -> web.Application:
        """A fresh web application."""
        app = web.Application(middlewares=[self._check_request])
        app.router.add_get("/", self._page)
        app.router.add_get("/ws", self._socket)
        app.router.add_get("/config", self._config)
        app.router.add_get("/health", self._health)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/static/{name}", self._static)
        app.router.add_get("/samples/{name}", self._sample)
        app.router.add_post("/v1/audio/translations", self._file)
        app.on_response_prepare.append(self._add_headers)
        app.cleanup_ctx.append(self._run_batcher)
        app.on_shutdown.append(self._stop_sessions)
        return app

    async def _run_batcher(self, _: web.Application) -> AsyncIterator[None]:
        self.batcher = Batcher(self.max_batch, self.metrics)
        self._batcher_task = asyncio.create_task(self.batcher.run())
        keeping = asyncio.create_task(self._keep_saved())
        loop = asyncio.get_running_loop()
        self._release_timer = loop.call_later(0, self._release_memory)
        self.metrics.tasks.set_function(lambda: len(asyncio.all_tasks(loop)))
        yield
        self._release_timer.cancel()
        for session in self.resumable.values():  # what was saved of them stays, for other processes
            session.close()
        self.resumable.clear()
        for task in (keeping, self._batcher_task):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _stop_sessions(self, _: web.Application) -> None:
        for guest in list(self.sessions):
            guest.stop()

    async def drain(self) -> None:
        """Take no more sessions, translate what was heard, and save the sessions that can be resumed elsewhere.

        It ends when all have ended, or after ``max_drain_s``; :meth:`application`'s shutdown stops the rest.
        """
        self.draining = True
        for guest in list(self.sessions):
            guest.drain()
        for session in list(self.resumable.values()):
            if session.connection is None:
                session.drain()
        try:
            async with asyncio.timeout(self.limits.max_drain_s):
                while self.sessions or any(session.final is None for session in self.resumable.values()):
                    await asyncio.sleep(0.02)
        except TimeoutError:
            log.warning("%d sessions were cut short: they had not ended after --max-drain-s", len(self.sessions))

    # --- sessions ------------------------------------------------------------------------------------------------

    def take_place(self, guest: Guest, address: str) -> None:
        """Give one of the places to a client.

        Raises:
            SessionError: all are taken, or as many as one address may have.
        """
        if len(self.sessions) >= self.limits.max_sessions:
            text = f"all {self.limits.max_sessions} sessions of this server are taken: try again later"
            raise SessionError(CloseCode.BUSY, text)
        most = self.limits.max_sessions_per_address
        if not is_loopback(address) and sum(other == address for other in self.sessions.values()) >= most:
            raise SessionError(CloseCode.BUSY, f"one address may have {most} sessions at a time: end another one")
        self.sessions[guest] = address
        self.metrics.sessions.inc()

    def leave(self, guest: Guest, code: int) -> None:
        """A client has gone; the place is free."""
        if self.sessions.pop(guest, None) is not None:
            self.metrics.sessions.dec()
        self.metrics.ended.labels(str(int(code))).inc()
        if not self.sessions:
            self._release_timer.cancel()
            self._release_timer = asyncio.get_running_loop().call_later(IDLE_S, self._release_memory)

    def keep(self, session: Session) -> None:
        """Remember a session, if it can be resumed."""
        if session.resume_token is not None:
            self.resumable[session.resume_token] = session

    def keep_away(self, session: Session) -> None:
        """Remember a session without a connection; there are at most as many as there are places, in all and of one
        address, which would otherwise push out those of the others."""
        assert session.resume_token is not None  # only then it waits for its client
        self.resumable[session.resume_token] = self.resumable.pop(session.resume_token, session)  # the latest is last
        away = [other for other in self.resumable.values() if other.connection is None]
        gone = away[: -self.limits.max_sessions]
        if session.address and not is_loopback(session.address):
            mine = [other for other in away if other.address == session.address]
            gone = mine[: -self.limits.max_sessions_per_address] or gone  # never both: one session comes at a time
        for other in gone:
            other.discard()

    def forget(self, session: Session) -> None:
        """The session can't be resumed here any more."""
        if session.resume_token is not None and self.resumable.get(session.resume_token) is session:
            del self.resumable[session.resume_token]
            if session.final is None or session.final[0] is not CloseCode.RESTARTING:
                self.delete_saved(session)

    def delete_saved(self, session: Session) -> None:
        """Delete what was saved of a session that has ended."""
        if self.store is not None and session.resume_token is not None and session.was_saved:
            with contextlib.suppress(OSError):
                self.store.delete(session.resume_token)

    async def find(self, token: str) -> Session:
        """The session with this resume token, from this process or from the store.

        Raises:
            SessionError: there is none (any more).
        """
        session = self.resumable.get(token)
        if session is not None:
            if self.store is None or not session.was_saved or session.final or self.store.touch(token):
                return session
            session.let_go()  # another worker has had it meanwhile
        try:
            content = await asyncio.to_thread(self.store.claim, token) if self.store is not None else None
            if content is None:
                raise SessionError(CloseCode.GONE, TOO_LATE)
            session = restored(self, token, content)
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("a saved session can't go on: %s", error)
            raise SessionError(CloseCode.GONE, TOO_LATE) from error
        self.keep_away(session)
        session.wait_for_client()
        return session

    async def _keep_saved(self) -> None:
        """Now and then, mark saved sessions as in use, and delete those whose time is over."""
        while self.store is not None:
            await asyncio.sleep(TOUCH_S)
            try:
                for token, session in list(self.resumable.items()):
                    in_use = session.connection is not None and session.was_saved and session.final is None
                    if in_use and not self.store.touch(token):
                        session.let_go()
                await asyncio.to_thread(self.store.sweep)
            except OSError as error:
                log.warning("saved sessions can't be looked after: %s", error)

    def _release_memory(self) -> None:
        """When there are no sessions, collect reference cycles and return freed memory to the operating system."""
        if self.sessions:
            return
        gc.collect()
        with contextlib.suppress(OSError, AttributeError):  # the C library is not glibc
            ctypes.CDLL(None).malloc_trim(0)

    # --- requests ------------------------------------------------------------------------------------------------

    async def _page(self, _: web.Request) -> web.Response:
        return self._file_response("index.html")

    async def _static(self, request: web.Request) -> web.Response:
        return self._file_response(request.match_info["name"])

    def _file_response(self, name: str) -> web.Response:
        if name not in self._static_files:
            raise web.HTTPNotFound
        data, kind = self._static_files[name]
        return web.Response(body=data, content_type=kind, charset="utf-8" if kind.startswith("text/") else None)

    async def _sample(self, request: web.Request) -> web.Response:
        for sample in self.samples:
            if sample.name == request.match_info["name"]:
                return web.Response(body=sample.content, content_type=sample.kind)
        raise web.HTTPNotFound

    async def _config(self, _: web.Request) -> web.Response:
        """The choices that the page or any other client has."""
        has_speech = self.translator.vocoder is not None
        return web.json_response(
            {
                "version": VERSION,
                "model": self.name,
                "languages": {"source": self.languages[0], "target": self.languages[1]},
                "description": self.description,
                "samples": [{"name": sample.name, "text": sample.text} for sample in self.samples],
                "tasks": [task for task in TASKS if has_speech or task != "s2st"],
                "policies": list(policies(self.defaults)),
                "output_sample_rate": self.translator.output_sample_rate,
                "segment_step_ms": self.translator.model.frame_ms,
                "segment_max_ms": MAX_LIVE_SEGMENT_MS,
                "defaults": self.defaults.of_client(),
                "limits": asdict(self.limits),
                "needs_token": bool(self.access.tokens),
            }
        )

    @property
    def status(self) -> str:
        """:data:`OK` while sessions can be served, otherwise why not."""
        alive = not self._batcher_task.done()
        return "the translator has stopped" if not alive else "stopping" if self.draining else OK

    async def _health(self, _: web.Request) -> web.Response:
        """Status 200 while sessions can be served, otherwise 503."""
        body = {
            "status": self.status,
            "sessions": len(self.sessions),
            "max_sessions": self.limits.max_sessions,
            "uptime_s": round(time.monotonic() - self.started_s, 1),
        }
        return web.json_response(body, status=200 if self.status == OK else 503)

    async def _metrics(self, request: web.Request) -> web.Response:
        self._require_token(request)
        return web.Response(body=self.metrics.text(), headers={"Content-Type": CONTENT_TYPE})

    async def _file(self, request: web.Request) -> web.StreamResponse:
        try:
            self.access.check_origin(request)
            self._require_token(request)
            self._refuse_when_stopping()
        except web.HTTPException as error:
            return refusal(error)
        return await translate_file(self, request)

    async def _socket(self, request: web.Request) -> web.WebSocketResponse:
        self.access.check_origin(request)
        authorised = self.access.is_authorised(request)
        self._refuse_when_stopping()
        if not authorised:
            self.access.check_attempts(request)
            if self._strangers >= MAX_STRANGERS:
                raise web.HTTPServiceUnavailable(text="too many clients without a token: try again later\n")
        socket = web.WebSocketResponse(
            heartbeat=HEARTBEAT_S,
            max_msg_size=HARD_LIMIT * 1000 * self.limits.max_message_kb,
            timeout=self.limits.max_stall_s,
            compress=False,
            autoping=False,  # aiohttp answers pings without looking at anything else in between
        )
        self._strangers += not authorised
        await socket.prepare(request)
        connection = Connection(self, socket, request.transport, self.access.address(request), authorised)
        code: int = NO_CLOSE_FRAME
        try:
            code = await connection.run()
        finally:
            self._strangers -= not authorised
            self.leave(connection, code)
            log.info("a session of %s ended with code %d", connection.address, code)
        return socket

    def _require_token(self, request: web.Request) -> None:
        if not self.access.is_authorised(request):
            raise unauthorised("this server needs an access token: Authorization: Bearer TOKEN")

    def _refuse_when_stopping(self) -> None:
        if self.draining:
            raise web.HTTPServiceUnavailable(text="the server is stopping\n", headers={"Retry-After": "1"})

    @web.middleware
    async def _check_request(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.transport is not None:
            self.silent.discard(request.transport)
        self.access.check_host(request)
        return await handler(request)

    async def _add_headers(self, _: web.Request, response: web.StreamResponse) -> None:
        response.headers.update(HEADERS)
