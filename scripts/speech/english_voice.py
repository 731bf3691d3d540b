"""English speech from text: Hibari, a voice of 8 MB that reads far faster than real time on one thread.

    python english_voice.py --texts texts.tsv --column en --out audio/en --jobs 2

The length of each file is a whole number of 50 Hz unit frames (320 samples).
"""

from __future__ import annotations

import argparse

from echostream.constants import UNIT_SAMPLES
from scripts.command_line import require
from scripts.speech.audio import write_speech
from scripts.speech.speech_synthesis import Utterance, add_arguments, synthesise_all

_voice = None


def _start() -> None:
    global _voice
    _voice = require("hibari").Hibari(threads=1)


def _speak(utterance: Utterance) -> None:
    assert _voice is not None
    samples = _voice(utterance.text, seed=0)
    write_speech(utterance.out, samples, _voice.sample_rate, multiple=UNIT_SAMPLES)


def main() -> None:
    parser = argparse.ArgumentParser(description="Read English sentences aloud.")
    add_arguments(parser, column="en")
    args = parser.parse_args()
    synthesise_all(args, ("hibari-heart",), _speak, _start, packages=("torchaudio.functional", "hibari"))


if __name__ == "__main__":
    main()
