"""SimulEval instances of speech input that also collect the step records of the agent.

Sources of any sample rate and number of channels are converted, so that lists of recordings such as StreamSpeech's,
which name the clips of Common Voice, can be used as they are.

They also correct faults of SimulEval 1.1.4: it reads all sources of the test set into Python lists (three times)
before the first utterance starts; it writes ``"elapsed": []`` for speech output, which makes ``--computation-aware``
fail, and a file name as its ``prediction``; and it takes speech that it reads back from its log for text.

``elapsed`` has the computation-aware clock of :mod:`echostream.evaluation.timeline`. SimulEval adds all compute time so
far to the length of the audio, as if the speaker waited for every step.
"""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import soundfile
from simuleval.data.dataloader import SpeechToTextDataloader
from simuleval.data.segments import Segment, SpeechSegment
from simuleval.evaluator import SentenceLevelEvaluator
from simuleval.evaluator import evaluator as simuleval_evaluator
from simuleval.evaluator.instance import (
    INSTANCE_TYPE_DICT,
    Instance,
    LogInstance,
    SpeechOutputInstance,
    SpeechToSpeechInstance,
    SpeechToTextInstance,
)

from echostream.audio.errors import AudioError
from echostream.audio.input import AudioStream, read_audio
from echostream.constants import SAMPLE_RATE
from echostream.evaluation import error_messages, simuleval_metrics
from echostream.evaluation.record import CONFIG_KEY, StepRecord, UtteranceRecord, append_record, load_records
from echostream.evaluation.timeline import Chunk, Timeline, discontinuities, play

AnyInstance: TypeAlias = Instance | LogInstance

ERROR_KEY = "echostream_error"  # in Segment.config: error message of an agent that runs in a server
SOURCE_KEY = "echostream_source"  # in Segment.config: name of the source for messages
# In instances.log, beside SimulEval's own keys.
SPEECH_FILE = "speech_file"  # the file that SimulEval itself names as the prediction
WORD_DELAYS, WORD_ELAPSED = "word_delays", "word_elapsed"

_folders_written: set[Path] = set()  # output folders to which this process has written records


def read_source(path: str) -> np.ndarray:
    """A recording as agents hear it, float32 ``(n,)`` @16 kHz: mixed down and converted as by ``echostream translate``.

    Raises:
        AudioError: the recording can't be read.
    """
    samples, rate = read_audio(path)
    if len(samples) == 0 or (rate, samples.shape[1]) == (SAMPLE_RATE, 1):
        return samples[:, 0]
    return np.concatenate(list(AudioStream(path, iter([samples]), rate, samples.shape[1])))


def word_times(record: UtteranceRecord) -> dict[str, list[float]]:
    """When each word of a spoken translation has been heard, in ms on either clock: what ``delays`` and ``elapsed`` are
    for text. For speech, SimulEval's own are of pieces of sound."""
    clocks = {WORD_DELAYS: False, WORD_ELAPSED: True}
    return {key: Timeline.of(record, True, computation_aware).word_ms for key, computation_aware in clocks.items()}


class RecordingInstance(Instance):
    """Mixin for SimulEval's instances of speech input: reads the source when it is needed, and collects records.

    Attributes:
        record: steps of the agent so far. Agents other than EchoStream's send no records; then nothing is written.
    """

    sample_list: Any  # SimulEval's attribute: the samples of the source; None before it is first used
    prediction_list: Any

    def __init__(self, index: int, dataloader: SpeechToTextDataloader, args: Namespace) -> None:
        super().__init__(index, None, args)  # without a dataloader SimulEval reads nothing here
        self.dataloader = dataloader
        self.reference = dataloader.get_target(index)
        self.tgt_lang = dataloader.get_tgt_lang(index)
        path = dataloader.get_source_audio_path(index)
        self.name = f"source {index + 1} of the list"
        if not Path(path).is_file():
            raise SystemExit(f"error: {self.name} is no file: {path!r}")
        self._source_samples = 0
        self._is_read = False
        self._summary: dict | None = None
        self.record = UtteranceRecord(index, 0.0)
        self._ready_ms = 0.0  # when the last step was ready

    @property
    def source(self) -> np.ndarray:
        """Samples of the source, float32 ``(n,)`` @16 kHz, in memory from the first use to the end of the utterance.

        SimulEval's list of Python floats takes ten times as much: 2 GB for an hour.

        Raises:
            SystemExit: the recording is not readable, truncated, or contains NaN or infinity.
        """
        if self.sample_list is None:
            try:
                self.sample_list = read_source(self.dataloader.get_source_audio_path(self.index))
            except AudioError as error:
                raise SystemExit(f"error: {self.name}: {error}") from error
            self._source_samples = len(self.sample_list)
            self.record.source_ms = self.len_sample_to_ms(self._source_samples)
        return self.sample_list

    @property
    def source_length(self) -> float:
        """Length of the source in ms."""
        if not self._source_samples:
            self._source_samples = len(self.source)
        return self.len_sample_to_ms(self._source_samples)

    @property
    def sample_rate(self) -> int:
        """Sample rate of the samples in Hz, which is not that of the file where the source was converted.

        SimulEval's own property is asked for the header of the file alone, and the source is read before, which gives
        better error messages.
        """
        if not self._is_read:
            self._is_read = True
            _ = self.source
            self.audio_info = self.dataloader.get_source_audio_info(self.index)
        return SAMPLE_RATE

    def send_source(self, segment_size: int = 10) -> Segment:
        """The next ``segment_size`` ms of the source, with its name for error messages."""
        segment = super().send_source(segment_size)
        if isinstance(segment, SpeechSegment):
            segment.content = segment.content.tolist()
            segment.sample_rate = self.sample_rate  # SimulEval takes that of the file
        segment.config[SOURCE_KEY] = f"{self.name}, {self.dataloader.get_source_audio_path(self.index)}"
        return segment

    def receive_prediction(self, prediction: Segment) -> None:
        """Add an output segment, and the record of the step that produced it.

        Raises:
            SystemExit: an agent in a server reports an error of the source.
        """
        if ERROR_KEY in prediction.config:
            raise SystemExit(f"error: {prediction.config[ERROR_KEY]}")
        if CONFIG_KEY in prediction.config:
            step = StepRecord.from_dict(prediction.config[CONFIG_KEY])
            self.record.steps.append(step)
            # As in ready_times: a step starts when its audio has arrived and the step before is ready.
            self._ready_ms = max(step.arrived_ms, self._ready_ms) + step.compute_ms
        super().receive_prediction(prediction)
        if self.finish_prediction and self.source_finished_reading:
            self.sample_list = None

    def step_to_elapsed(self, step: int, current_time: float) -> float:
        """When the output of the last step is ready, in ms; SimulEval's own sum for agents that send no records."""
        return self._ready_ms if self.record.steps else super().step_to_elapsed(step, current_time)

    def summarize(self) -> dict:
        """The line for ``instances.log``; the first call after the end also writes the line of ``steps.jsonl``."""
        if self._summary is not None:
            return self._summary
        summary = super().summarize()
        summary["elapsed"] = self.elapsed
        if hasattr(self, "durations") and self.record.steps:
            summary |= {"prediction": self.record.text, SPEECH_FILE: summary["prediction"], **word_times(self.record)}
        if self.finish_prediction and self.source_finished_reading:
            self._write_record()
            self._summary = summary
            if hasattr(self, "durations"):  # the output speech has been written to its file
                self.prediction_list = []
        return summary

    def _write_record(self) -> None:
        if self.args.output is None or not self.record.steps:
            return
        output = Path(self.args.output)
        resumed = output in _folders_written or getattr(self.args, "continue_unfinished", False)
        append_record(output, self.record, fresh=not resumed)
        _folders_written.add(output)


class ArraySpeechOutput(SpeechOutputInstance):
    """SimulEval's speech output with its samples in arrays; in lists of floats an hour of it takes 2 GB, twice."""

    def receive_prediction(self, segment: Segment) -> None:
        """Add a piece of speech."""
        if isinstance(segment, SpeechSegment):
            segment = replace(segment, content=np.asarray(segment.content, dtype=np.float32))
        super().receive_prediction(segment)

    def summarize(self) -> dict:
        """Write the speech with the pauses of its playback, and return the line for ``instances.log``."""
        chunks = play(self.delays, self.durations)
        self.intervals = [[chunk.start, chunk.duration] for chunk in chunks]
        self.silences = discontinuities(chunks)
        pieces = []
        for i, samples in enumerate(self.prediction_list):
            gap_ms = chunks[i].start - chunks[i - 1].end if i else 0.0
            pieces += [np.zeros(int(self.target_sample_rate * gap_ms / 1000), dtype=np.float32), samples]
        speech = np.concatenate(pieces) if pieces else np.zeros(0, dtype=np.float32)
        if pieces:
            soundfile.write(self.wav_path, speech, self.target_sample_rate)
        return {
            "index": self.index,
            "prediction": self.wav_path.as_posix(),
            "delays": self.delays,
            "durations": self.durations,
            "prediction_offset": self.delays[0] if pieces else self.source_length,
            "elapsed": self.elapsed,
            "intervals": self.intervals,
            "prediction_length": len(speech) / self.target_sample_rate,
            "source_length": self.source_length,
            "reference": self.reference,
            "source": self.dataloader.get_source_audio_path(self.index),
        }


class RecordingSpeechToSpeechInstance(RecordingInstance, ArraySpeechOutput, SpeechToSpeechInstance):
    """Instance of speech-to-speech translation."""


class RecordingSpeechToTextInstance(RecordingInstance, SpeechToTextInstance):
    """Instance of speech-to-text translation that joins continuations to the previous word without a space."""

    def receive_prediction(self, prediction: Segment) -> None:
        """Add new text. SimulEval would put a space before it even where it continues the previous word.

        A word that is continued is there when its last part is.
        """
        text, continued = prediction.content, len(self.prediction_list) - 1
        step = prediction.config.get(CONFIG_KEY)
        joined = step and text and continued >= 0 and self.latency_unit == "word" and not text[0].isspace()
        if joined:
            rest, *words = text.split(maxsplit=1)
            self.prediction_list[continued] += rest
            prediction = replace(prediction, content="".join(words))
        super().receive_prediction(prediction)
        if joined:
            self.delays[continued] = self.step_to_delay(self.step)
            self.elapsed[continued] = self._ready_ms


class LoggedSpeech(SpeechOutputInstance):
    """Speech output read from SimulEval's log, which SimulEval's metrics then know for speech."""

    def __init__(self, values: Mapping[str, Any], latency_unit: str) -> None:  # without SimulEval's, which opens files
        self.info, self.latency_unit = values, latency_unit
        self.index, self.reference = values["index"], values.get("reference", "")
        self.source_length = values.get("source_length")
        self.delays, self.elapsed, self.durations = values["delays"], values["elapsed"], values["durations"]
        self.intervals = values.get("intervals", [])  # none where the source is text, which has no clock
        self.silences = discontinuities([Chunk(*interval) for interval in self.intervals])
        self.finish_prediction = True
        self.metrics: dict[str, float] = {}
        self.target_spm_model = None

    source_length: float | None = None  # a property of SimulEval's

    @property
    def prediction(self) -> str:
        """The words that were spoken; in logs of earlier versions, and of other agents, the file name."""
        return self.info["prediction"]

    @property
    def speech_file(self) -> Path:
        """The file with the output speech."""
        return Path(self.info.get(SPEECH_FILE, self.info["prediction"]))


def logged_instance(line: str, latency_unit: str = "word") -> LoggedSpeech | LogInstance:
    """The instance of a line of ``instances.log``, in place of SimulEval's class for both kinds of output."""
    values = json.loads(line)
    return LoggedSpeech(values, latency_unit) if "durations" in values else LogInstance(line, latency_unit)


def speech_file(instance: AnyInstance) -> Path:
    """The file with the output speech of an instance."""
    return instance.speech_file if isinstance(instance, LoggedSpeech) else Path(instance.prediction)


def install() -> None:
    """Make SimulEval's local and remote evaluators use these instances. Further calls have no effect."""
    error_messages.install()
    simuleval_metrics.install()
    simuleval_evaluator.LogInstance = logged_instance
    INSTANCE_TYPE_DICT["speech-speech"] = RecordingSpeechToSpeechInstance
    INSTANCE_TYPE_DICT["speech-text"] = RecordingSpeechToTextInstance
    # A fault of 1.1.4: RemoteEvaluator uses the name `instance_iterator` for the evaluator's attribute `iterator`.
    if not hasattr(SentenceLevelEvaluator, "instance_iterator"):
        SentenceLevelEvaluator.instance_iterator = property(lambda evaluator: evaluator.iterator)


def find_records(instances: Mapping[int, AnyInstance], output: Path | str | None) -> dict[int, UtteranceRecord]:
    """The record of every instance, with the keys of ``instances``.

    Args:
        instances: instances of this run, or read from SimulEval's log.
        output: SimulEval's output folder, for instances that were read from its log.

    Raises:
        ValueError: an instance has no record, or its record is that of another source.
    """
    logged = None
    found = {}
    for key, instance in instances.items():
        record = getattr(instance, "record", None)
        if record is None:
            if logged is None:
                if output is None:
                    raise ValueError("the ECHO_ metrics need --output")
                logged = load_records(output)
            record = logged.get(instance.index)
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
