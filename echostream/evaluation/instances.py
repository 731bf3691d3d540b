"""SimulEval's instances of speech input, which also keep what the agent tells about its steps.

Beside that they put two things of SimulEval 1.1.4 right: it reads every source of the test set (three
times) into Python lists before the first utterance starts, and it writes ``"elapsed": []`` for speech
output, at which ``--computation-aware`` stops.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

from simuleval.data.dataloader import SpeechToTextDataloader
from simuleval.data.segments import Segment
from simuleval.evaluator import SentenceLevelEvaluator
from simuleval.evaluator.instance import (
    INSTANCE_TYPE_DICT,
    Instance,
    LogInstance,
    SpeechToSpeechInstance,
    SpeechToTextInstance,
)

from echostream.audio.errors import AudioError
from echostream.audio.input import read_audio
from echostream.evaluation import explained
from echostream.evaluation.record import CONFIG_KEY, StepRecord, UtteranceRecord, append_record, load_records

AnyInstance: TypeAlias = Instance | LogInstance

ERROR_KEY = "echostream_error"  # in Segment.config: a refusal by an agent that runs in a server
SOURCE_KEY = "echostream_source"  # in Segment.config: what to call the source

_begun: set[Path] = set()  # output directories that this process has written records to


class RecordingInstance(Instance):
    """Mixed into SimulEval's speech-input instances: source read when its turn comes, records kept.

    ``record``: the agent's steps so far; it stays without steps for other agents, and is then not written.
    """

    sample_list: Any  # SimulEval's: the samples, None before the first use
    prediction_list: Any

    def __init__(self, index: int, dataloader: SpeechToTextDataloader, args: Namespace) -> None:
        super().__init__(index, None, args)  # no dataloader: nothing is read yet
        self.dataloader = dataloader
        self.reference = dataloader.get_target(index)
        self.tgt_lang = dataloader.get_tgt_lang(index)
        path = dataloader.get_source_audio_path(index)
        self.name = f"source {index + 1} of the list"
        if not Path(path).is_file():
            raise SystemExit(f"error: {self.name} is no file: {path!r}")
        self._source_samples = 0
        self._summary: dict | None = None
        self.record = UtteranceRecord(index, 0.0)

    @property
    def source(self) -> list[float]:
        """The source's samples, kept from the first use to the end of the utterance.

        Raises:
            SystemExit: no recording, a damaged one, or one that is cut short or holds NaN or infinity.
        """
        if self.sample_list is None:
            try:
                samples, _ = read_audio(self.dataloader.get_source_audio_path(self.index))
            except AudioError as error:
                raise SystemExit(f"error: {self.name}: {error}") from error
            self.sample_list = (samples[:, 0] if samples.shape[1] == 1 else samples).tolist()
            self._source_samples = len(self.sample_list)
            self.record.source_ms = self.len_sample_to_ms(self._source_samples)
        return self.sample_list

    @property
    def source_length(self) -> float:
        """Length of the source, ms."""
        if not self._source_samples:
            self._source_samples = len(self.source)
        return self.len_sample_to_ms(self._source_samples)

    @property
    def sample_rate(self) -> int:
        """Of the source, Hz; the source is read first, since that says what is wrong with it."""
        if self.sample_rate_value is None:
            _ = self.source
        return super().sample_rate

    def send_source(self, segment_size: int = 10) -> Segment:
        """The next ``segment_size`` ms, with what to call the source if it can't be used."""
        segment = super().send_source(segment_size)
        segment.config[SOURCE_KEY] = f"{self.name}, {self.dataloader.get_source_audio_path(self.index)}"
        return segment

    def receive_prediction(self, prediction: Segment) -> None:
        """Take an output segment and the record of the step that made it.

        Raises:
            SystemExit: an agent in a server refused the source.
        """
        if ERROR_KEY in prediction.config:
            raise SystemExit(f"error: {prediction.config[ERROR_KEY]}")
        if CONFIG_KEY in prediction.config:
            self.record.steps.append(StepRecord.from_dict(prediction.config[CONFIG_KEY]))
        super().receive_prediction(prediction)
        if self.finish_prediction and self.source_finished_reading:
            self.sample_list = None

    def summarize(self) -> dict:
        """The line for ``instances.log``; the first one at the end also writes that of ``steps.jsonl``."""
        if self._summary is not None:
            return self._summary
        summary = super().summarize()
        summary["elapsed"] = self.elapsed
        if self.finish_prediction and self.source_finished_reading:
            self._write_record()
            self._summary = summary
            if hasattr(self, "durations"):  # output speech is in its file now
                self.prediction_list = []
        return summary

    def _write_record(self) -> None:
        if self.args.output is None or not self.record.steps:
            return
        output = Path(self.args.output)
        resumed = output in _begun or getattr(self.args, "continue_unfinished", False)
        append_record(output, self.record, fresh=not resumed)
        _begun.add(output)


class RecordingSpeechToSpeechInstance(RecordingInstance, SpeechToSpeechInstance):
    """Speech to speech."""


class RecordingSpeechToTextInstance(RecordingInstance, SpeechToTextInstance):
    """Speech to text. SimulEval puts a space before everything it gets; the rest of a word has none."""

    def receive_prediction(self, prediction: Segment) -> None:
        """Take new text; what goes on from the word before is joined to it."""
        text = prediction.content
        step = prediction.config.get(CONFIG_KEY)
        if step and text and self.prediction_list and self.latency_unit == "word" and not text[0].isspace():
            rest, *words = text.split(maxsplit=1)
            self.prediction_list[-1] += rest
            prediction = replace(prediction, content="".join(words))
        super().receive_prediction(prediction)


def install() -> None:
    """Make SimulEval use these instances, in the local and the remote evaluator. May be called again."""
    explained.install()
    INSTANCE_TYPE_DICT["speech-speech"] = RecordingSpeechToSpeechInstance
    INSTANCE_TYPE_DICT["speech-text"] = RecordingSpeechToTextInstance
    # 1.1.4: RemoteEvaluator iterates over an attribute that SentenceLevelEvaluator calls `iterator`
    if not hasattr(SentenceLevelEvaluator, "instance_iterator"):
        SentenceLevelEvaluator.instance_iterator = property(lambda evaluator: evaluator.iterator)


def find_records(instances: Mapping[int, AnyInstance], output: Path | str | None) -> dict[int, UtteranceRecord]:
    """The record of every instance, by the instance's key.

    ``output``: SimulEval's output directory, for instances that were read back from its log.

    Raises:
        ValueError: an instance has none, or that of another source.
    """
    kept = None
    found = {}
    for key, instance in instances.items():
        record = getattr(instance, "record", None)
        if record is None:
            if kept is None:
                if output is None:
                    raise ValueError("the ECHO_ metrics need --output")
                kept = load_records(output)
            record = kept.get(instance.index)
        if record is None or not record.steps:
            raise ValueError(
                f"no steps of utterance {instance.index}: the ECHO_ metrics need a run of an EchoStream agent"
            )
        if abs(record.source_ms - instance.source_length) > 1:
            raise ValueError(
                f"utterance {instance.index} has {instance.source_length:.0f} ms in instances.log but "
                f"{record.source_ms:.0f} ms in steps.jsonl: the logs are of two runs, run it again"
            )
        found[key] = record
    return found
