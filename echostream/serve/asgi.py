"""An ASGI application that hands requests and sockets on to an EchoStream server on this machine, and back.

Serving frameworks speak ASGI to what they run; the server is aiohttp's, and keeps its limits, tokens and close codes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any

import aiohttp
from multidict import CIMultiDict

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

# RFC 9110, section 7.6.1: of one connection only. Who sends on adds a Date and a Server of its own.
OF_CONNECTION = {
    "connection",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "expect",
}
OF_ANSWER = OF_CONNECTION | {"date", "server"}
DONE, LOST, NO_STATUS = 1000, 1001, 1005  # RFC 6455, section 7.4.1; the last one: a close frame without a code
LOOPBACK = "127.0.0.1"


class Passage:
    """Hands on what comes to a server, with the address that it came from added to ``X-Forwarded-For``.

    Args:
        port: gives the port of the server on this machine.
    """

    def __init__(self, port: Callable[[], int]) -> None:
        self._port = port
        self._http: aiohttp.ClientSession | None = None

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve one connection, or the application's own beginning and end."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "websocket":
            await self._socket(scope, receive, send)
        else:
            await self._request(scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, force_close=True),
            timeout=aiohttp.ClientTimeout(total=None),  # the server's limits are enough
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
        ) as self._http:
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})

    def _url(self, scope: Message) -> str:
        path = scope.get("raw_path") or scope["path"].encode()
        query = scope.get("query_string", b"")
        # A target that is no path (OPTIONS *) would become a part of the host's name.
        target = path.decode("latin-1") if path.startswith(b"/") else "/" + path.decode("latin-1")
        return f"http://{LOOPBACK}:{self._port()}{target}" + (f"?{query.decode('latin-1')}" if query else "")

    async def _request(self, scope: Message, receive: Receive, send: Send) -> None:
        assert self._http is not None  # the application has begun
        headers = forwarded_headers(scope)
        names = {name for name, _ in scope["headers"]}
        if b"transfer-encoding" in names:
            headers.popall("content-length", None)
        has_body = names & {b"content-length", b"transfer-encoding"}
        async with self._http.request(
            scope["method"],
            encoded(self._url(scope)),
            headers=headers,
            data=body(receive) if has_body else None,
            allow_redirects=False,
        ) as answer:
            kept = [pair for pair in answer.raw_headers if pair[0].decode("latin-1").lower() not in OF_ANSWER]
            lower = [(name.lower(), value) for name, value in kept]
            await send({"type": "http.response.start", "status": answer.status, "headers": lower})
            async for piece in answer.content.iter_any():
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def _socket(self, scope: Message, receive: Receive, send: Send) -> None:
        assert self._http is not None
        await receive()  # websocket.connect
        headers = forwarded_headers(scope)
        for name in [name for name in headers if name.lower().startswith("sec-websocket-")]:
            headers.popall(name, None)
        try:
            line = await self._http.ws_connect(encoded(self._url(scope)), headers=headers, max_msg_size=0)
        except aiohttp.WSServerHandshakeError as error:
            await refuse(scope, error, send)
            return
        await send({"type": "websocket.accept"})
        reading, listening = asyncio.create_task(to_client(line, send)), asyncio.create_task(to_server(receive, line))
        code: int | None = LOST
        try:
            await asyncio.wait([reading, listening], return_when=asyncio.FIRST_COMPLETED)
            if listening.done():
                code = listening.result()
            if code is None:
                await reading
        finally:
            for task in (reading, listening):
                task.cancel()
            await asyncio.gather(reading, listening, return_exceptions=True)
            await line.close(code=code or LOST)


async def to_server(receive: Receive, line: aiohttp.ClientWebSocketResponse) -> int | None:
    """Hand on what the client sends until it leaves.

    Returns:
        The code with which the server's side is to be closed: 1001 after a line that was lost, so that it can be
        resumed. None: the server has closed it, and what it said last is still to be read.
    """
    try:
        while (message := await receive())["type"] != "websocket.disconnect":
            if message.get("bytes") is not None:
                await line.send_bytes(message["bytes"])
            else:
                await line.send_str(message["text"])
    except ConnectionError:
        return None
    if "reason" not in message:  # uvicorn's code would be 1005 as after a close frame without a code
        return LOST
    return DONE if message["code"] == NO_STATUS else message["code"]


async def to_client(line: aiohttp.ClientWebSocketResponse, send: Send) -> None:
    """Hand on what the server says until it closes; of a line that was lost no close frame is made up."""
    while True:
        message = await line.receive()
        if message.type is aiohttp.WSMsgType.BINARY:
            await send({"type": "websocket.send", "bytes": message.data})
        elif message.type is aiohttp.WSMsgType.TEXT:
            await send({"type": "websocket.send", "text": message.data})
        else:
            if message.type is aiohttp.WSMsgType.CLOSE:
                code = message.data or DONE
                await send({"type": "websocket.close", "code": code, "reason": message.extra or ""})
            return


async def refuse(scope: Message, error: aiohttp.WSServerHandshakeError, send: Send) -> None:
    """Pass on that the server takes no socket of this client."""
    if "websocket.http.response" not in (scope.get("extensions") or {}):
        await send({"type": "websocket.close", "code": LOST})  # ASGI makes a 403 of it
        return
    told = ("retry-after", "www-authenticate")
    given = {name.lower(): value for name, value in (error.headers or {}).items()}
    headers = [(name.encode(), given[name].encode("latin-1")) for name in told if name in given]
    await send({"type": "websocket.http.response.start", "status": error.status, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": f"{error.message}\n".encode()})


def forwarded_headers(scope: Message) -> CIMultiDict[str]:
    """The request's headers, as the server gets them."""
    headers: CIMultiDict[str] = CIMultiDict()
    came_from = []
    for name, value in ((name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]):
        if name.lower() == "x-forwarded-for":
            came_from.append(value)
        elif name.lower() not in OF_CONNECTION:
            headers.add(name, value)
    if scope.get("client"):
        came_from.append(scope["client"][0])
    headers["X-Forwarded-For"] = ", ".join(came_from)
    return headers


async def body(receive: Receive) -> AsyncIterator[bytes]:
    """The body of a request.

    Raises:
        ConnectionAbortedError: the client has gone before its end.
    """
    while (message := await receive())["type"] == "http.request":
        if message.get("body"):
            yield message["body"]
        if not message.get("more_body"):
            return
    raise ConnectionAbortedError("the client has gone")


def encoded(url: str) -> Any:
    """A URL as it came, with no character of it quoted anew."""
    from yarl import URL

    return URL(url, encoded=True)
