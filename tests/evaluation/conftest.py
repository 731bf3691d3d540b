"""Hand-made SimulEval logs, and SimulEval's evaluator to score them."""

import json
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from simuleval.evaluator import SentenceLevelEvaluator

import echostream.evaluation  # noqa: F401  # importing registers
from echostream.evaluation.record import StepRecord, UtteranceRecord, WordRecord, append_record

# Utterance 0: 1 s of source; "ab" is written at 400 ms and spoken over two steps, "cd" at the end. Utterance 1: empty.
RECORDS = (
    UtteranceRecord(
        0,
        1000.0,
        [
            StepRecord(400, 60, 200, " ab", " un", words=(WordRecord("ab", 400, 0, 300),), evidence=" ef"),
            StepRecord(800, 60, 100),
            StepRecord(1000, 500, 400, " cd", " de", words=(WordRecord("cd", 1000, 300, 700),), evidence=" xy ab"),
        ],
    ),
    UtteranceRecord(1, 500.0, [StepRecord(400, 20), StepRecord(500, 110)]),
)
REFERENCES = ("ab cd ef", "gh")


def write_speech_log(output: Path) -> Path:
    """Write the log of speech output as SimulEval does; the wav file contains the pauses of playback."""
    (output / "wavs").mkdir(parents=True)
    (output / "config.yaml").write_text("source_type: speech\ntarget_type: speech\n", encoding="utf-8")
    tone = (0.1 * np.sin(np.arange(16 * 400))).astype(np.float32)
    pause = np.zeros(16 * 200, dtype=np.float32)
    pieces = [tone[: 16 * 200], pause, tone[: 16 * 100], pause[: 16 * 100], tone]
    soundfile.write(output / "wavs" / "0_pred.wav", np.concatenate(pieces), 16000)
    lines = [
        {
            "delays": [400, 800, 1000],
            "durations": [200, 100, 400],
            "intervals": [[400, 200], [800, 100], [1000, 400]],
        },
        {"delays": [], "durations": [], "intervals": []},
    ]
    write_lines(output, lines, [str(output / "wavs" / f"{i}_pred.wav") for i in range(2)])
    return output


def write_text_log(output: Path) -> Path:
    """Write the log of text output as SimulEval does."""
    output.mkdir(parents=True)
    (output / "config.yaml").write_text("source_type: speech\ntarget_type: text\n", encoding="utf-8")
    write_lines(output, [{"delays": [400, 1000]}, {"delays": []}], ["ab cd", ""])
    return output


def write_lines(output: Path, lines: list[dict], predictions: list[str]) -> None:
    with (output / "instances.log").open("w", encoding="utf-8") as file:
        for index, (line, prediction, record) in enumerate(zip(lines, predictions, RECORDS, strict=True)):
            common = {"index": index, "prediction": prediction, "reference": REFERENCES[index], "elapsed": []}
            file.write(json.dumps({**common, "source_length": record.source_ms, **line}) + "\n")
            append_record(output, record)


@pytest.fixture
def evaluator() -> Callable[..., SentenceLevelEvaluator]:
    """Make an evaluator of a log, as ``simuleval --score-only`` does."""

    def make(
        output: Path, latency: tuple[str, ...] = (), quality: tuple[str, ...] = (), **options
    ) -> SentenceLevelEvaluator:
        args = {
            "output": str(output),
            "latency_metrics": list(latency),
            "quality_metrics": list(quality),
            "score_only": True,
            "no_scoring": False,
            "no_use_ref_len": False,
            "computation_aware": False,
            "eval_latency_unit": "word",
            "no_progress_bar": True,
            "asr_model": None,
            "target_speech_lang": "en",
            "asr_compute": "float32",
            "asr_cache": None,
            "source_text": None,
            "first_word_ends": None,
            **options,
        }
        return SentenceLevelEvaluator.from_args(Namespace(**args))

    return make


@pytest.fixture
def score(evaluator) -> Callable[..., dict[str, float]]:
    """Score a log, with the arguments of :func:`evaluator`."""

    def run(*arguments, **options) -> dict[str, float]:
        made = evaluator(*arguments, **options)
        return {**made.quality, **made.latency}

    return run


@pytest.fixture
def speech_log(tmp_path: Path) -> Path:
    return write_speech_log(tmp_path / "speech")


@pytest.fixture
def text_log(tmp_path: Path) -> Path:
    return write_text_log(tmp_path / "text")
