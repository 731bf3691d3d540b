"""The number of threads is measured, and no more are taken than are worth it."""

import os

import pytest
import torch

from echostream.cli.threads import EASY, _choose, choose_threads
from echostream.streaming import StreamingTranslator


@pytest.fixture(autouse=True)
def _threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("factors", "expected"),
    [
        ({1: 0.1, 2: 0.05}, 1),  # easily alone, and the others are not even tried
        ({1: 0.9, 2: 0.5, 4: 0.45}, 2),  # the third and fourth gain little
        ({1: 0.9, 2: 2.5, 4: 3.0}, 1),  # somebody else computes, too
        ({1: 0.9, 2: 0.8, 4: 0.4}, 4),
        ({1: 0.9}, 1),
    ],
)
def test_as_many_threads_as_are_worth_it(factors, expected):
    tried = []

    def factor(threads: int) -> float:
        tried.append(threads)
        return factors[threads]

    choice = _choose(factor, max(factors))
    assert choice.threads == torch.get_num_threads() == expected
    assert set(tried) == ({1} if factors[1] < EASY else set(factors))


def test_a_slow_round_does_not_count():
    times = iter([0.9, 0.5, 0.5, 0.5, 9.0, 0.5, 0.3, 0.5, 0.3])
    assert _choose(lambda _: next(times), 2).threads == 2


def test_a_real_model_is_measured():
    translator = StreamingTranslator.random("echostream_tiny", seed=0, segment_ms=0)
    choice = choose_threads(translator)
    assert 1 <= choice.threads <= len(os.sched_getaffinity(0))
    assert torch.get_num_threads() == choice.threads
    assert all(factor > 0 for factor in choice.factors.values())
    assert f"{choice.threads} (real-time factor by threads: 1: 0." in str(choice)
    assert choose_threads(translator, most=1).threads == 1
