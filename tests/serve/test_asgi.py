"""What a serving framework hands on by ASGI reaches the server as it came, and the server's answer its client."""

import asyncio
import contextlib
import io
import json

import pytest
import soundfile
from wire import END, RATE, expected_output, noise, running, start, until

from echostream.audio.output import to_s16le
from echostream.serve.access import Access, proxy_network
from echostream.serve.asgi import Passage
from echostream.serve.limits import Limits

TOKEN = "a-token-for-this-server-alone"
WAVE = noise(2.0, 3)
OPTIONS = {"segment_ms": 160, "policy": "fixed-rate", "task": "s2st"}


class Caller:
    """One connection of a framework: what it says, and what it was told."""

    def __init__(self, kind: str, path: str, headers: dict[str, str], client: str, **scope: object) -> None:
        pairs = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        path, _, query = path.partition("?")
        self.scope = {"type": kind, "path": path, "raw_path": path.encode(), "query_string": query.encode()}
        self.scope |= {
            "headers": pairs,
            "client": (client, 1234),
            "extensions": {"websocket.http.response": {}},
            **scope,
        }
        self.said: asyncio.Queue = asyncio.Queue()
        self.told: list[dict] = []

    async def tell(self, message: dict) -> None:
        self.told.append(message)

    def of(self, kind: str) -> list[dict]:
        return [message for message in self.told if message["type"] == kind]

    @property
    def body(self) -> bytes:
        return b"".join(message["body"] for message in self.told if message["type"].endswith("response.body"))

    @property
    def messages(self) -> list[dict]:
        return [json.loads(message["text"]) for message in self.of("websocket.send") if "text" in message]

    @property
    def pcm(self) -> bytes:
        return b"".join(message["bytes"] for message in self.of("websocket.send") if "bytes" in message)


@contextlib.asynccontextmanager
async def passage(server):
    """The application before a running server; gives a function that begins a connection."""
    tasks = []
    async with running(server) as url:
        app = Passage(lambda: int(url.rpartition(":")[2]))
        life = Caller("lifespan", "/", {}, "")
        life.said.put_nowait({"type": "lifespan.startup"})
        living = asyncio.create_task(app(life.scope, life.said.get, life.tell))
        await until(lambda: life.told)

        def call(kind, path, headers=None, client="203.0.113.7", **scope):
            caller = Caller(kind, path, {"Host": "127.0.0.1", **(headers or {})}, client, **scope)
            if kind == "websocket":
                caller.said.put_nowait({"type": "websocket.connect"})
            tasks.append(asyncio.create_task(app(caller.scope, caller.said.get, caller.tell)))
            return caller, tasks[-1]

        yield call
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        life.said.put_nowait({"type": "lifespan.shutdown"})
        await living
        assert life.told[-1]["type"] == "lifespan.shutdown.complete"


def talk(caller: Caller, opening: dict, wave=WAVE, end: bool = True) -> None:
    caller.said.put_nowait({"type": "websocket.receive", "text": json.dumps(opening)})
    for at in range(0, len(wave), 3_000):
        caller.said.put_nowait({"type": "websocket.receive", "bytes": to_s16le(wave[at : at + 3_000]), "text": None})
    if end:
        caller.said.put_nowait({"type": "websocket.receive", "text": json.dumps(END)})


def test_session_through_the_passage_is_that_of_the_server(make_server, translator):
    server = make_server()

    async def run():
        async with passage(server) as call:
            caller, task = call("websocket", "/ws")
            talk(caller, start())
            await until(lambda: caller.of("websocket.close"))
            await task
            return caller

    caller = asyncio.run(run())
    expected = expected_output(translator, WAVE, **OPTIONS)
    words = [word["text"] for message in caller.messages if message["type"] == "output" for word in message["words"]]
    assert caller.told[0] == {"type": "websocket.accept"} and caller.of("websocket.close")[0]["code"] == 1000
    assert caller.pcm == expected.pcm and words == [text for text, _ in expected.words] and words


@pytest.mark.parametrize(
    ("left", "stays"),
    [
        ({"code": 1000, "reason": ""}, False),
        ({"code": 1005, "reason": ""}, False),
        ({"code": 1001, "reason": ""}, True),
        ({"code": 1005}, True),
        ({"code": 1006}, True),
    ],
)
def test_only_a_lost_line_can_be_resumed(make_server, left, stays):
    """As uvicorn says it: 1005 is a close frame without a code, and a connection that was lost too, with no reason."""
    server = make_server()

    async def run():
        async with passage(server) as call:
            caller, task = call("websocket", "/ws")
            talk(caller, start(resumable=True), end=False)
            await until(lambda: any(message["type"] == "output" for message in caller.messages))
            caller.said.put_nowait({"type": "websocket.disconnect", **left})
            await asyncio.wait_for(task, 10)
            await until(lambda: not server.sessions)
            return len(server.resumable)

    assert asyncio.run(run()) == stays


def test_line_that_the_server_drops_ends_without_a_close_frame(make_server):
    server = make_server()

    async def run():
        async with passage(server) as call:
            caller, task = call("websocket", "/ws")
            talk(caller, start(), end=False)
            await until(lambda: server.sessions)
            next(iter(server.sessions))._abort()
            await asyncio.wait_for(task, 10)
            return caller

    assert not asyncio.run(run()).of("websocket.close")


def test_names_tokens_and_addresses_reach_the_server(make_server):
    server = make_server(max_sessions_per_address=1)
    server.access = Access([], [], [TOKEN], [proxy_network("127.0.0.1")])
    bearer = {"Authorization": f"Bearer {TOKEN}"}

    async def run():
        async with passage(server) as call:

            async def answer(*args, **options):
                caller, task = call(*args, **options)
                await asyncio.wait_for(task, 10)
                return caller

            foreign = await answer("http", "/config", {"Host": "evil.example"}, method="GET")
            page = await answer("http", "/?a=%2Fb", method="GET")
            star = await answer("http", "*", method="GET")
            refused = await answer("websocket", "/ws", {"Origin": "https://evil.example"})
            wrong = await answer("websocket", "/ws", {"Authorization": "Bearer nonsense"})
            before = {"X-Forwarded-For": "198.51.100.1"}  # whoever says so is not believed
            call("websocket", "/ws", {**bearer, **before})
            await until(lambda: server.sessions)
            second = await answer("websocket", "/ws", bearer)
            call("websocket", "/ws", bearer, client="203.0.113.8")
            await until(lambda: len(server.sessions) == 2)
            return foreign, page, star, refused, wrong, second, sorted(server.sessions.values())

    foreign, page, star, refused, wrong, second, addresses = asyncio.run(run())
    assert foreign.told[0]["status"] == 403 and b"--allow-origin https://evil.example" in foreign.body
    assert page.told[0]["status"] == 200 and b"EchoStream" in page.body
    names = [name for name, _ in page.told[0]["headers"]]
    assert b"content-security-policy" in names and not {b"date", b"server", b"connection"} & set(names)
    assert star.told[0]["status"] == 404
    assert refused.told[0]["status"] == 403 and wrong.told[0]["status"] == 401
    assert (b"www-authenticate", b'Bearer realm="EchoStream"') in wrong.told[0]["headers"]
    assert second.of("websocket.close")[0]["code"] == 1013 and addresses == ["203.0.113.7", "203.0.113.8"]


def test_file_is_answered_as_it_is_translated(make_server):
    server = make_server()
    file = io.BytesIO()
    soundfile.write(file, WAVE, RATE, format="WAV")
    parts = b'--x\r\nContent-Disposition: form-data; name="stream"\r\n\r\ntrue\r\n'
    parts += b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
    content = parts + file.getvalue() + b"\r\n--x--\r\n"
    kind = {"Content-Type": "multipart/form-data; boundary=x"}

    async def run(headers):
        async with passage(server) as call:
            caller, task = call("http", "/v1/audio/translations", kind | headers, method="POST")
            for at in range(0, len(content), 10_000):
                piece = content[at : at + 10_000]
                caller.said.put_nowait({"type": "http.request", "body": piece, "more_body": at + 10_000 < len(content)})
            await asyncio.wait_for(task, 20)
            return caller

    for headers in ({"Content-Length": str(len(content))}, {"Transfer-Encoding": "chunked"}):
        caller = asyncio.run(run(headers))
        assert caller.told[0]["status"] == 200 and len(caller.of("http.response.body")) > 2
        assert b"transcript.text.delta" in caller.body and b"transcript.text.done" in caller.body


def test_limits_of_the_server_hold(make_server):
    server = make_server(max_message_kb=1)
    assert isinstance(server.limits, Limits)

    async def run():
        async with passage(server) as call:
            caller, task = call("websocket", "/ws")
            caller.said.put_nowait({"type": "websocket.receive", "text": json.dumps(start())})
            caller.said.put_nowait({"type": "websocket.receive", "bytes": bytes(2_000)})
            await asyncio.wait_for(task, 10)
            return caller

    caller = asyncio.run(run())
    assert caller.messages[-1]["type"] == "error" and caller.of("websocket.close")[0]["code"] == 1009
