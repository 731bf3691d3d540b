"""A session that exceeds a limit ends with a close code and a message, and does not affect other sessions."""

import asyncio
import contextlib
import json

import numpy as np
import pytest
from wire import (
    END,
    RATE,
    LazyClient,
    assert_output,
    connected,
    expected_output,
    noise,
    receive_all,
    running,
    send_all,
    start,
    translate,
    until,
)

from echostream.audio.output import to_s16le
from echostream.serve.limits import Limits, Meter
from echostream.serve.outbox import Outbox
from echostream.serve.protocol import CloseCode, close_reason

PCM = to_s16le(noise(0.5))


def talk(server, *messages):
    async def run():
        async with running(server) as url:
            return await send_all(url, *messages)

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        (["hello"], "must be JSON"),
        (["[" * 5_000], "must be JSON"),
        (["[1]"], 'object with a "type"'),
        (['{"type": 3}'], 'object with a "type"'),
        ([{"type": "sing"}], '"start", "resume" or "end"'),
        ([PCM], 'first message must be a "start"'),
        ([END], 'first message must be a "start"'),
        ([start(), start()], "started already"),
        ([start(), PCM[:33]], "whole 16-bit samples, got 33 bytes"),
        ([start(version=2)], "version 1 of the protocol, not 2"),
        ([{"type": "start"}], "sample_rate in Hz"),
        ([start(sample_rate=4_000)], "sample_rate must be a whole number from 8000 to 192000, got 4000"),
        ([start(sample_rate="16000")], "sample_rate must be a whole number"),
        ([start(sample_rate=True)], "sample_rate must be a whole number"),
        ([start(format="opus")], 'the format must be pcm_s16le, got "opus"'),
        ([start(segment_ms=50)], "multiple of 40"),
        ([start(segment_ms=0)], "segment_ms must be a whole number from 40"),
        ([start(segment_ms=None)], "segment_ms must be a whole number"),
        (
            [start(policy="guess")],
            'policy must be one of alignment, token-alignment, stride, wait-k, alignatt, fixed-rate, got "guess"',
        ),
        ([start(policy=["x" * 99])], "policy must be one of"),
        ([start(policy="wait-k", lag_k=0)], "wait-k needs lag_k of at least 1"),
        ([start(task="tts")], "task must be one of"),
        ([start(volume=11)], 'unknown field "volume"'),
    ],
)
def test_errors_describe_invalid_messages(make_server, messages, said):
    received = talk(make_server(), *messages)
    assert received.code == CloseCode.BAD_MESSAGE == received.last["code"]
    assert received.last["type"] == "error" and said in received.last["message"]


def test_audio_after_the_end_is_rejected(make_server):
    received = talk(make_server(), start(), PCM, END, PCM)
    assert received.code == CloseCode.BAD_MESSAGE and "after the end" in received.last["message"]


def test_message_that_is_too_big(make_server):
    received = talk(make_server(max_message_kb=10), start(), bytes(10_002))
    assert received.code == CloseCode.TOO_BIG and "10 kB" in received.last["message"]
    received = talk(make_server(max_message_kb=10), start(), bytes(1_000_000))  # not even read
    assert received.code == CloseCode.TOO_BIG


def test_session_is_translated_up_to_the_maximum_length(make_server, translator):
    wave = noise(3.0)
    pushes = [to_s16le(wave[at : at + 7_000]) for at in range(0, len(wave), 7_000)]
    received = talk(make_server(max_length_s=1.5), start(), *pushes, END)
    assert received.code == CloseCode.TOO_LONG == received.last["code"] and received.last["type"] == "done"
    assert "1.5 s of audio" in received.last["message"]
    expected = expected_output(translator, wave[: round(1.5 * RATE)], segment_ms=160, policy="fixed-rate", task="s2st")
    assert received.pcm == expected.pcm and received.words("words") == expected.words


def test_idle_session_ends_with_the_translation_so_far(make_server, translator):
    received = talk(make_server(max_idle_s=0.2))
    assert received.code == CloseCode.IDLE and received.last["type"] == "error"
    received = talk(make_server(max_idle_s=0.2), start(), PCM)
    assert received.code == CloseCode.IDLE and received.last["type"] == "done" and "0.2 s" in received.last["message"]
    expected = expected_output(translator, noise(0.5), segment_ms=160, policy="fixed-rate", task="s2st")
    assert received.pcm == expected.pcm and received.words("source_words") == expected.source_words


@pytest.mark.parametrize("messages", [["ping"], ["pong"], [b""]], ids=["pings", "pongs", "empty messages"])
def test_idle_limit_counts_from_the_last_audio(make_server, messages):
    """A client that is there and says nothing does not hold its place for ever."""

    async def run():
        server = make_server(max_idle_s=0.5)
        async with running(server) as url, connected(url) as silent:
            await silent.send_json(start())
            await silent.send_bytes(PCM)
            receiving = asyncio.create_task(receive_all(silent))
            began = asyncio.get_running_loop().time()
            while not receiving.done() and asyncio.get_running_loop().time() - began < 10:
                for message in messages:
                    await (silent.send_bytes(message) if message == b"" else getattr(silent, message)())
                await asyncio.sleep(0.02)
            return await receiving

    received = asyncio.run(run())
    assert received.code == CloseCode.IDLE and received.last["type"] == "done"
    assert "no audio came from the client for 0.5 s" in received.last["message"]


@pytest.mark.parametrize("opcode", [0x9, 0xA, 0x2], ids=["pings", "pongs", "empty messages"])
def test_floods_are_metered_and_hold_nobody_up(make_server, translator, opcode):
    """A hundred thousand frames without content: the flooding client is sent away, its neighbour notices nothing."""
    server = make_server(max_messages_per_s=100)
    wave = noise(1.0, 2)
    flood = bytes([0x80 | opcode, 0x80, 0, 0, 0, 0]) * 100_000

    async def run():
        async with running(server) as url:
            alone_s = await timed(translate(url, wave))
            lazy = await LazyClient.connect(url)
            await lazy.send(start())
            assert json.loads((await lazy.read())[1])["type"] == "ready"
            lazy.writer.write(flood)
            beside_s = await timed(translate(url, wave))
            texts, frame = [], (0, b"")
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                while frame[0] != 8:
                    frame = await lazy.read()
                    texts += [json.loads(frame[1])] if frame[0] == 1 else []
            lazy.writer.close()
            await until(lambda: not server.sessions)
            return texts, alone_s, beside_s

    async def timed(work):
        began = asyncio.get_running_loop().time()
        assert_output(await work, expected_output(translator, wave, segment_ms=160, policy="fixed-rate", task="s2st"))
        return asyncio.get_running_loop().time() - began

    texts, alone_s, beside_s = asyncio.run(run())
    assert texts[-1]["code"] == CloseCode.TOO_FAST and "100 messages a second" in texts[-1]["message"]
    assert beside_s < alone_s + 3, "it took 8 s more once"
    ended = server.metrics.registry.get_sample_value("echostream_sessions_ended_total", {"code": "4429"})
    assert ended == 1


def test_pings_are_answered(make_server):
    async def run():
        async with running(make_server()) as url:
            lazy = await LazyClient.connect(url)
            lazy.writer.write(bytes([0x89, 0x80 | 5, 0, 0, 0, 0]) + b"hello")
            answer = await lazy.read()
            lazy.writer.close()
            return answer

    assert asyncio.run(run()) == (0xA, b"hello")


def test_long_last_output_is_not_dropped(make_server, translator):
    """The end of a source may bring more speech at once than may wait for a slow client."""
    server = make_server(max_unsent_kb=1, segment_ms=5_120)  # nothing comes before the end
    received = talk(server, start(), *[PCM] * 4, END)
    expected = expected_output(translator, np.tile(noise(0.5), 4), segment_ms=5_120, policy="fixed-rate", task="s2st")
    assert_output(received, expected)
    assert len(received.pcm) > 2_000


def test_outbox_counts_bytes():
    async def run():
        outbox = Outbox(None, max_bytes=100, max_stall_s=1)
        sizes = []
        for message in ({"t": "é" * 20}, bytes(40), {"t": "é" * 20}):
            outbox.put(message)
            sizes.append((outbox.unsent_bytes, outbox.is_full))
        return sizes

    size = len(json.dumps({"t": ""})) + 40
    assert asyncio.run(run()) == [(size, False), (size + 40, False), (2 * size + 40, True)]


def test_audio_that_arrives_too_fast(make_server):
    server = make_server(max_speed=2, max_buffer_s=1)
    received = talk(server, start(), *[PCM] * 8)
    assert received.code == CloseCode.TOO_FAST and "2 times as fast" in received.last["message"]


def test_more_audio_than_the_model_can_take(make_server):
    server = make_server(max_buffer_s=2, segment_ms=40)
    received = talk(server, start(), *[to_s16le(noise(1.9))] * 4)
    assert received.code == CloseCode.BUSY and "s of audio wait for the model" in received.last["message"]


def test_more_messages_than_needed(make_server):
    received = talk(make_server(max_messages_per_s=20), start(), *[b""] * 40)
    assert received.code == CloseCode.TOO_FAST and "20 messages a second" in received.last["message"]


def test_one_session_too_many(make_server):
    async def run():
        server = make_server(max_sessions=2)
        async with running(server) as url:
            async with connected(url), connected(url):
                await until(lambda: len(server.sessions) == 2)
                refused = await send_all(url)
            await until(lambda: not server.sessions)
            return refused, await translate(url, noise(0.3))

    refused, later = asyncio.run(run())
    assert refused.code == CloseCode.BUSY and "all 2 sessions" in refused.last["message"]
    assert later.code == 1000


def test_client_that_does_not_read_does_not_affect_others(make_server, translator):
    wave = noise(2.0, 1)
    server = make_server(segment_ms=40, max_unsent_kb=100)

    async def run():
        async with running(server, send_buffer=4_096) as url:
            slow = await LazyClient.connect(url)
            await slow.send(start())
            for seed in range(10):
                await slow.send(to_s16le(noise(1.0, seed)))
            other = await translate(url, wave)  # meanwhile
            await until(lambda: not server.batcher.streams)
            texts, opcode = [], 0
            while opcode != 8:
                opcode, data = await slow.read()
                texts += [json.loads(data)] if opcode == 1 else []
            slow.writer.close()
            return texts, int.from_bytes(data[:2], "big"), other

    texts, code, other = asyncio.run(run())
    assert_output(other, expected_output(translator, wave, segment_ms=40, policy="fixed-rate", task="s2st"))
    assert code == CloseCode.SLOW_CLIENT == texts[-1]["code"] and "100 kB" in texts[-1]["message"]
    assert texts[1]["type"] == "output", "what was sent before arrives"


def test_connection_of_a_client_that_stops_reading_is_aborted(make_server):
    server = make_server(segment_ms=40, max_unsent_kb=100, max_stall_s=0.3)

    async def run():
        async with running(server, send_buffer=4_096) as url:
            lazy = await LazyClient.connect(url)
            await lazy.send(start())
            for seed in range(6):
                await lazy.send(to_s16le(noise(1.0, seed)))
            await until(lambda: server.batcher.streams)
            await until(lambda: not server.sessions)
            assert not server.batcher.streams
            lazy.writer.close()

    asyncio.run(run())
    assert server.metrics.registry.get_sample_value("echostream_sessions_ended_total", {"code": "4499"}) == 1


@pytest.mark.parametrize("name", ["max_sessions", "max_idle_s", "max_speed"])
@pytest.mark.parametrize("value", [float("inf"), 1e10])
def test_limits_must_be_finite(name, value):
    with pytest.raises(ValueError, match=f"--{name.replace('_', '-')} must be at most"):
        Limits(**{name: value})


@pytest.mark.parametrize("name", ["max_sessions", "max_idle_s", "max_speed"])
@pytest.mark.parametrize("value", [0, -1, float("nan")])
def test_limits_must_be_positive(name, value):
    with pytest.raises(ValueError, match=f"--{name.replace('_', '-')} must be positive"):
        Limits(**{name: value})


def test_meter_allows_the_rate_and_a_burst():
    meter = Meter(rate=2, burst=3, now_s=10)
    assert [meter.take(1, 10) for _ in range(4)] == [True, True, True, False]
    assert [meter.take(1, 11) for _ in range(3)] == [True, True, False]
    meter = Meter(rate=2, burst=3, now_s=0)
    assert sum(meter.take(1, 0.25 * tick) for tick in range(1, 101)) in range(50, 55)


def test_close_reason_fits_its_frame_and_is_valid_utf8():
    assert len(close_reason("é" * 100)) <= 123 and close_reason("é" * 100).decode() == "é" * 61
    assert json.loads(json.dumps(close_reason("short").decode())) == "short"
