"""What goes wrong with one stream, in whatever place, ends that stream alone."""

import asyncio

import pytest
from wire import noise

from echostream.serve.batcher import Batcher, Stream
from echostream.serve.metrics import Metrics
from echostream.serve.protocol import Settings

SETTINGS = Settings(160, "fixed-rate", "s2tt")


class Listener:
    """Collects what a stream says."""

    def __init__(self, fails_at: int = 0) -> None:
        self.steps, self.failures, self.fails_at = [], 0, fails_at

    def on_step(self, step) -> None:
        self.steps.append(step)
        if len(self.steps) == self.fails_at:
            raise RuntimeError("the callback of a session is broken")

    def on_failure(self) -> None:
        self.failures += 1
        if self.fails_at:
            raise RuntimeError("and so is this one")


@pytest.mark.parametrize("broken", ["callback", "queue", "state", "clock"])
def test_broken_stream_ends_alone(translator, caplog, broken):
    async def run():
        batcher = Batcher(32, Metrics())
        running = asyncio.create_task(batcher.run())
        listeners = [Listener(), Listener(fails_at=2 if broken == "callback" else 0), Listener()]
        streams = [Stream(translator, SETTINGS, one.on_step, one.on_failure) for one in listeners]
        for seed, stream in enumerate(streams):
            batcher.add(stream)
            stream.push(noise(2.0, seed))
        if broken == "queue":
            streams[1]._pieces.append(None)
            streams[1].received_samples += 10_000
        elif broken == "state":
            streams[1].state.encoder = None
            streams[1]._needed = 1_000
        elif broken == "clock":
            streams[1]._arrivals.clear()
        for stream in streams:
            stream.end()
            batcher.notify(stream)
        if broken == "clock":
            streams[1]._arrivals.clear()
        async with asyncio.timeout(30):
            while batcher.streams:
                await asyncio.sleep(0.01)
        assert not running.done()
        running.cancel()
        return listeners

    first, second, third = asyncio.run(run())
    for listener in (first, third):
        assert listener.steps[-1].is_last and not listener.failures
    assert second.failures == 1 and not any(step.is_last for step in second.steps)
    assert "Traceback" in caplog.text
    alone = translator.view(160, "fixed-rate", "s2tt")
    expected = alone.step(noise(2.0, 0), alone.init_state(), is_last=True)
    assert [word.text for step in first.steps for word in step.output.words] == [word.text for word in expected.words]
