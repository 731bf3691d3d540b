"""Quality metrics for SimulEval's ``--quality-metrics``, of text and of speech that a recogniser reads back.

Text is compared in lower case and without punctuation, as ASR-BLEU usually is, so that the scores of speech
and text output can be laid side by side. ``ECHO_ASR_*`` read what a listener heard, the pauses of playback
included; those ending in ``_NoPause`` read the model's output pieces joined. Unlike SimulEval's own, a
recogniser that is missing stops the evaluation before it starts, rather than score 0.
"""

from __future__ import annotations

import math
import unicodedata
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import soundfile
from sacrebleu.metrics import BLEU, CHRF
from simuleval.evaluator.scorers.quality_scorer import QualityScorer, register_quality_scorer

from echostream.simuleval.asr import Transcriber, find_model
from echostream.simuleval.instances import AnyInstance, find_records

TRANSCRIPTS = "transcripts.jsonl"


def normalise(text: str) -> str:
    """Lower case, apostrophes kept inside words, other punctuation and symbols to spaces, single spaces."""
    text = unicodedata.normalize("NFKC", text).lower().replace("’", "'")
    kept = (c if c == "'" or unicodedata.category(c)[0] not in "PSC" else " " for c in text)
    words = (word.strip("'") for word in "".join(kept).split())
    return " ".join(word for word in words if word)


def bleu(hypotheses: Sequence[str], references: Sequence[str]) -> float:
    """Corpus BLEU of normalised text (sacrebleu, 13a), 0 to 100."""
    return _sacrebleu(BLEU(), hypotheses, references)


def chrf(hypotheses: Sequence[str], references: Sequence[str]) -> float:
    """Corpus chrF2 of normalised text (sacrebleu), 0 to 100."""
    return _sacrebleu(CHRF(), hypotheses, references)


def _sacrebleu(metric: BLEU | CHRF, hypotheses: Sequence[str], references: Sequence[str]) -> float:
    return metric.corpus_score([normalise(h) for h in hypotheses], [[normalise(r) for r in references]]).score


def word_errors(hypothesis: Sequence[str], reference: Sequence[str]) -> int:
    """Least insertions, deletions and substitutions between two lists of words (Levenshtein)."""
    row = list(range(len(reference) + 1))
    for i, word in enumerate(hypothesis, 1):
        diagonal, row[0] = row[0], i
        for j, other in enumerate(reference, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (word != other))
    return row[-1]


def wer(hypotheses: Sequence[str], references: Sequence[str]) -> float:
    """Word errors of normalised text, per 100 words of all references; NaN without any."""
    pairs = [(normalise(h).split(), normalise(r).split()) for h, r in zip(hypotheses, references, strict=True)]
    words = sum(len(reference) for _, reference in pairs)
    return 100.0 * sum(word_errors(h, r) for h, r in pairs) / words if words else math.nan


def remove_pauses(samples: np.ndarray, sample_rate: int, intervals: Sequence[Sequence[float]]) -> np.ndarray:
    """Cut the pauses of playback out of SimulEval's file.

    ``samples (n,)`` start with the first of ``intervals``, each the (start, duration) in ms of a piece of
    output.
    """
    if not intervals:
        return samples
    pieces, position, previous_end = [], 0, intervals[0][0]
    for start, duration in intervals:
        position += int(sample_rate * max(0.0, start - previous_end) / 1000)  # rounded as SimulEval does
        length = round(duration * sample_rate / 1000)
        pieces.append(samples[position : position + length])
        position += length
        previous_end = start + duration
    return np.concatenate(pieces)


def own_text(instances: Mapping[int, AnyInstance], output: Path | None) -> list[str]:
    """What the model said in each instance: its text output or, for speech, the text it meant to say."""
    if not any(hasattr(item, "durations") for item in instances.values()):
        return [item.prediction for item in instances.values()]
    return [record.text for record in find_records(instances, output).values()]


class TextScorer(QualityScorer):
    """A metric of the model's text against the reference; with speech output, of the text it meant to say."""

    metric = staticmethod(bleu)

    def __init__(self, output: Path | None = None) -> None:
        super().__init__()
        self.output = output

    @classmethod
    def from_args(cls, args: Namespace) -> TextScorer:
        """Build the metric from SimulEval's arguments."""
        return cls(None if args.output is None else Path(args.output))

    def __call__(self, instances: Mapping[int, AnyInstance]) -> float:
        references = [item.reference for item in instances.values()]
        return type(self).metric(own_text(instances, self.output), references)


class SpeechScorer(QualityScorer):
    """A metric of what a recogniser reads in the output speech."""

    metric = staticmethod(bleu)
    keep_pauses = True
    against_own_text = False

    def __init__(self, model: Path, language: str, output: Path) -> None:
        super().__init__()
        self.output = output
        self.model, self.language = model, language

    @staticmethod
    def add_args(parser: ArgumentParser) -> None:
        """Options of the recogniser."""
        parser.add_argument(
            "--asr-model",
            help="recogniser of output speech: base, tiny.en or a CTranslate2 Whisper directory "
            "(default: base if installed, else tiny.en for English)",
        )
        parser.add_argument("--target-speech-lang", default="en", help="language of the output speech")

    @classmethod
    def from_args(cls, args: Namespace) -> SpeechScorer:
        """Find the recogniser before anything is evaluated.

        Raises:
            SystemExit: it is missing, or there is no ``--output``.
        """
        if args.output is None:
            raise SystemExit("error: ECHO_ASR_ metrics need --output")
        try:
            model = find_model(args.asr_model, args.target_speech_lang)
        except ValueError as error:
            raise SystemExit(f"error: {error}") from error
        return cls(model, args.target_speech_lang, Path(args.output))

    def transcripts(self, instances: Mapping[int, AnyInstance]) -> list[str]:
        """What is heard in the output of each instance."""
        # made now, so that it knows what the metric before has had read
        transcriber = Transcriber(self.model, self.language, cache=self.output / TRANSCRIPTS)
        texts = []
        for item in instances.values():
            path = Path(item.prediction)
            if not path.is_file():
                path = self.output / "wavs" / path.name  # the output directory was moved
            # SimulEval writes no file for an output without speech, and may leave that of an earlier run
            if not item.durations or not path.is_file():
                texts.append("")
                continue
            samples, sample_rate = soundfile.read(path, dtype="float32")
            if not self.keep_pauses:
                samples = remove_pauses(samples, sample_rate, item.intervals)
            texts.append(transcriber(samples, sample_rate))
        return texts

    def __call__(self, instances: Mapping[int, AnyInstance]) -> float:
        if not all(hasattr(item, "durations") for item in instances.values()):
            raise ValueError(f"{type(self).__name__} is for speech output: leave ASR_ out of its name for text")
        if self.against_own_text:
            references = own_text(instances, self.output)
        else:
            references = [item.reference for item in instances.values()]
        return type(self).metric(self.transcripts(instances), references)


def _register(name: str, base: type[QualityScorer], doc: str, **members: object) -> None:
    register_quality_scorer(name)(type(name, (base,), {"__doc__": doc, **members}))


for _name, _metric in {"BLEU": bleu, "chrF": chrf, "WER": wer}.items():
    _metric_member = {"metric": staticmethod(_metric)}
    _register(f"ECHO_{_name}", TextScorer, f"{_name} of the model's text.", **_metric_member)
    _register(f"ECHO_ASR_{_name}", SpeechScorer, f"{_name} of the speech as played, pauses kept.", **_metric_member)
    _register(
        f"ECHO_ASR_{_name}_NoPause",
        SpeechScorer,
        f"{_name} of the speech without the pauses of playback.",
        keep_pauses=False,
        **_metric_member,
    )
_register(
    "ECHO_ASR_WER_OwnText",
    SpeechScorer,
    "WER against the model's own text, without pauses: how well its voice can be understood.",
    metric=staticmethod(wer),
    keep_pauses=False,
    against_own_text=True,
)
