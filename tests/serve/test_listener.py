"""Connections are accepted up to limits, and those that say nothing are dropped, with TLS and without."""

import asyncio
import contextlib
import socket
import ssl

import aiohttp
import pytest
from aiohttp import web
from wire import until

from echostream.serve.listener import Listener
from echostream.serve.running import tls_context
from echostream.serve.samples import Sample


@contextlib.asynccontextmanager
async def listening(server, context=None, **options):
    """A server behind a listener; gives its port."""
    runner = web.AppRunner(server.application(), shutdown_timeout=1)
    await runner.setup()
    listener = Listener(runner.server, server.limits, context, silent=server.silent, **options)
    try:
        yield listener.listen("127.0.0.1", 0), listener
    finally:
        await listener.close()
        await runner.cleanup()


@pytest.mark.parametrize("secure", [True, False], ids=["TLS", "plain"])
def test_silent_connections_are_dropped_and_others_served(make_server, certificate, secure):
    server = make_server(max_handshake_s=0.5)
    context = tls_context(certificate / "cert.pem", certificate / "key.pem") if secure else None

    async def run():
        async with listening(server, context) as (port, _):
            silent, silent_writer = await asyncio.open_connection("127.0.0.1", port)
            trusting = ssl.create_default_context(cafile=certificate / "cert.pem")
            trusting.check_hostname = False
            connector = aiohttp.TCPConnector(ssl=trusting)
            async with aiohttp.ClientSession(connector=connector) as client:
                url = f"{'https' if secure else 'http'}://127.0.0.1:{port}/health"
                statuses = [(await client.get(url)).status]
                with contextlib.suppress(ConnectionError):
                    assert await asyncio.wait_for(silent.read(), 10) == b""
                await asyncio.sleep(0.5)
                statuses.append((await client.get(url)).status)  # over the connection that was kept
            silent_writer.close()
            return statuses

    assert asyncio.run(run()) == [200, 200] and not server.silent


def test_one_address_may_have_so_many_connections(make_server, monkeypatch, caplog):
    monkeypatch.setattr("echostream.serve.listener.is_loopback", lambda _: False)

    async def run():
        server = make_server(max_connections_per_address=3)
        async with listening(server) as (port, _):
            lines = [await asyncio.open_connection("127.0.0.1", port) for _ in range(5)]
            ended = [await is_closed(reader) for reader, _ in lines]
            lines[0][1].close()
            await asyncio.sleep(0.1)
            again, writer = await asyncio.open_connection("127.0.0.1", port)
            ended.append(await is_closed(again))
            for one in (*(line[1] for line in lines), writer):
                one.close()
            return ended

    assert asyncio.run(run()) == [False, False, False, True, True, False]
    assert caplog.text.count("--max-connections-per-address") == 1, "once a minute is enough"


async def is_closed(reader: asyncio.StreamReader) -> bool:
    """Whether the server has closed a connection."""
    try:
        return await asyncio.wait_for(reader.read(1), 0.2) == b""
    except TimeoutError:
        return False
    except ConnectionError:
        return True


def test_trusted_proxies_have_as_many_as_they_like(make_server, monkeypatch):
    monkeypatch.setattr("echostream.serve.listener.is_loopback", lambda _: False)

    async def run():
        server = make_server(max_connections_per_address=1)
        async with listening(server, is_proxy=lambda address: address == "127.0.0.1") as (port, _):
            lines = [await asyncio.open_connection("127.0.0.1", port) for _ in range(4)]
            ended = [await is_closed(reader) for reader, _ in lines]
            for _, writer in lines:
                writer.close()
            return ended

    assert asyncio.run(run()) == [False] * 4


def test_client_that_takes_nothing_of_an_answer_is_dropped(make_server):
    """It asks for a recording and reads nothing: its connection is closed, and one that only waits is not."""
    server = make_server(max_stall_s=1)
    server.samples = [Sample("long.wav", "", bytes(20_000_000), "audio/wav")]

    async def run():
        async with listening(server) as (port, listener):
            greedy = socket.socket()
            greedy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            greedy.connect(("127.0.0.1", port))
            greedy.sendall(f"GET /samples/long.wav HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
            async with aiohttp.ClientSession() as client:
                url = f"http://127.0.0.1:{port}/health"
                await client.get(url)
                (patient,) = {id(line) for line in listener._open if line.getpeername() != greedy.getsockname()}
                await until(lambda: all(line.fileno() < 0 or id(line) == patient for line in listener._open))
                assert (await client.get(url)).status == 200
            greedy.close()

    asyncio.run(run())
