"""Playback timelines compared with results by hand."""

import pytest

from echostream.evaluation.record import StepRecord, UtteranceRecord, WordRecord
from echostream.evaluation.timeline import Chunk, Timeline, discontinuities, heard_at, play, ready_times


def test_ideal_clock_is_the_arrival():
    assert ready_times([320, 640]) == [320, 640]


def test_computation_aware_clock_waits_for_audio_and_for_the_step_before():
    # Step 1 runs from 320 to 820; step 2 (audio at 640) waits for it; step 3 (audio at 1500) starts at once.
    assert ready_times([320, 640, 1500], [500, 100, 50]) == [820, 920, 1550]


def test_play_waits_for_the_piece_and_for_the_one_before():
    chunks = play([100, 200, 300, 1000], [250, 100, 0, 50])
    assert chunks == [Chunk(100, 250), Chunk(350, 100), Chunk(1000, 50)]
    assert discontinuities(chunks) == [550]


def test_rounding_error_is_not_a_discontinuity():
    assert discontinuities([Chunk(0, 100), Chunk(100.01, 50)]) == []


def test_heard_at_accounts_for_pauses_of_playback():
    chunks = [Chunk(100, 200), Chunk(500, 100)]  # output 0..200 is heard at 100..300, output 200..300 at 500..600
    assert heard_at(chunks, [50, 200, 200.01, 250, 300, 400]) == pytest.approx([150, 300, 300, 550, 600, 600])


def steps() -> UtteranceRecord:
    """1 s of source; 'a' is written at 400 ms and spoken over two steps, 'b' at the end."""
    return UtteranceRecord(
        0,
        1000.0,
        [
            StepRecord(400, 60, 200, " a", words=(WordRecord("a", 400, 0, 300),)),
            StepRecord(800, 60, 100),
            StepRecord(1000, 500, 400, " b", words=(WordRecord("b", 1000, 300, 700),)),
        ],
    )


def test_timeline_of_speech():
    timeline = Timeline.of(steps(), speech=True)
    assert timeline.chunks == [Chunk(400, 200), Chunk(800, 100), Chunk(1000, 400)]
    assert timeline.word_ms == [900, 1400]  # when the word's end is heard
    assert timeline.chunk_arrived_ms == [400, 800, 1000]
    assert (timeline.start_ms, timeline.end_ms) == (400, 1400)


def test_timeline_of_speech_on_the_computation_aware_clock():
    timeline = Timeline.of(steps(), speech=True, computation_aware=True)
    assert timeline.chunks == [Chunk(460, 200), Chunk(860, 100), Chunk(1500, 400)]
    assert timeline.word_ms == [960, 1900]


def test_timeline_of_text():
    timeline = Timeline.of(steps(), speech=False)
    assert (timeline.chunks, timeline.word_ms) == ([], [400, 1000])
    assert Timeline.of(steps(), speech=False, computation_aware=True).word_ms == [460, 1500]


def test_timeline_of_empty_output():
    timeline = Timeline.of(UtteranceRecord(0, 1000.0, [StepRecord(1000, 1)]), speech=True)
    assert (timeline.start_ms, timeline.end_ms, timeline.word_ms) == (None, None, [])
