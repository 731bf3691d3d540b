"""A real server with clients that send random messages: documented answers, and no effect on other sessions."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging

import aiohttp
import pytest
from budget import DEEP, cases
from hypothesis import event, example, given
from hypothesis import strategies as st
from tiny_translator import make_translator, noise
from wire import (
    END,
    Received,
    assert_output,
    connected,
    expected_output,
    receive_all,
    running,
    start,
    translate,
    until,
)

from echostream.audio.output import to_s16le
from echostream.serve.app import Server
from echostream.serve.limits import Limits
from echostream.serve.protocol import CloseCode, Settings

TIMEOUT_S = 120  # of one case on a busy machine; a case takes a tenth of a second
SETTINGS = {"segment_ms": 160, "policy": "fixed-rate", "task": "s2st"}
BYSTANDER = noise(0.7, 9)
PCM = to_s16le(noise(0.4))
KINDS = ("ready", "output", "done", "error")

good_starts = st.builds(
    start,
    sample_rate=st.sampled_from([16_000, 16_000, 8_000, 44_100, 192_000]),
    segment_ms=st.sampled_from([40, 160, 5_120]),
    task=st.sampled_from(["s2st", "s2tt", "asr"]),
)
pieces = st.builds(lambda size: PCM[: 2 * size], st.integers(0, len(PCM) // 2))
halves = st.builds(lambda size: PCM[: 2 * size + 1], st.integers(0, 3_000))
NO_RATE = '{"type": "start", "sample_rate": null}'
TOO_DEEP = '{"type": "start", "sample_rate": 16000, "version": ' + "[" * 985 + "]" * 985 + "}"
BAD_TEXTS = ["", "{", "null", "[1]", "é" * 30, "[" * 990 + "]" * 990, '{"type": 3}', '{"type": "sing"}', "9" * 5_000]
BAD_TEXTS += [
    '{"type": "resume"}',
    '{"type": "resume", "resume_token": "0", "seq": 0}',
    '{"type": "start"}',
    NO_RATE,
    TOO_DEEP,
    '{"type": "start", "sample_rate": 16000.0}',
    "\0",
]
BAD_TEXTS += ['{"type": "start", "sample_rate": 16000, "segment_ms": 50}', '{"type": "start", "\\ud800": 1}']
bad_texts = st.sampled_from(BAD_TEXTS) | st.text(max_size=30)
huge = st.sampled_from([bytes(20_002), "x" * 20_001])  # the limit is 10 kB here
things = st.one_of(good_starts, *[pieces] * 4, st.just(END), halves, bad_texts, huge)
scripts = st.tuples(
    st.lists(good_starts, max_size=1).flatmap(
        lambda first: st.lists(things, max_size=6).map(lambda rest: [*first, *rest])
    ),
    st.sampled_from(["end", "stay", "close", "abort"]),
)


@pytest.fixture(scope="module")
def translator():
    return make_translator("istft")


def make_server(translator) -> Server:
    limits = Limits(max_speed=1e9, max_messages_per_s=1e6, max_buffer_s=60, max_message_kb=10)
    return Server(translator, Settings(**SETTINGS), limits, name="tiny")


def expected_codes(script: list) -> set[int]:
    """The close codes that docs/protocol.md allows, read off the messages alone; none: the session goes on."""
    started = ended = False
    late: set[int] = set()
    for message in script:
        if isinstance(message, bytes | str) and len(message) > 10_000:
            return late | {CloseCode.TOO_BIG}
        bad = isinstance(message, str)
        if isinstance(message, bytes):
            bad = not started or ended or len(message) % 2
        elif isinstance(message, dict) and message["type"] == "start":
            bad, started = started, True
        elif isinstance(message, dict):
            bad, ended = not started, True
        if bad:
            return late | {CloseCode.BAD_MESSAGE}
        if ended:
            late = {CloseCode.DONE}  # may already have been sent when the next message arrives
    return {CloseCode.DONE} if ended else set()


def check_grammar(received: Received, allowed: set[int]) -> None:
    """Check the order ``ready output* (done | error) close``."""
    kinds = [message["type"] for message in received.messages]
    assert set(kinds) <= set(KINDS) and received.code in allowed, (received.code, allowed, received.messages)
    assert kinds.count("ready") <= 1 and "ready" not in kinds[1:] and kinds[-1] in ("done", "error")
    assert not {"done", "error"} & set(kinds[:-1]) and ("output" not in kinds or kinds[0] == "ready")
    assert received.last["code"] == received.code
    assert (kinds[-1] == "done") == (received.code == CloseCode.DONE)
    times = [output["source_s"] for output in received.of("output")]
    assert times == sorted(times)


async def misbehave(url: str, script: list, ending: str, over: asyncio.Event) -> None:
    """Send all messages; a session that is still open then stays until the others have ended."""
    if ending == "end":
        script = [*script, END]
    async with connected(url) as connection:
        with contextlib.suppress(ConnectionError):  # it may have been closed meanwhile
            for message in script:
                if isinstance(message, bytes):
                    await connection.send_bytes(message)
                else:
                    await connection.send_str(message if isinstance(message, str) else json.dumps(message))
        if ending == "abort":
            connection._response.connection.transport.abort()
        elif ending == "close":
            await connection.close()
        elif allowed := expected_codes(script):
            check_grammar(await receive_all(connection), allowed)
        else:
            await over.wait()


async def undisturbed(server: Server, url: str, others: list, translator, over: asyncio.Event) -> None:
    """Run all ``others`` and one valid session at once; checks its output, and that nothing leaks."""

    async def bystander() -> Received:
        received = await translate(url, BYSTANDER, **SETTINGS)
        over.set()
        return received

    async with asyncio.timeout(TIMEOUT_S):
        received, *_ = await asyncio.gather(bystander(), *others)
        await until(lambda: not server.sessions and not server.batcher.streams)
    assert_output(received, expected_output(translator, BYSTANDER, **SETTINGS))
    value = server.metrics.registry.get_sample_value
    assert value("echostream_sessions") == 0 and value("echostream_waiting_audio_seconds") == 0


def quiet(caplog) -> None:
    """Check that the server has no errors, tracebacks or unfinished tasks."""
    assert not [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR or record.exc_info]
    caplog.clear()


@cases(30)
@given(st.lists(scripts, min_size=1, max_size=4))
@example([([NO_RATE], "stay"), ([TOO_DEEP], "stay")])
@example([([start(), PCM, END, PCM[:33]], "stay"), ([start(), PCM], "stay"), ([], "stay")])
def test_clients_with_random_messages(translator, caplog, clients):
    async def run():
        server, over = make_server(translator), asyncio.Event()
        async with running(server) as url:
            await undisturbed(server, url, [misbehave(url, *client, over) for client in clients], translator, over)

    asyncio.run(run(), debug=DEEP)
    quiet(caplog)
    event(f"{len(clients)} clients")


def frame(opcode: int, data: bytes, fin: bool = True, rsv: int = 0, masked: bool = True, length: int = -1) -> bytes:
    """A WebSocket frame (RFC 6455, section 5.2), which may be invalid."""
    size = len(data) if length < 0 else length
    head = bytes([fin << 7 | rsv << 4 | opcode, masked << 7 | 127]) + (size % 2**64).to_bytes(8, "big")
    return head + (bytes(4) if masked else b"") + data


GOOD_START = frame(1, json.dumps(start()).encode())
frames = st.builds(
    frame,
    st.integers(0, 15),
    st.binary(max_size=130) | st.sampled_from([json.dumps(start()).encode(), PCM[:1_000], b"\xff\xfe", b"\x03"]),
    fin=st.booleans(),
    rsv=st.sampled_from([0, 0, 0, 0, 1, 4, 7]),
    masked=st.sampled_from([True, True, True, False]),
    length=st.sampled_from([-1, -1, -1, -1, 0, 1, 65_536, 2**31, 2**63 - 1, 2**63, 2**64 - 1]),
)
wires = st.tuples(
    st.booleans(),
    st.lists(frames | st.binary(max_size=60), max_size=5),
    st.integers(1, 2_000),  # bytes written at a time
)


async def write_bytes(url: str, with_start: bool, sent: list[bytes], at_once: int) -> None:
    """Do the handshake, write, end the output, and read until the connection closes."""
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(
        f"GET /ws HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
    )
    assert b" 101 " in await reader.readuntil(b"\r\n\r\n")
    stream = b"".join([GOOD_START] * with_start + sent)
    with contextlib.suppress(ConnectionError):
        for at in range(0, len(stream), at_once):
            writer.write(stream[at : at + at_once])
            await writer.drain()
        writer.write_eof()
    answer = b""
    with contextlib.suppress(ConnectionError):
        while part := await reader.read(65_536):
            answer += part
    writer.close()
    assert set(close_codes(answer)) <= {1002, 1007, *CloseCode}


def close_codes(answer: bytes) -> list[int]:
    """Codes of the close frames in the output of the server, whose last frame may be incomplete."""
    codes, at = [], 0
    while at + 2 <= len(answer):
        opcode, size, at = answer[at] & 15, answer[at + 1] & 127, at + 2
        wide = {126: 2, 127: 8}.get(size, 0)
        size = int.from_bytes(answer[at : at + wide], "big") if wide else size
        data, at = answer[at + wide : at + wide + size], at + wide + size
        assert opcode in (1, 2, 8, 9, 10), "text, binary, close, ping, pong"
        if opcode == 8 and len(data) >= 2:
            codes.append(int.from_bytes(data[:2], "big"))
    return codes


@cases(40)
@given(st.lists(wires, min_size=1, max_size=4))
@example([(True, [frame(1, b"", length=2**64 - 1)], 2_000)])
@example([(True, [frame(8, b"\x03")], 2_000), (True, [frame(1, b"\xff\xfe")], 1)])
def test_random_bytes(translator, caplog, clients):
    async def run():
        server = make_server(translator)
        async with running(server) as url:
            others = [write_bytes(url, *client) for client in clients]
            await undisturbed(server, url, others, translator, asyncio.Event())

    asyncio.run(run(), debug=DEEP)
    quiet(caplog)


header_values = st.sampled_from(
    ["[", "[::1", "http://[", "http://[::1", "null", "", "//", "http://\\", "localhost", "127.0.0.1:x", "a" * 3_000]
) | st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=20)
paths = st.sampled_from(["/", "/ws", "/config", "/health", "/metrics", "/static/app.js", "/static/../app.py"]) | (
    st.text(st.characters(min_codepoint=33, max_codepoint=126, blacklist_characters="#"), max_size=20).map("/{}".format)
)
methods = st.sampled_from(["GET", "POST", "PUT"])
requests = st.tuples(paths, header_values | st.none(), header_values | st.none(), methods)


async def ask(url: str, path: str, host: str | None, origin: str | None, method: str) -> int:
    """Status of one request with unchanged headers."""
    address, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(address, int(port))
    lines = [f"{method} {path} HTTP/1.1", f"Host: {address if host is None else host}", "Connection: close"]
    lines += [] if origin is None else [f"Origin: {origin}"]
    lines += ["Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: x"] if path == "/ws" else []
    writer.write("\r\n".join([*lines, "", ""]).encode())
    status = int((await reader.readline()).split()[1])
    await reader.read()
    writer.close()
    return status


@cases(40)
@given(st.lists(requests, min_size=1, max_size=10))
@example([("/", "[", None, "GET"), ("/ws", None, "http://[", "GET"), ("/ws", None, "null", "GET")])
def test_random_requests(translator, caplog, asked):
    async def run():
        server = make_server(translator)
        server.access.hosts = ()
        async with running(server) as url, asyncio.timeout(TIMEOUT_S), aiohttp.ClientSession() as client:
            statuses = await asyncio.gather(*(ask(url, *request) for request in asked))
            async with client.get(f"{url}/health") as health:
                assert health.status == 200 and (await health.json())["sessions"] == 0
        assert all(status < 500 for status in statuses), list(zip(asked, statuses, strict=True))

    asyncio.run(run())
    quiet(caplog)
