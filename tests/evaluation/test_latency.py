"""Latency metrics compared with results by hand, and for text output with SimulEval's own metrics."""

import json

import pytest
from simuleval.evaluator.instance import LogInstance
from simuleval.evaluator.scorers.latency_scorer import ALScorer, ATDScorer, LAALScorer

from echostream.evaluation.latency import (
    average_lagging,
    average_token_delay,
    lag_drift,
    speech_writes,
    text_writes,
    token_ends,
)
from echostream.evaluation.timeline import Chunk


def test_drift_is_the_slope_of_the_lag():
    assert lag_drift([1_500.0, 31_800.0, 62_100.0], [1_000.0, 31_000.0, 61_000.0]) == pytest.approx(600.0)
    assert lag_drift([900.0, 1_900.0], [400.0, 1_400.0]) == 0
    assert lag_drift([900.0, 950.0], [400.0, 400.0]) is None and lag_drift([], []) is None


def test_average_lagging():
    # An ideal translator of 4 words writes one every 250 ms: lags 500, 600 - 250, 1000 - 500; the 4th is not counted.
    assert average_lagging([500, 600, 1000, 1000], 1000, 4) == pytest.approx((500 + 350 + 500) / 3)


def test_average_lagging_of_words_that_end_before_the_source():
    assert average_lagging([300, 400], 1000, 2) == pytest.approx((300 + (400 - 500)) / 2)


@pytest.mark.parametrize("arguments", [([], 1000, 1), ([1.0], 0, 1), ([1.0], 1000, 0)])
def test_average_lagging_rejects_empty_input(arguments):
    with pytest.raises(ValueError, match="lagging"):
        average_lagging(*arguments)


def test_last_speech_token_may_be_shorter():
    assert token_ends(0, 700) == [300, 600, 700]
    assert token_ends(100, 700) == [400, 700]
    assert token_ends(0, 600.00000001) == [300, 600.00000001]
    assert token_ends(5, 5) == []


def test_token_delay_of_text():
    # Read 600 ms (tokens end at 300, 600), write 1 word; read up to 1000 ms (900, 1000), write 3.
    writes = text_writes([600, 1000, 1000, 1000], [600, 1000, 1000, 1000])
    # Target tokens 1 to 4 are compared with source tokens 300, 600, 900, 1000; the output is never ahead.
    assert average_token_delay(writes) == pytest.approx((300 + 400 + 100 + 0) / 4)


def test_token_delay_when_the_output_is_ahead():
    # Read 300 ms (1 token), write 3 words; read 300 ms more (2 tokens). The output is 2 tokens ahead, so the 4th word
    # is compared with source token 2.
    writes = text_writes([300, 300, 300, 600], [300, 300, 300, 600])
    assert average_token_delay(writes) == pytest.approx((0 + 0 + 0 + 0) / 4)
    # Read up to 900 ms in the second step: 4 - 2 = 2, the source token that ends at 600.
    assert average_token_delay(text_writes([300, 300, 300, 900], [300, 300, 300, 900])) == pytest.approx(300 / 4)


def test_token_delay_of_speech():
    # Read 600 ms, play 400 ms of speech (tokens end at 900 and 1000); read up to 1000 ms, play 300 ms more (1300).
    writes = speech_writes([600, 1000], [Chunk(600, 400), Chunk(1000, 300)])
    # They are compared with source tokens 300, 600, 900.
    assert average_token_delay(writes) == pytest.approx(((900 - 300) + (1000 - 600) + (1300 - 900)) / 3)


def test_token_delay_needs_output():
    with pytest.raises(ValueError, match="nothing was written"):
        average_token_delay([])


@pytest.mark.parametrize(
    ("delays", "reference"),
    [
        ([320, 640, 640, 960, 1600, 2000], "a b c d e f g"),
        ([40, 40, 40, 40, 80, 2000], "a b"),
        ([640, 1280, 1920, 2000], "a b c d"),
    ],
)
def test_equals_simuleval_for_text_output(delays, reference):
    log = {"index": 0, "delays": delays, "reference": reference, "source_length": 2000, "prediction": "x"}
    instance = LogInstance(json.dumps(log))
    words = len(reference.split())
    assert average_lagging(delays, 2000, words) == pytest.approx(ALScorer()({0: instance}))
    assert average_lagging(delays, 2000, max(words, len(delays))) == pytest.approx(LAALScorer()({0: instance}))
    assert average_token_delay(text_writes(delays, delays)) == pytest.approx(ATDScorer()({0: instance}))
