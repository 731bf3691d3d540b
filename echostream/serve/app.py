"""The web application: page, WebSocket, health and metrics."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import ipaddress
import json
import logging
import time
from collections.abc import AsyncIterator, Collection
from dataclasses import asdict, dataclass, field
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from aiohttp import web
from aiohttp.typedefs import Handler

from echostream.constants import TASKS
from echostream.serve.batcher import Batcher
from echostream.serve.limits import Limits
from echostream.serve.metrics import CONTENT_TYPE, Metrics
from echostream.serve.protocol import MAX_SEGMENT_MS, VERSION, CloseCode, Settings, policies
from echostream.serve.session import NO_CLOSE_FRAME, Session
from echostream.streaming import StreamingTranslator

log = logging.getLogger(__name__)

STATIC = Path(__file__).with_name("static")
HEARTBEAT_S = 20  # interval of pings, which detect connections lost without a close frame
IDLE_S = 0.5  # time without a session after which memory is released
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
        hosts: host names that requests may use; None: any.
        origins: origins other than the server's own whose pages may connect, such as ``https://example.org``.

    Raises:
        ValueError: the default settings can't be used in a live session.
    """

    translator: StreamingTranslator
    defaults: Settings = field(default_factory=Settings)
    limits: Limits = field(default_factory=Limits)
    max_batch: int = 32
    name: str = ""
    languages: tuple[str, str] = ("", "")
    hosts: Collection[str] | None = None
    origins: Collection[str] = ()

    def __post_init__(self) -> None:
        self.defaults.apply(self.translator)  # raises an error for settings that are not valid
        if not self.defaults.segment_ms or self.defaults.segment_ms > MAX_SEGMENT_MS:
            raise ValueError(
                f"segment_ms must be from {self.translator.model.frame_ms} to {MAX_SEGMENT_MS} to translate live, "
                f"got {self.defaults.segment_ms}"
            )
        self.metrics = Metrics()
        self.sessions: set[Session] = set()
        # Requested names are looked up in this table and never in the file system.
        self._static_files = {path.name: path for path in STATIC.iterdir() if path.is_file()}
        self.started_s = time.monotonic()

    def application(self) -> web.Application:
        """A fresh web application."""
        app = web.Application(middlewares=[self._check_host])
        app.router.add_get("/", self._page)
        app.router.add_get("/ws", self._socket)
        app.router.add_get("/config", self._config)
        app.router.add_get("/health", self._health)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/static/{name}", self._static)
        app.on_response_prepare.append(self._add_headers)
        app.cleanup_ctx.append(self._run_batcher)
        app.on_shutdown.append(self._stop_sessions)
        return app

    async def _run_batcher(self, _: web.Application) -> AsyncIterator[None]:
        self.batcher = Batcher(self.max_batch, self.metrics)
        self._batcher_task = asyncio.create_task(self.batcher.run())
        loop = asyncio.get_running_loop()
        self._release_timer = loop.call_later(0, self._release_memory)
        self.metrics.tasks.set_function(lambda: len(asyncio.all_tasks(loop)))
        yield
        self._release_timer.cancel()
        self._batcher_task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._batcher_task

    async def _stop_sessions(self, _: web.Application) -> None:
        for session in list(self.sessions):
            session.stop()

    async def _page(self, _: web.Request) -> web.FileResponse:
        return web.FileResponse(STATIC / "index.html")

    async def _static(self, request: web.Request) -> web.FileResponse:
        path = self._static_files.get(request.match_info["name"])
        if path is None:
            raise web.HTTPNotFound
        return web.FileResponse(path)

    async def _config(self, _: web.Request) -> web.Response:
        """The choices that the page or any other client has."""
        has_speech = self.translator.vocoder is not None
        return web.json_response(
            {
                "version": VERSION,
                "model": self.name,
                "languages": {"source": self.languages[0], "target": self.languages[1]},
                "tasks": [task for task in TASKS if has_speech or task != "s2st"],
                "policies": list(policies(self.defaults)),
                "output_sample_rate": self.translator.output_sample_rate,
                "segment_step_ms": self.translator.model.frame_ms,
                "segment_max_ms": MAX_SEGMENT_MS,
                "defaults": self.defaults.of_client(),
                "limits": asdict(self.limits),
            }
        )

    async def _health(self, _: web.Request) -> web.Response:
        """Status 200 while sessions can be served, otherwise 503."""
        alive = not self._batcher_task.done()
        body = {
            "status": "ok" if alive else "the translator has stopped",
            "sessions": len(self.sessions),
            "max_sessions": self.limits.max_sessions,
            "uptime_s": round(time.monotonic() - self.started_s, 1),
        }
        return web.json_response(body, status=200 if alive else 503)

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=self.metrics.text(), headers={"Content-Type": CONTENT_TYPE})

    async def _socket(self, request: web.Request) -> web.WebSocketResponse:
        self._check_origin(request)
        socket = web.WebSocketResponse(
            heartbeat=HEARTBEAT_S,
            max_msg_size=HARD_LIMIT * 1000 * self.limits.max_message_kb,
            timeout=self.limits.max_stall_s,
            compress=False,
        )
        await socket.prepare(request)
        if len(self.sessions) >= self.limits.max_sessions:
            return await self._refuse(socket)
        session = Session(
            socket, request.transport, self.translator, self.batcher, self.metrics, self.limits, self.defaults
        )
        self.sessions.add(session)
        self.metrics.sessions.inc()
        code = NO_CLOSE_FRAME
        try:
            code = await session.run()
        finally:
            self.sessions.discard(session)
            self.metrics.sessions.dec()
            self.metrics.ended.labels(str(int(code))).inc()
            log.info("session %s ended with code %d", session.id, code)
            if not self.sessions:
                self._release_timer.cancel()
                self._release_timer = asyncio.get_running_loop().call_later(IDLE_S, self._release_memory)
        return socket

    def _release_memory(self) -> None:
        """When there are no sessions, collect reference cycles and return freed memory to the operating system."""
        if self.sessions:
            return
        gc.collect()
        with contextlib.suppress(OSError, AttributeError):  # the C library is not glibc
            ctypes.CDLL(None).malloc_trim(0)

    async def _refuse(self, socket: web.WebSocketResponse) -> web.WebSocketResponse:
        text = f"all {self.limits.max_sessions} sessions of this server are taken: try again later"
        self.metrics.ended.labels(str(int(CloseCode.BUSY))).inc()
        with contextlib.suppress(ConnectionError):
            await socket.send_str(json.dumps({"type": "error", "code": int(CloseCode.BUSY), "message": text}))
            await socket.close(code=CloseCode.BUSY, message=text.encode())
        return socket

    @web.middleware
    async def _check_host(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Refuse unknown host names: a foreign site whose name resolves to loopback must not reach a local server."""
        name = _split(f"//{request.host}").hostname or ""
        if self.hosts is not None and name not in self.hosts:
            raise web.HTTPForbidden(text=f"this server does not answer to the name {name}\n")
        return await handler(request)

    def _check_origin(self, request: web.Request) -> None:
        """Refuse WebSockets from pages of other sites; programs other than browsers send no origin and are allowed."""
        origin = request.headers.get("Origin")
        if origin is not None and origin not in self.origins and _split(origin).netloc != request.host:
            raise web.HTTPForbidden(text=f"pages of {origin} may not connect to this server\n")

    async def _add_headers(self, _: web.Request, response: web.StreamResponse) -> None:
        response.headers.update(HEADERS)


def _split(url: str) -> SplitResult:
    """The parts of a URL from a client; all are empty if it is not valid."""
    try:
        return urlsplit(url)
    except ValueError:  # for example an unclosed bracket
        return urlsplit("")


def is_loopback(host: str) -> bool:
    """Whether ``host`` can be reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
