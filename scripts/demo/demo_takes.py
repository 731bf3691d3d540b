"""What was heard and said in a recording, and when: from the log of a SimulEval run to words, sound and figures.

Times are on the clock of a listener beside this machine: a piece of speech plays once the source up to it has been
spoken, the step that made it has been computed, and the piece before it is over.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from statistics import mean

import numpy as np
import soundfile

from echostream.constants import SAMPLE_RATE
from echostream.decoding.word_boundary import SourceWord
from echostream.evaluation.asr import Transcriber
from echostream.evaluation.quality import bleu, chrf, remove_pauses, wer
from echostream.evaluation.record import UtteranceRecord, load_records
from echostream.evaluation.scorers import TIMELINE_METRICS
from echostream.evaluation.timeline import Chunk, Timeline, heard_at, play, ready_times
from echostream.percentiles import percentile
from echostream.streaming import SentenceRecomposer
from echostream.streaming.subtitles import whole_subtitles
from echostream.text import text_lines

BESIDE_MS = 1.0  # more than the tolerance of heard_at, less than any word
LATENCIES = ("StartOffset", "EndOffset", "LAAL", "ATD")


@dataclass(frozen=True)
class Recording:
    """Something to translate; ``source_text`` and ``reference`` are None where nobody has written them down.

    ``path``: 16 kHz mono. ``group``: of which test set it is, or empty.
    """

    name: str
    path: Path
    source_text: str | None = None
    reference: str | None = None
    group: str = ""


@dataclass(frozen=True, order=True)
class PlacedWord:
    """A word of either language.

    ``start_s``, ``end_s``: where it is in the source, or where the translation speaks it. ``decided_s``: when the
    model had recognised it, or when its audio could begin; ``source_s``: how much source that took.
    """

    text: str
    start_s: float
    end_s: float
    decided_s: float
    source_s: float


@dataclass(frozen=True)
class Take:
    """A recording as it was translated.

    ``speech``: float32 ``(n,)`` at 16 kHz, pauses of playback left out. ``transcript``: what a recogniser reads in it,
    as SimulEval plays it; None if there is no recogniser.
    """

    recording: Recording
    record: UtteranceRecord
    speech: np.ndarray
    transcript: str | None = None

    @cached_property
    def source(self) -> np.ndarray:
        """float32 ``(n,)`` at 16 kHz."""
        return soundfile.read(self.recording.path, dtype="float32")[0]

    @cached_property
    def ready_ms(self) -> list[float]:
        """When the output of each step is there."""
        steps = self.record.steps
        return ready_times([step.arrived_ms for step in steps], [step.compute_ms for step in steps])

    @cached_property
    def chunks(self) -> list[Chunk]:
        """The pieces of speech on the clock."""
        return play(self.ready_ms, [step.output_ms for step in self.record.steps])

    @property
    def source_s(self) -> float:
        return self.record.source_ms / 1000

    @property
    def end_s(self) -> float:
        """When both the source and its translation are over."""
        return max(self.source_s, self.chunks[-1].end / 1000 if self.chunks else 0.0)

    @cached_property
    def source_words(self) -> list[PlacedWord]:
        """The words that were recognised, a word in parts as one."""
        words: list[PlacedWord] = []
        for step, ready_ms in zip(self.record.steps, self.ready_ms, strict=True):
            for word in step.source_words:
                text, start_s = word.text.strip(), word.start_ms / 1000
                if words and not word.text.startswith(" "):
                    before = words.pop()
                    text, start_s = before.text + text, before.start_s
                words.append(PlacedWord(text, start_s, word.end_ms / 1000, ready_ms / 1000, step.arrived_ms / 1000))
        return words

    @cached_property
    def words(self) -> list[PlacedWord]:
        """The words of the translation where they are spoken; without any speech, where they are written."""
        records = [word for _, word in self.record.words]
        ready_s = [self.ready_ms[step] / 1000 for step, _ in self.record.words]
        starts_s = ends_s = ready_s
        if self.chunks:
            # A word that begins a piece begins with it, not at the end of the piece before.
            starts_s = [
                (at - BESIDE_MS) / 1000 for at in heard_at(self.chunks, [w.start_ms + BESIDE_MS for w in records])
            ]
            ends_s = [at / 1000 for at in heard_at(self.chunks, [w.end_ms for w in records])]
        texts = self.record.text.split()
        if len(texts) != len(records):
            texts = [word.text for word in records]
        sources_s = [word.source_ms / 1000 for word in records]
        return [
            PlacedWord(text, min(start_s, end_s), end_s, decided_s, source_s)
            for text, start_s, end_s, decided_s, source_s in zip(
                texts, starts_s, ends_s, ready_s, sources_s, strict=True
            )
        ]

    @property
    def played(self) -> np.ndarray:
        """The translation from the beginning of the source on, float32 ``(n,)``, silent where nothing is said."""
        sound = np.zeros(round(self.end_s * SAMPLE_RATE) + 1, dtype=np.float32)
        position = 0
        for chunk in self.chunks:
            start, length = round(chunk.start * SAMPLE_RATE / 1000), round(chunk.duration * SAMPLE_RATE / 1000)
            piece = self.speech[position : position + length][: max(len(sound) - start, 0)]
            sound[start : start + len(piece)] = piece
            position += length
        return sound

    @property
    def both(self) -> np.ndarray:
        """Source left and translation right, float32 ``(n, 2)``."""
        right = self.played
        left = np.pad(self.source[: len(right)], (0, max(0, len(right) - len(self.source))))
        return np.stack([left, right], axis=1)

    def subtitles(self) -> str:
        """WebVTT on the clock of :attr:`both`."""
        sentences: list[list[SourceWord]] = []
        before_ms = None
        for (_, record), word in zip(self.record.words, self.words, strict=True):
            # Words of a sentence follow each other in the model's own speech; between sentences it puts a pause.
            if before_ms is None or record.start_ms > before_ms:
                sentences.append([])
            before_ms = record.end_ms
            sentences[-1].append(SourceWord(word.text, word.start_s, word.end_s))
        source = [SourceWord(word.text, word.start_s, word.end_s) for word in self.source_words]
        return whole_subtitles(source, sentences, SentenceRecomposer(SAMPLE_RATE, SAMPLE_RATE // 50))

    def latency(self, name: str, computation_aware: bool = True) -> float | None:
        """One of :data:`LATENCIES` in ms; None if nothing was said."""
        timeline = Timeline.of(self.record, speech=True, computation_aware=computation_aware)
        return TIMELINE_METRICS[f"ECHO_{name}"](timeline, len((self.recording.reference or "").split()))

    @property
    def real_time_factor(self) -> float | None:
        """Time to compute over time to listen."""
        return sum(s.compute_ms for s in self.record.steps) / self.record.source_ms if self.record.source_ms else None


def load_takes(run: Path, recordings: Sequence[Recording], listen: Callable[[np.ndarray], str] | None) -> list[Take]:
    """The finished utterances of a SimulEval run.

    Args:
        run: SimulEval's output folder.
        recordings: in the order of its list.
        listen: tells the words in float32 ``(n,)`` at 16 kHz, or None.

    Raises:
        ValueError: no such run, or speech at another sample rate.
    """
    records = load_records(run)
    takes = []
    for text in text_lines(run / "instances.log"):
        try:
            line = json.loads(text)
        except json.JSONDecodeError:  # left by a kill
            continue
        played = np.zeros(0, dtype=np.float32)
        path = run / "wavs" / f"{line['index']}_pred.wav"
        if line["durations"] and path.is_file():
            played, rate = soundfile.read(path, dtype="float32")
            if rate != SAMPLE_RATE:
                raise ValueError(f"the vocoder speaks at {rate} Hz: the demo is made for {SAMPLE_RATE} Hz")
        speech = remove_pauses(played, SAMPLE_RATE, line["intervals"])
        transcript = listen(played) if listen is not None else None
        takes.append(Take(recordings[line["index"]], records[line["index"]], speech, transcript))
    return takes


def make_listener(model: Path, language: str, cache: Path) -> Callable[[np.ndarray], str]:
    """A recogniser for :func:`load_takes`."""
    transcriber = Transcriber(model, language, cache)
    return lambda samples: transcriber(samples, SAMPLE_RATE)


def scores(takes: Sequence[Take]) -> dict[str, float | None]:
    """Figures over all takes: quality where there are references, latency in ms as means, both clocks."""
    known = [take for take in takes if take.recording.reference is not None]
    results: dict[str, float | None] = {}
    if known:
        references = [take.recording.reference for take in known]
        texts = [take.record.text for take in known]
        results |= {"BLEU": bleu(texts, references), "chrF": chrf(texts, references)}
        if all(take.transcript is not None for take in known):
            spoken = [take.transcript for take in known]
            results |= {"ASR_BLEU": bleu(spoken, references), "ASR_WER": wer(spoken, references)}
    for name in LATENCIES:
        for aware, suffix in ((False, ""), (True, "_CA")):
            values = [value for take in takes if (value := take.latency(name, aware)) is not None]
            results[name + suffix] = mean(values) if values else None
    steps = [step.compute_ms for take in takes for step in take.record.steps]
    source_ms = sum(take.record.source_ms for take in takes)
    results["RTF"] = sum(steps) / source_ms if source_ms else None
    results["StepP95"] = percentile(steps, 95) if steps else None
    return results


def silences(take: Take) -> list[tuple[float, float]]:
    """Pauses in the speech, (start, end) in seconds, because the next piece wasn't there."""
    return [(a.end / 1000, b.start / 1000) for a, b in pairwise(take.chunks) if b.start - a.end > BESIDE_MS]
