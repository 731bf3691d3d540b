"""Quality metrics for SimulEval's ``--quality-metrics``, of text and of speech transcribed by a recogniser.

Text is compared in lower case and without punctuation. The ``ECHO_ASR_*`` metrics transcribe the output speech as it is
played, pauses included; those with the suffix ``_NoPause`` transcribe it without the pauses of playback. Transcripts
and references are normalised first, see :mod:`echostream.evaluation.spoken_form`. A suffix such as ``@tiny.en`` selects
the recogniser of this metric instead of ``--asr-model``, so that one run can use several recognisers. If a recogniser
is missing, the evaluation does not start, whereas SimulEval's own metrics give a score of 0.

``ECHO_Source*`` and ``ECHO_ST_*`` evaluate the model's CTC heads, which helps to tell recognition errors from
translation errors.
"""

from __future__ import annotations

import math
import unicodedata
from argparse import ArgumentParser, Namespace
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import soundfile
from sacrebleu.metrics import BLEU, CHRF
from simuleval.evaluator.scorers.quality_scorer import QualityScorer, register_quality_scorer

from echostream.evaluation.asr import INSTALL, Transcriber, find_model
from echostream.evaluation.instances import AnyInstance, find_records, speech_file
from echostream.evaluation.spoken_form import spoken_form
from echostream.text import text_lines, word_errors

TRANSCRIPTS = "transcripts.jsonl"


def normalise(text: str) -> str:
    """Convert to lower case, and replace punctuation and symbols other than apostrophes in words by single spaces."""
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


def wer(hypotheses: Sequence[str], references: Sequence[str]) -> float:
    """Word error rate of normalised text over all pairs, in percent; NaN if the references are empty."""
    errors, words = word_errors(map(normalise, hypotheses), map(normalise, references))
    return 100.0 * errors / words if words else math.nan


def matched_words(hypotheses: Sequence[str], references: Sequence[str]) -> tuple[int, int, int]:
    """Word counts of normalised texts: matches in any order, words of the hypotheses, words of the references."""
    counts = [
        (Counter(normalise(h).split()), Counter(normalise(r).split()))
        for h, r in zip(hypotheses, references, strict=True)
    ]
    hypothesis_words, reference_words = (sum(side.total() for side in sides) for sides in zip(*counts, strict=True))
    return sum((h & r).total() for h, r in counts), hypothesis_words, reference_words


def unigram_recall(hypotheses: Sequence[str], references: Sequence[str]) -> float:
    """Share of the reference words that are in the hypotheses, in percent; NaN if the references are empty."""
    matched, _, reference_words = matched_words(hypotheses, references)
    return 100.0 * matched / reference_words if reference_words else math.nan


def unigram_precision(hypotheses: Sequence[str], references: Sequence[str]) -> float:
    """Share of the hypothesis words that are in the references, in percent; NaN if the hypotheses are empty."""
    matched, hypothesis_words, _ = matched_words(hypotheses, references)
    return 100.0 * matched / hypothesis_words if hypothesis_words else math.nan


def remove_pauses(samples: np.ndarray, sample_rate: int, intervals: Sequence[Sequence[float]]) -> np.ndarray:
    """Remove the pauses of playback from the output speech that SimulEval has written.

    Args:
        samples: ``(n,)``, starting at the start of the first interval.
        sample_rate: in Hz.
        intervals: ``(start, duration)`` of each piece of output, in ms.
    """
    if not intervals:
        return samples
    pieces, position, previous_end = [], 0, intervals[0][0]
    for start, duration in intervals:
        position += int(sample_rate * max(0.0, start - previous_end) / 1000)  # SimulEval rounds in the same way
        length = round(duration * sample_rate / 1000)
        pieces.append(samples[position : position + length])
        position += length
        previous_end = start + duration
    return np.concatenate(pieces)


def own_text(instances: Mapping[int, AnyInstance], output: Path | None) -> list[str]:
    """The model's translation of each instance as text, also for speech output."""
    if not any(hasattr(item, "durations") for item in instances.values()):
        return [item.prediction for item in instances.values()]
    return [record.text for record in find_records(instances, output).values()]


class TextScorer(QualityScorer):
    """A metric of the model's translation as text, also for speech output, against the reference."""

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


class EvidenceScorer(TextScorer):
    """A metric of the greedy path of the ST CTC, which is the evidence of the policy, against the reference."""

    def __call__(self, instances: Mapping[int, AnyInstance]) -> float:
        evidence = [record.evidence for record in find_records(instances, self.output).values()]
        return type(self).metric(evidence, [item.reference for item in instances.values()])


class SourceScorer(QualityScorer):
    """A metric of the model's transcript of the source against a reference transcript.

    Args:
        transcripts: file with the reference transcripts, one per line.
        output: SimulEval's output folder.
    """

    metric = staticmethod(wer)

    def __init__(self, transcripts: Path, output: Path | None = None) -> None:
        super().__init__()
        self.transcripts, self.output = transcripts, output

    @staticmethod
    def add_args(parser: ArgumentParser) -> None:
        """Option for the reference transcripts."""
        parser.add_argument("--source-text", metavar="TEXT", help="transcripts of the sources, one a line")

    @classmethod
    def from_args(cls, args: Namespace) -> SourceScorer:
        """Build the metric; SimulEval calls this before the evaluation starts.

        Raises:
            SystemExit: the file of transcripts does not exist.
        """
        path = None if args.source_text is None else Path(args.source_text)
        if path is None or not path.is_file():
            raise SystemExit(
                f"error: ECHO_Source metrics need the sources' transcripts: no file {path} (--source-text)"
            )
        return cls(path, None if args.output is None else Path(args.output))

    def __call__(self, instances: Mapping[int, AnyInstance]) -> float:
        lines = text_lines(self.transcripts)
        records = list(find_records(instances, self.output).values())
        if max(record.index for record in records) >= len(lines):
            raise ValueError(f"{self.transcripts} has {len(lines)} lines, too few for the sources")
        hypotheses = [record.source_text for record in records]
        return type(self).metric(hypotheses, [lines[record.index] for record in records])


class SpeechScorer(QualityScorer):
    """A metric of the output speech as transcribed by a recogniser."""

    metric = staticmethod(bleu)
    recogniser: str | None = None  # None: that of --asr-model
    keep_pauses = True
    against_own_text = False

    def __init__(
        self, model: Path, language: str, output: Path, compute: str = "float32", cache: Path | None = None
    ) -> None:
        super().__init__()
        self.output = output
        self.model, self.language, self.compute = model, language, compute
        self.cache = cache or output / TRANSCRIPTS

    @staticmethod
    def add_args(parser: ArgumentParser) -> None:
        """Options of the recogniser."""
        parser.add_argument(
            "--asr-model",
            help="recogniser of output speech: base, tiny.en or a CTranslate2 Whisper directory "
            "(default: base if installed, else tiny.en for English)",
        )
        parser.add_argument("--target-speech-lang", default="en", help="language of the output speech")
        parser.add_argument(
            "--asr-compute", choices=("float32", "int8"), default="float32", help="number format of the recogniser"
        )
        parser.add_argument(
            "--asr-cache", metavar="FILE", help="file of known transcripts (default: transcripts.jsonl in --output)"
        )

    @classmethod
    def from_args(cls, args: Namespace) -> SpeechScorer:
        """Build the metric; SimulEval calls this before the evaluation starts.

        Raises:
            SystemExit: the recogniser or the normalisation is not installed, or ``--output`` is missing.
        """
        if args.output is None:
            raise SystemExit("error: ECHO_ASR_ metrics need --output")
        try:
            model = find_model(cls.recogniser or args.asr_model, args.target_speech_lang)
            spoken_form(args.target_speech_lang)
        except ValueError as error:
            raise SystemExit(f"error: {error}") from error
        cache = Path(args.asr_cache) if args.asr_cache else None
        return cls(model, args.target_speech_lang, Path(args.output), args.asr_compute, cache)

    def transcripts(self, instances: Mapping[int, AnyInstance]) -> list[str]:
        """Transcripts of the output speech of each instance."""
        # Created here and not in the constructor, so that it reads the transcripts that other metrics have cached.
        transcriber = Transcriber(self.model, self.language, self.cache, self.compute)
        texts = []
        for item in instances.values():
            path = speech_file(item)
            if not path.is_file():
                path = self.output / "wavs" / path.name  # the output folder has been moved
            # SimulEval writes no file for an output without speech, but a file of an earlier run may exist.
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
        normalise_spelling = spoken_form(self.language)
        return type(self).metric(
            list(map(normalise_spelling, self.transcripts(instances))), list(map(normalise_spelling, references))
        )


def _register(name: str, base: type[QualityScorer], doc: str | None, **members: object) -> None:
    register_quality_scorer(name)(type(name, (base,), {"__doc__": doc, **members}))


def _register_speech(name: str, doc: str, **members: object) -> None:
    _register(name, SpeechScorer, doc, **members)
    for model in INSTALL:
        doc_of_model = f"{doc} Transcribed by Whisper {model}."
        _register(f"{name}@{model}", SpeechScorer, doc_of_model, recogniser=model, **members)


for _name, _metric in {"BLEU": bleu, "chrF": chrf, "WER": wer}.items():
    _member: dict[str, Callable] = {"metric": staticmethod(_metric)}
    _register(f"ECHO_{_name}", TextScorer, f"{_name} of the model's text.", **_member)
    _register_speech(f"ECHO_ASR_{_name}", f"{_name} of the speech as played, pauses kept.", **_member)
    _register_speech(
        f"ECHO_ASR_{_name}_NoPause",
        f"{_name} of the speech without the pauses of playback.",
        keep_pauses=False,
        **_member,
    )
_register_speech(
    "ECHO_ASR_WER_OwnText",
    "WER of the speech without pauses against the model's own text: intelligibility of the voice.",
    metric=staticmethod(wer),
    keep_pauses=False,
    against_own_text=True,
)
_register("ECHO_SourceWER", SourceScorer, "WER of the model's transcript of the source.")
_register("ECHO_ST_Recall", EvidenceScorer, unigram_recall.__doc__, metric=staticmethod(unigram_recall))
_register("ECHO_ST_Precision", EvidenceScorer, unigram_precision.__doc__, metric=staticmethod(unigram_precision))
