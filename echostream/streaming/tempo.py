"""How fast the translation's voice speaks: a voice that falls behind leaves out its pauses first, then speaks faster.

The lag is how much of what was given out is still to be heard, if the voice begins each word as soon as it can, on the
clock of the source: a function of the audio alone, as everything else that is given out. What counts is the lag after
the last of the words that are due: a sentence that is written in one go lets the voice fall behind as a fast speaker
does. The tempo changes from word to word, and with it the predicted durations of the units, so that the pitch stays.
"""

from __future__ import annotations

PAUSES_FROM_S, PAUSES_TO_S = 1.0, 1.5  # lags between which the pauses between sentences become short
LEAST_PAUSE = 0.25  # of their length
TEMPO_FROM_S, TEMPO_TO_S = 2.0, 3.0  # lags between which the tempo rises to the most that is allowed
TEMPO_STEP = 0.05  # by which it changes at most from one word to the next


def pause_share(lag_s: float) -> float:
    """What is left of the pause between two sentences."""
    return 1 - (1 - LEAST_PAUSE) * _share(lag_s, PAUSES_FROM_S, PAUSES_TO_S)


def next_tempo(tempo: float, lag_s: float, most: float) -> float:
    """The tempo of the next word, from 1 to ``most``, after one that was spoken at ``tempo``."""
    wanted = 1 + (most - 1) * _share(lag_s, TEMPO_FROM_S, TEMPO_TO_S)
    return min(max(wanted, tempo - TEMPO_STEP, 1.0), tempo + TEMPO_STEP, most)


def _share(lag_s: float, start_s: float, end_s: float) -> float:
    return min(max((lag_s - start_s) / (end_s - start_s), 0.0), 1.0)
