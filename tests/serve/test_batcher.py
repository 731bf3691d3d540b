"""One session's mistakes stay its own: callbacks that fail, and streams that do, leave the batch and the rest alone."""

import asyncio

import numpy as np
import pytest
from wire import noise

from echostream.serve.batcher import Batcher, Stream
from echostream.serve.metrics import Metrics
from echostream.serve.protocol import Settings

SETTINGS = Settings(160, "fixed-rate", "s2tt")


def failing(*_: object) -> None:
    raise RuntimeError("of the session")


@pytest.mark.parametrize("wrong", ["on_step", "on_failure", "samples", "state"])
def test_others_of_a_batch_and_later_ones_are_served(translator, wrong):
    async def run() -> tuple[list[list[str]], bool, bool]:
        batcher = Batcher(8, Metrics())
        running = asyncio.create_task(batcher.run())
        heard: list[list[str]] = [[] for _ in range(4)]
        gone = asyncio.Event()

        def add(index: int, fails: bool = False) -> Stream:
            take = failing if fails and wrong == "on_step" else lambda step: heard[index].append(step.output.text)
            stop = failing if fails and wrong == "on_failure" else gone.set
            stream = Stream(translator, SETTINGS, take, stop)
            batcher.add(stream)
            samples = noise(1.0, index)
            if fails and wrong == "samples":
                samples = np.full(16_000, 1e15, dtype=np.float32)
            if fails and wrong in ("state", "on_failure"):
                stream.state.encoder = None
            stream.push(samples)
            stream.end()
            return stream

        streams = [add(index, fails=index == 1) for index in range(3)]
        for stream in streams:
            batcher.notify(stream)
        async with asyncio.timeout(60):
            while batcher.streams:
                await asyncio.sleep(0.01)
            batcher.notify(add(3))
            while batcher.streams:
                await asyncio.sleep(0.01)
        alive = not running.done()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        return heard, gone.is_set(), alive

    heard, was_told, alive = asyncio.run(run())
    assert alive
    for index in (0, 2, 3):
        view = SETTINGS.apply(translator)
        expected = view.step(noise(1.0, index), view.init_state(), is_last=True)
        assert "".join(heard[index]) == expected.text and expected.text
    assert not heard[1] and was_told == (wrong in ("samples", "state"))
