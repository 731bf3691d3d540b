"""Instances of speech output: SimulEval's files and numbers, in a tenth of its memory."""

import tracemalloc
from argparse import Namespace
from pathlib import Path

import numpy as np
import soundfile
from simuleval.data.dataloader.s2t_dataloader import SpeechToSpeechDataloader
from simuleval.data.segments import EmptySegment, SpeechSegment
from simuleval.evaluator.instance import SpeechToSpeechInstance

from echostream.evaluation.instances import RecordingSpeechToSpeechInstance


def answer(kind: type, source: Path, output: Path, pieces: list[list[float]]) -> dict:
    """What is logged of an agent that answers each segment of 320 ms with the next of ``pieces``."""
    args = Namespace(output=str(output), eval_latency_unit="word")
    output.mkdir()
    instance = kind(0, SpeechToSpeechDataloader([str(source)], ["a b"]), args)
    for piece in pieces:
        finished = instance.send_source(320).finished
        segment = (
            SpeechSegment(content=piece, sample_rate=16_000, finished=finished)
            if piece
            else EmptySegment(finished=finished)
        )
        instance.receive_prediction(segment)
    assert finished
    return instance.summarize()


def test_speech_output_is_simulevals(tmp_path):
    generator = np.random.default_rng(0)
    source = tmp_path / "source.wav"
    soundfile.write(source, generator.normal(0, 0.1, 5 * 5120 - 77), 16_000)
    pieces = [generator.normal(0, 0.1, size).astype(np.float32).tolist() for size in (0, 1000, 0, 9000, 801)]
    ours, its = (
        answer(kind, source, tmp_path / kind.__name__, pieces)
        for kind in (RecordingSpeechToSpeechInstance, SpeechToSpeechInstance)
    )
    files = [Path(line.pop("prediction")) for line in (ours, its)]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert len(ours.pop("elapsed")) == len(ours["delays"]) and its.pop("elapsed") == []
    assert ours == its
    nothing = [answer(RecordingSpeechToSpeechInstance, source, tmp_path / "none", [[]] * 5)]
    assert nothing[0]["prediction_offset"] == nothing[0]["source_length"] and not nothing[0]["prediction_length"]


def test_a_sample_takes_a_few_bytes(tmp_path):
    """Lists of floats take 32 bytes for each sample of the source, and more than that for each of the output."""
    seconds = 60
    source = tmp_path / "source.wav"
    soundfile.write(source, np.zeros(16_000 * seconds), 16_000)
    piece = np.random.default_rng(0).normal(0, 0.1, 5120).astype(np.float32).tolist()
    tracemalloc.start()
    try:
        answer(RecordingSpeechToSpeechInstance, source, tmp_path / "out", [piece] * -(-seconds * 16_000 // 5120))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 24 * 16_000 * seconds  # source, output, the output with its pauses, and what is read and written
