"""Sessions over real sockets: their output equals that of the translator, also in batches, and nothing leaks."""

import asyncio
import gc

import aiohttp
import numpy as np
import pytest
import soxr
from wire import (
    END,
    RATE,
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
from echostream.serve.app import IDLE_S
from echostream.serve.batcher import Stream
from echostream.serve.resampler import Resampler
from echostream.serve.session import Session

SETTINGS = {"segment_ms": 160, "policy": "fixed-rate", "task": "s2st"}


def test_session_output_equals_that_of_the_translator(make_server, translator):
    samples = noise(2.37)
    expected = expected_output(translator, samples, **SETTINGS)
    assert expected.words and expected.source_words and expected.pcm and expected.sentence_ends

    async def run():
        async with running(make_server()) as url:
            return await translate(url, samples)

    received = asyncio.run(run())
    assert_output(received, expected)
    ready, last = received.messages[0], received.last
    assert ready["type"] == "ready" and ready["output_sample_rate"] == RATE
    assert {name: ready[name] for name in SETTINGS} == SETTINGS
    assert last["type"] == "done" and last["source_s"] == pytest.approx(2.37, abs=1e-3)
    assert last["speech_s"] == pytest.approx(len(expected.pcm) / 2 / RATE, abs=1e-3)
    times = [output["source_s"] for output in received.of("output")]
    assert times == sorted(times) and times[0] < 0.3, "words come while the source goes on"
    assert all(output["reaction_ms"] > 0 and output["rtf"] > 0 for output in received.of("output"))


def test_resampling_does_not_depend_on_message_sizes(make_server, translator):
    source = noise(1.6, rate=44_100)
    samples = soxr.resample(source, 44_100, RATE)
    expected = expected_output(translator, samples, **SETTINGS)

    async def run():
        async with running(make_server()) as url:
            return [await translate(url, source, push, sample_rate=44_100) for push in (441, 10_007)]

    for received in asyncio.run(run()):
        assert_output(received, expected)


@pytest.mark.parametrize(
    "rate", [8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 48_000, 96_000, 176_400, 192_000]
)
def test_every_rate_in_pieces_of_a_few_samples(make_server, translator, rate):
    """A sound card may give 1 sample or 200, and no rate is resampled differently for it."""
    source = noise(0.5, rate=rate)
    whole = Resampler(rate, RATE)
    samples = np.concatenate([whole.push(source), whole.push(source[:0], is_last=True)])
    ends = np.cumsum(np.random.default_rng(rate).integers(1, 201, len(source)))
    pieces = [to_s16le(piece) for piece in np.split(source, ends[ends < len(source)])]

    async def run():
        async with running(make_server()) as url:
            return await send_all(url, start(sample_rate=rate), *pieces, END)

    assert_output(asyncio.run(run()), expected_output(translator, samples, **SETTINGS))


def test_half_a_minute_at_once_and_then_silence(make_server, translator):
    """All of it waits, then nothing but zeros comes: the same words as if it had been heard bit by bit."""
    samples = np.concatenate([noise(30.0), np.zeros(3 * RATE, np.float32)])

    async def run():
        async with running(make_server()) as url:
            return await asyncio.gather(translate(url, samples, 100_000), translate(url, samples, 1_000))

    at_once, in_pieces = asyncio.run(run())
    expected = expected_output(translator, samples, **SETTINGS)
    assert len(expected.words) > 20
    assert_output(at_once, expected)
    assert_output(in_pieces, expected)


def test_batched_sessions_equal_single_sessions(make_server, translator):
    waves = [noise(1.1 + 0.3 * seed, seed) for seed in range(6)]
    expected = [expected_output(translator, wave, **SETTINGS) for wave in waves]
    server = make_server()

    async def run():
        async with running(server) as url:
            return await asyncio.gather(*(translate(url, wave) for wave in waves))

    for received, wanted in zip(asyncio.run(run()), expected, strict=True):
        assert_output(received, wanted)
    sizes = batch_sizes(server)
    assert sizes["sum"] > 1.5 * sizes["count"], "the steps of waiting sessions are batched"


def test_batching_can_be_disabled(make_server, translator):
    server = make_server(max_batch=1)
    wave = noise(1.0)

    async def run():
        async with running(server) as url:
            return await asyncio.gather(*(translate(url, wave) for _ in range(3)))

    for received in asyncio.run(run()):
        assert_output(received, expected_output(translator, wave, **SETTINGS))
    sizes = batch_sizes(server)
    assert sizes["sum"] == sizes["count"]


def test_sessions_with_different_settings_run_concurrently(make_server, translator):
    wave = noise(1.7)
    wishes = [
        {"segment_ms": 320, "policy": "fixed-rate", "task": "s2st"},
        {"segment_ms": 40, "policy": "fixed-rate", "task": "s2tt"},
        {"segment_ms": 160, "policy": "wait-k", "task": "s2tt", "lag_k": 2},
        {"segment_ms": 160, "policy": "alignment", "task": "asr"},
    ]

    async def run():
        async with running(make_server()) as url:
            return await asyncio.gather(*(translate(url, wave, **wish) for wish in wishes))

    for received, wish in zip(asyncio.run(run()), wishes, strict=True):
        assert_output(received, expected_output(translator, wave, **wish))
        assert {name: received.messages[0][name] for name in wish} == wish


def test_long_backlog_does_not_delay_other_sessions(make_server):
    async def run():
        server = make_server(segment_ms=40)
        async with running(server) as url, connected(url) as greedy, connected(url) as modest:
            await greedy.send_json(start())
            await greedy.send_bytes(to_s16le(noise(20.0))[: 2 * 100_000])
            await greedy.receive_json()
            await greedy.receive_json()  # its translation has started
            await modest.send_json(start())
            await modest.send_bytes(to_s16le(noise(0.3, 1)))
            await modest.receive_json()
            await modest.receive_json()
            backlog = max(stream.waiting_s for stream in server.batcher.streams)
            assert backlog > 3, "the other one is served long before the backlog is done"

    asyncio.run(run())


@pytest.mark.parametrize("seconds", [0, 0.001, 0.1])
def test_empty_or_short_session_ends_cleanly(make_server, seconds):
    async def run():
        async with running(make_server()) as url:
            return await translate(url, noise(seconds))

    received = asyncio.run(run())
    assert received.code == 1000 and received.last["type"] == "done"


def test_lost_connection_does_not_affect_other_sessions(make_server, translator):
    wave = noise(3.0)
    server = make_server()

    async def leave(url, wave):
        """Disconnect without a close frame in the middle of a step."""
        async with aiohttp.ClientSession() as client:
            connection = await client.ws_connect(f"{url}/ws")
            await connection.send_json(start())
            await connection.send_bytes(to_s16le(wave))
            await connection.receive()
            await client.close()

    async def run():
        async with running(server) as url:
            received, *_ = await asyncio.gather(
                translate(url, wave), *(leave(url, noise(2.0, seed)) for seed in range(3))
            )
            await until(lambda: not server.sessions and not server.batcher.streams)
            return received

    assert_output(asyncio.run(run()), expected_output(translator, wave, **SETTINGS))
    assert server.metrics.registry.get_sample_value("echostream_sessions_ended_total", {"code": "1006"}) == 3


def test_finished_sessions_do_not_leak(make_server):
    server = make_server()
    bad = "no JSON"

    async def run():
        async with running(server) as url:
            await translate(url, noise(0.5))
            tasks = len(asyncio.all_tasks())
            for turn in range(20):
                await (send_all(url, start(), bad) if turn % 3 else translate(url, noise(0.4, turn)))
            await until(lambda: not server.sessions)
            assert len(asyncio.all_tasks()) <= tasks
        gc.collect()
        assert not [thing for thing in gc.get_objects() if isinstance(thing, Session | Stream)]
        assert not server.batcher.streams

    asyncio.run(run())
    assert server.metrics.registry.get_sample_value("echostream_sessions") == 0
    assert server.metrics.registry.get_sample_value("echostream_waiting_audio_seconds") == 0


def test_failed_step_ends_its_own_sessions_only(make_server, translator):
    server = make_server()

    async def run():
        async with running(server) as url, connected(url) as broken:
            await broken.send_json(start())
            await broken.receive_json()
            (stream,) = server.batcher.streams
            stream.state.encoder = None
            await broken.send_bytes(to_s16le(noise(1.0)))
            ended = await receive_all(broken)
            return ended, await translate(url, noise(1.0))

    broken, other = asyncio.run(run())
    assert broken.code == 1011 and "log" in broken.last["message"]
    assert_output(other, expected_output(translator, noise(1.0), **SETTINGS))


def test_clients_are_informed_when_the_server_stops(make_server):
    async def run():
        async with aiohttp.ClientSession() as client:
            async with running(make_server()) as url:
                connection = await client.ws_connect(f"{url}/ws")
                await connection.send_json(start())
                await connection.receive_json()
                listening = asyncio.create_task(receive_all(connection))
            return await listening

    received = asyncio.run(run())
    assert received.code == 1001 and received.last["message"] == "the server is stopping"


def batch_sizes(server):
    value = server.metrics.registry.get_sample_value
    return {name: value(f"echostream_batch_size_{name}") for name in ("sum", "count")}


def test_speech_is_clipped_and_does_not_wrap_around():
    samples = np.array([1.5, -1.5, 0.5], dtype=np.float32)
    assert np.frombuffer(to_s16le(samples), "<i2").tolist() == [32767, -32768, 16384]


def test_idle_server_releases_memory(make_server):
    async def run():
        async with running(make_server()) as url:
            gc.collect()
            gc.disable()  # otherwise it could run at any time
            try:
                await translate(url, noise(1.0))
                await asyncio.sleep(0.1)
                waiting = sum(isinstance(thing, Session) for thing in gc.get_objects())
                await asyncio.sleep(2 * IDLE_S)
            finally:
                gc.enable()
            return waiting, sum(isinstance(thing, Session) for thing in gc.get_objects())

    waiting, left = asyncio.run(run())
    assert waiting and not left
