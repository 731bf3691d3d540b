"""Which phone is spoken when in the recordings of `french_voice.py`: the voice itself decides how long each takes.

Kokoro-82M first predicts the duration of every symbol and then speaks; only that first part is run here (20 to 30
sentences a second on a core), with the text, speed, pitch and accent that the recordings were made with.

    python french_phones.py --texts pairs.tsv --audio audio/fr --voice-table ff_siwis.npy --out source_phones.tsv

The table has one phone for each 20 ms of a recording; training's `--source-phones` reads it. Phones are some 20 ms
early (12 sentences, hissing sounds against their names); that is left so.
"""

from __future__ import annotations

import argparse
from itertools import pairwise
from pathlib import Path

import numpy as np
import soundfile

from scripts.command_line import positive, require
from scripts.speech.audio import MARGIN_S
from scripts.speech.french_voice import (
    PACKAGES,
    PLAIN,
    Engine,
    FrenchVoice,
    add_voice_arguments,
    join_model,
    onnxruntime_engine,
    voices_and_variation,
)
from scripts.speech.french_voice import SAMPLE_RATE as VOICE_RATE
from scripts.speech.speech_synthesis import read_table
from scripts.speech.voice_variation import Variation
from scripts.units.phone_alignment import SILENCE
from scripts.units.phones_table import write_phones
from scripts.work import parallel_map

DURATIONS = "/encoder/Clip_output_0"  # name inside the model, whose sha256 is checked
SAMPLES_PER_DURATION = 600  # of the voice's own
PHONE_S = 0.02
STRESS = "\u02c8\u02cc"
MODIFIERS = "\u0303\u02d0"  # nasal and long: they belong to the vowel before
SILENT = " .,?!;:"


def duration_engine() -> Engine:
    """The model up to the durations."""
    model = require("onnx").load_model_from_string(join_model())
    part = require("onnx.utils").Extractor(model).extract_model(["tokens", "style", "speed"], [DURATIONS])
    return onnxruntime_engine(part.SerializeToString())


def phones_of(symbols: str, times: np.ndarray, length_s: float) -> list[str]:
    """The phone in the middle of each 20 ms.

    Args:
        symbols: what was spoken, in Kokoro's alphabet.
        times: seconds, `(len(symbols) + 1,)`: where each symbol begins and the last one ends.
        length_s: of the recording, whose silence was cut to `MARGIN_S` before the first sound.
    """
    sounds: list[tuple[str, float, float]] = []
    stressed_since = None
    for symbol, (begin, end) in zip(symbols, pairwise(times), strict=True):
        if symbol in STRESS:
            stressed_since = begin
        elif symbol in MODIFIERS and sounds:
            name, begin, _ = sounds.pop()
            sounds.append((name + symbol, begin, end))
        elif symbol in SILENT:
            sounds.append((SILENCE, begin, end))
        else:
            sounds.append((symbol, begin if stressed_since is None else stressed_since, end))
            stressed_since = None
    first = next((begin for name, begin, _ in sounds if name != SILENCE), 0.0)
    labels = [SILENCE] * int(length_s / PHONE_S)
    for name, begin, end in sounds:
        span = [round((moment - first + MARGIN_S) / PHONE_S) for moment in (begin, end)]
        labels[slice(*span)] = [name] * len(labels[slice(*span)])
    return labels


_voice: FrenchVoice | None = None
_variation: Variation | None = None


def _start(voice_table: Path, accents: dict[str, Path], variation: Variation | None) -> None:
    global _voice, _variation
    _voice = FrenchVoice(voice_table, accents, duration_engine())
    _variation = variation


def _work(task: tuple[str, str, Path]) -> list[str]:
    assert _voice is not None
    name, text, recording = task
    manner = _variation(name) if _variation else PLAIN
    ends = np.cumsum(_voice(text, manner)) * SAMPLES_PER_DURATION / manner.playback_rate(VOICE_RATE)
    # The voice speaks a silent symbol before and after.
    return phones_of(_voice.symbols(text), ends[:-1], soundfile.info(recording).duration)


def main() -> None:
    parser = argparse.ArgumentParser(description="Say which phone is spoken when in the French voice's recordings.")
    parser.add_argument("--texts", type=Path, required=True, help="tab-separated table with a column id")
    parser.add_argument("--column", default="fr", help="column of the text that was read (default: %(default)s)")
    parser.add_argument("--audio", type=Path, required=True, help="folder of <id>.wav")
    parser.add_argument("--out", type=Path, required=True, help="table to write")
    parser.add_argument("--jobs", type=positive, default=1, help="processes, one thread each")
    add_voice_arguments(parser)
    args = parser.parse_args()
    accents, variation = voices_and_variation(parser, args)
    for package in (*PACKAGES, "onnx"):
        require(package)
    tasks = [
        (row["id"], row[args.column], args.audio / f"{row['id']}.wav") for row in read_table(args.texts, args.column)
    ]
    missing = [path for _, _, path in tasks if not path.is_file()]
    if missing:
        raise SystemExit(
            f"error: no recording {missing[0]} (of {len(missing)} that are missing); speak the texts first"
        )
    found = {
        task[0]: phones
        for task, phones in parallel_map(
            _work, tasks, args.jobs, "phones", _start, (args.voice_table, accents, variation)
        )
    }
    # In the order of the tasks, not in that of their ends: the table must not depend on --jobs.
    write_phones(args.out, {task[0]: found[task[0]] for task in tasks})
    print(f"phones: {len(tasks)} recordings", flush=True)


if __name__ == "__main__":
    main()
