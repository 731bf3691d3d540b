"""Sessions that outlive their connection and their server: no word is lost, none comes twice."""

import asyncio
import contextlib

import aiohttp
import numpy as np
import pytest
from wire import END, RATE, Received, connected, expected_output, noise, receive_all, running, send_all, start, until

from echostream.audio.output import to_s16le
from echostream.serve.access import proxy_network
from echostream.serve.journal import Entry, Journal
from echostream.serve.protocol import CloseCode
from echostream.serve.resampler import Resampler
from echostream.serve.session_store import LostSessionError, SessionStore

SETTINGS = {"segment_ms": 160, "policy": "fixed-rate", "task": "s2st"}
WAVE = noise(4.0, 5)
NO_TOKEN = "0" * 32


@pytest.fixture
def store(tmp_path):
    return lambda **facts: SessionStore(tmp_path / "sessions", **{"max_age_s": 60, "fingerprint": "tiny", **facts})


def resume(token: str, seq: int, **fields: object) -> dict:
    return {"type": "resume", "version": 1, "resume_token": token, "seq": seq, **fields}


class Talker:
    """A client that keeps what it has received over several connections."""

    def __init__(self, wave: np.ndarray = WAVE, rate: int = RATE, address: str = "") -> None:
        self.pcm, self.rate = to_s16le(wave), rate
        self.headers = {"X-Forwarded-For": address} if address else {}
        self.heard = Received()
        self.opening: dict = {}
        self.token, self.position = "", 0

    @property
    def seq(self) -> int:
        outputs = self.heard.of("output")
        return outputs[-1]["seq"] if outputs else 0

    @contextlib.asynccontextmanager
    async def connect(self, url: str):
        """Start or go on; the connection is lost at the end."""
        async with aiohttp.ClientSession() as client:
            socket = await client.ws_connect(f"{url}/ws", max_msg_size=0, headers=self.headers)
            await socket.send_json(
                resume(self.token, self.seq) if self.token else start(sample_rate=self.rate, resumable=True)
            )
            self.opening = await socket.receive_json()
            self.token = self.opening.get("resume_token", self.token)
            self.position = self.opening.get("received_samples", 0)
            yield socket
            if socket._response.connection is not None:  # it was not closed in order
                socket._response.connection.transport.abort()

    async def send(self, socket, until_s: float) -> None:
        end = round(until_s * self.rate)
        for at in range(self.position, end, 2_000):
            await socket.send_bytes(self.pcm[2 * at : 2 * min(at + 2_000, end)])
        self.position = end

    async def take(self, socket, until_s: float) -> None:
        """Receive whole outputs, until that much of the source has been translated."""
        while not self.heard.of("output") or self.heard.of("output")[-1]["source_s"] < until_s:
            output = await asyncio.wait_for(socket.receive_json(), 30)
            speech = await socket.receive_bytes() if output["samples"] else b""
            self.heard.messages.append(output)
            self.heard.pcm += speech

    async def finish(self, socket) -> None:
        """Send the rest and receive all."""
        await self.send(socket, len(self.pcm) / 2 / self.rate)
        await socket.send_json(END)
        rest = await receive_all(socket)
        self.heard.messages += rest.messages
        self.heard.pcm += rest.pcm
        self.heard.code = rest.code

    def check(self, translator, tolerance: int = 0) -> None:
        """Everything came, once and in order, as without any interruption."""
        wave = np.frombuffer(self.pcm, "<i2").astype(np.float32) / 32768
        resampled = np.concatenate([(to := Resampler(self.rate, RATE)).push(wave), to.push(wave[:0], is_last=True)])
        expected = expected_output(translator, resampled, **SETTINGS)
        assert self.heard.code == 1000 and self.heard.last["type"] == "done"
        assert expected.words and self.heard.words("words") == expected.words
        assert self.heard.words("source_words") == expected.source_words
        got, wanted = (np.frombuffer(pcm, "<i2").astype(int) for pcm in (self.heard.pcm, expected.pcm))
        assert got.shape == wanted.shape and np.abs(got - wanted).max() <= tolerance
        assert [output["seq"] for output in self.heard.of("output")] == list(range(1, self.seq + 1))
        assert self.heard.last["speech_s"] == pytest.approx(len(wanted) / RATE, abs=1e-3)


def test_lost_connection_costs_nothing(make_server, translator):
    server, talker = make_server(), Talker()

    async def run():
        async with running(server) as url:
            async with talker.connect(url) as socket:
                assert talker.opening["type"] == "ready" and talker.opening["received_samples"] == 0
                await talker.send(socket, 1.7)
                await talker.take(socket, 0.5)  # much of what the server sends is lost
            await until(lambda: not server.sessions)
            (session,) = server.resumable.values()
            assert session.connection is None
            async with talker.connect(url) as socket:
                assert talker.opening["type"] == "resumed" and talker.opening["session"] == session.id
                assert 0 < talker.position <= 1.7 * RATE, "what arrived is not asked for again"
                await talker.take(socket, 0.9)
            async with talker.connect(url) as socket:
                await talker.finish(socket)
            await until(lambda: not server.sessions)
            talker.check(translator)
            return await send_all(url, resume(talker.token, talker.seq))

    last = asyncio.run(run())
    assert last.messages[0]["type"] == "resumed" and last.last["type"] == "done", "the end can be asked for again"


def test_connection_that_still_seems_open_is_replaced(make_server, translator):
    """As after a change of network, where the server does not notice the loss."""
    server, talker = make_server(), Talker()

    async def run():
        async with running(server) as url:
            async with talker.connect(url) as first:
                await talker.send(first, 1.0)
                async with talker.connect(url) as second:
                    left = await receive_all(first)
                    await talker.finish(second)
            return left

    left = asyncio.run(run())
    talker.check(translator)
    assert left.code == CloseCode.TAKEN_OVER == left.last["code"]


@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_another_server_goes_on_after_a_crash(make_server, translator, store, rate, monkeypatch, caplog):
    """The first server is not asked: what it had saved last, and the client's buffer, are enough."""
    monkeypatch.setattr("echostream.serve.session.SAVE_S", 0.0)
    talker = Talker(noise(4.0, 5, rate), rate)

    def nothing_is_saved(*_):
        raise OSError("no space left")

    async def run():
        first, second = make_server(), make_server()
        first.store, second.store = store(), store()
        async with running(first) as url, running(second) as other_url:
            async with talker.connect(url) as socket:
                await talker.send(socket, 1.3)
                await talker.take(socket, 1.0)
                await until(lambda: next(iter(first.resumable.values())).saved_samples > rate)
                first.store.save = nothing_is_saved  # it is dead: not even the loss of the connection is noted
                await talker.send(socket, 2.3)
                await talker.take(socket, 1.9)
            async with talker.connect(other_url) as socket:
                assert talker.opening["type"] == "resumed"
                assert rate < talker.position <= 1.3 * rate, "from the acknowledged audio on it is sent again"
                await talker.finish(socket)
        return talker.heard

    heard = asyncio.run(run())
    talker.check(translator, tolerance=0 if rate == RATE else 1)
    assert caplog.text.count("could not be saved: no space left") == 1, "once a session, however often it is tried"
    acknowledged = [output["acknowledged_samples"] for output in heard.of("output")]
    assert acknowledged == sorted(acknowledged) and acknowledged[-1] > 0


def test_stopping_server_translates_what_it_has_heard_and_saves(make_server, translator, store, tmp_path):
    talker = Talker()

    async def run():
        first = make_server(segment_ms=160)
        first.store = store()
        async with running(first) as url, talker.connect(url) as socket:
            await talker.send(socket, 3.3)  # most of it is still waiting
            await until(lambda: next(iter(first.resumable.values())).received_samples == round(3.3 * RATE))
            draining = asyncio.create_task(first.drain())
            await asyncio.sleep(0)
            async with aiohttp.ClientSession() as client:
                assert (await client.get(f"{url}/health")).status == 503
                refused = await client.get(f"{url}/ws", headers={"Connection": "Upgrade", "Upgrade": "websocket"})
                assert refused.status == 503 and refused.headers["Retry-After"]
            left = await receive_all(socket)
            await draining
            assert not first.sessions and not first.resumable
        talker.heard.messages, talker.heard.pcm = left.of("output"), left.pcm
        assert left.code == CloseCode.RESTARTING and left.last["type"] == "suspended"
        assert left.last["acknowledged_samples"] == round(3.3 * RATE)
        assert talker.heard.last["source_s"] > 3.0, "what was heard was translated before"
        second = make_server()
        second.store = store()
        async with running(second) as url, talker.connect(url) as socket:
            assert talker.position == round(3.3 * RATE)
            await talker.finish(socket)
            assert not list((tmp_path / "sessions").glob("*.session")), "a session that is over is deleted"

    asyncio.run(run())
    talker.check(translator)


def test_server_without_a_store_translates_all_it_has_heard(make_server, translator):
    """Also sessions that can't be resumed lose no word when the server stops."""
    server = make_server(max_buffer_s=60)

    async def run():
        async with running(server) as url, connected(url) as socket:
            await socket.send_json(start())
            pcm = to_s16le(noise(10.0))
            for at in range(0, len(pcm), 200_000):
                await socket.send_bytes(pcm[at : at + 200_000])
            await until(lambda: server.batcher.streams and next(iter(server.batcher.streams)).waiting_s > 5)
            received, heard_s = asyncio.create_task(receive_all(socket)), 10.0
            await until(lambda: next(iter(server.sessions)).session.received_samples == round(heard_s * RATE))
            await server.drain()
            return await received

    received = asyncio.run(run())
    assert received.code == CloseCode.GOING_AWAY and received.last["type"] == "done"
    expected = expected_output(translator, noise(10.0), **SETTINGS)
    assert received.words("words") == expected.words and len(expected.words) > 20
    assert received.pcm == expected.pcm


@pytest.mark.parametrize(
    ("message", "code", "said"),
    [
        (resume(NO_TOKEN, 0), CloseCode.GONE, "can't be resumed"),
        (resume("../../etc/passwd", 0), CloseCode.BAD_MESSAGE, "resume_token"),
        (resume(NO_TOKEN, -1), CloseCode.BAD_MESSAGE, "seq must be a whole number"),
        ({"type": "resume", "resume_token": NO_TOKEN}, CloseCode.BAD_MESSAGE, "seq must be"),
        (resume(NO_TOKEN, 0, sample_rate=16_000), CloseCode.BAD_MESSAGE, 'unknown field "sample_rate" in resume'),
        (start(resumable=1), CloseCode.BAD_MESSAGE, "resumable must be true or false"),
    ],
)
def test_what_can_not_be_resumed(make_server, store, message, code, said):
    async def run():
        server = make_server()
        server.store = store()
        async with running(server) as url:
            return await send_all(url, message)

    received = asyncio.run(run())
    assert received.code == code and said in received.last["message"]


def test_client_that_stays_away_is_forgotten(make_server, store, tmp_path):
    talker = Talker()

    async def run():
        server = make_server(max_away_s=0.3)
        server.store = store(max_age_s=0.3)
        async with running(server) as url:
            async with talker.connect(url) as socket:
                await talker.send(socket, 1.0)
            await until(lambda: server.resumable and not server.sessions)
            await until(lambda: not server.resumable)
            assert not server.batcher.streams and not list((tmp_path / "sessions").glob("*.session"))
            return await send_all(url, resume(talker.token, 0))

    assert asyncio.run(run()).code == CloseCode.GONE


def test_client_that_says_goodbye_is_not_waited_for(make_server):
    async def run():
        server = make_server()
        async with running(server) as url:
            async with connected(url) as socket:
                await socket.send_json(start(resumable=True))
                await socket.receive_json()
                await socket.close()
            await until(lambda: not server.sessions)
            assert not server.resumable and not server.batcher.streams

    asyncio.run(run())


def test_page_that_goes_away_may_come_back(make_server):
    """Browsers close with 1001 when a page is loaded again."""

    async def run():
        server = make_server()
        async with running(server) as url:
            for resumable in (True, False):
                async with connected(url) as socket:
                    await socket.send_json(start(resumable=resumable))
                    await socket.receive_json()
                    await socket.close(code=CloseCode.GOING_AWAY)
                await until(lambda: not server.sessions)
                assert len(server.resumable) == len(server.batcher.streams) == 1  # the first one alone
            (token,) = server.resumable
            async with connected(url) as socket:
                await socket.send_json(resume(token, 0))
                assert (await socket.receive_json())["type"] == "resumed"

    asyncio.run(run())


def test_clients_that_are_away_are_as_many_as_places(make_server):
    async def run():
        server = make_server(max_sessions=2)
        async with running(server) as url:
            talkers = [Talker() for _ in range(5)]
            for talker in talkers:
                async with talker.connect(url) as socket:
                    await talker.send(socket, 0.5)
                await until(lambda: not server.sessions)
            assert list(server.resumable) == [talker.token for talker in talkers[-2:]]

    asyncio.run(run())


def test_one_address_that_goes_away_again_and_again_pushes_out_nobody_else(make_server):
    async def run():
        server = make_server(max_sessions=3, max_sessions_per_address=2)
        server.access.proxies = [proxy_network("127.0.0.1")]
        patient, *busy = (Talker(address=f"198.51.100.{number}") for number in (1, 2, 2, 2, 2, 2))
        async with running(server) as url:
            for talker in (patient, *busy):
                async with talker.connect(url) as socket:
                    await talker.send(socket, 0.5)
                await until(lambda: not server.sessions)
            assert list(server.resumable) == [talker.token for talker in (patient, *busy[-2:])]
            async with patient.connect(url):
                assert patient.opening["type"] == "resumed"

    asyncio.run(run())


def test_other_model_does_not_go_on(make_server, store, caplog):
    talker = Talker()

    async def run():
        first, second = make_server(), make_server()
        first.store, second.store = store(), store(fingerprint="another")
        async with running(first) as url, running(second) as other_url:
            async with talker.connect(url) as socket:
                await talker.send(socket, 1.0)
                await until(lambda: next(iter(first.resumable.values())).was_saved)
            return await send_all(other_url, resume(talker.token, 0))

    assert asyncio.run(run()).code == CloseCode.GONE
    assert "of another model" in caplog.text


def test_store_belongs_to_the_last_who_claimed(store):
    first, second = store(), store()
    first.save(NO_TOKEN, {"a": 1}, is_first=True)
    assert first.touch(NO_TOKEN) and not second.touch(NO_TOKEN)
    assert second.claim(NO_TOKEN) == {"a": 1}
    with pytest.raises(LostSessionError):
        first.save(NO_TOKEN, {"a": 2})
    first.delete(NO_TOKEN)
    second.save(NO_TOKEN, {"a": 3})
    assert first.claim(NO_TOKEN) == {"a": 3}
    assert first.folder.stat().st_mode & 0o77 == 0
    assert all(path.stat().st_mode & 0o77 == 0 and NO_TOKEN not in path.name for path in first.folder.iterdir())


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 22_050, 44_100, 48_000, 192_000])
@pytest.mark.parametrize("cut_s", [0.0001, 0.1, 0.26, 1.345])
def test_resampler_goes_on(rate, cut_s):
    samples, cut = noise(2.0, 1, rate), int(rate * cut_s)
    whole = Resampler(rate, RATE)
    expected = np.concatenate([whole.push(samples), whole.push(samples[:0], is_last=True)])
    first = Resampler(rate, RATE)
    before = [first.push(samples[at : min(at + 441, cut)]) for at in range(0, cut, 441)]
    second = Resampler(rate, RATE, first.history, first.heard_samples, first.given_samples)
    joined = np.concatenate([*before, second.push(samples[cut:]), second.push(samples[:0], is_last=True)])
    assert joined.shape == expected.shape and np.abs(joined - expected).max() < 5e-7


def test_journal_knows_what_it_has_dropped():
    journal = Journal(1_000)
    for seq in range(1, 11):
        journal.add(Entry(seq, {"seq": seq}, bytes(200)))
    assert [entry.seq for entry in journal.since(7, 10)] == [8, 9, 10]
    assert journal.since(10, 10) == [] == journal.since(12, 10)
    assert journal.since(2, 10) is None
