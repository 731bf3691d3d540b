"""Latency formulas, by hand and against SimulEval's own where those are right (text output)."""

import json

import pytest
from simuleval.evaluator.instance import LogInstance
from simuleval.evaluator.scorers.latency_scorer import ALScorer, ATDScorer, LAALScorer

from echostream.evaluation.latency import (
    average_lagging,
    average_token_delay,
    speech_writes,
    text_writes,
    token_ends,
)
from echostream.evaluation.timeline import Chunk


def test_average_lagging():
    # an ideal translator of 4 words says one each 250 ms: lags 500, 600 - 250, 1000 - 500, and the 4th is cut off
    assert average_lagging([500, 600, 1000, 1000], 1000, 4) == pytest.approx((500 + 350 + 500) / 3)


def test_average_lagging_of_words_that_end_before_the_source():
    assert average_lagging([300, 400], 1000, 2) == pytest.approx((300 + (400 - 500)) / 2)


@pytest.mark.parametrize("arguments", [([], 1000, 1), ([1.0], 0, 1), ([1.0], 1000, 0)])
def test_average_lagging_refuses_nothing(arguments):
    with pytest.raises(ValueError, match="lagging"):
        average_lagging(*arguments)


def test_cut_leaves_a_shorter_last_token():
    assert token_ends(0, 700) == [300, 600, 700]
    assert token_ends(100, 700) == [400, 700]
    assert token_ends(0, 600.00000001) == [300, 600.00000001]
    assert token_ends(5, 5) == []


def test_token_delay_of_text():
    # read 600 (tokens end at 300, 600), write 1 word; read on to 1000 (900, 1000), write 3
    writes = text_writes([600, 1000, 1000, 1000], [600, 1000, 1000, 1000])
    # ranks 1 to 4 against source tokens 300, 600, 900, 1000; never ahead
    assert average_token_delay(writes) == pytest.approx((300 + 400 + 100 + 0) / 4)


def test_token_delay_when_the_output_is_ahead():
    # 300 ms read (1 token), 3 words written; 300 more (2 tokens): the 4th word is put back by the 2 ahead, rank 2
    writes = text_writes([300, 300, 300, 600], [300, 300, 300, 600])
    assert average_token_delay(writes) == pytest.approx((0 + 0 + 0 + 0) / 4)
    # 900 ms read in the second round: 4 - 2 = 2, which is the source token that ends at 600
    assert average_token_delay(text_writes([300, 300, 300, 900], [300, 300, 300, 900])) == pytest.approx(300 / 4)


def test_token_delay_of_speech():
    # 600 ms read, then 400 ms of speech (tokens end at 900 and 1000); read on to 1000, 300 ms more (1300)
    writes = speech_writes([600, 1000], [Chunk(600, 400), Chunk(1000, 300)])
    # against 300, 600, 900
    assert average_token_delay(writes) == pytest.approx(((900 - 300) + (1000 - 600) + (1300 - 900)) / 3)


def test_token_delay_of_nothing():
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
def test_agrees_with_simuleval_on_text(delays, reference):
    log = {"index": 0, "delays": delays, "reference": reference, "source_length": 2000, "prediction": "x"}
    instance = LogInstance(json.dumps(log))
    words = len(reference.split())
    assert average_lagging(delays, 2000, words) == pytest.approx(ALScorer()({0: instance}))
    assert average_lagging(delays, 2000, max(words, len(delays))) == pytest.approx(LAALScorer()({0: instance}))
    assert average_token_delay(text_writes(delays, delays)) == pytest.approx(ATDScorer()({0: instance}))
