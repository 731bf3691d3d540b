"""Records of the steps of an agent, from which the ``ECHO_`` metrics are computed.

SimulEval's own ``instances.log`` contains no compute times for speech output and no words. The agents therefore put a
:class:`StepRecord` into the ``config`` of every segment they return, which also works in SimulEval's remote mode. The
instances of :mod:`echostream.evaluation.instances` collect the records and write them to ``steps.jsonl`` in the output
folder, one JSON line per utterance.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from echostream.text import text_lines

CONFIG_KEY = "echostream"  # in Segment.config
LOG_NAME = "steps.jsonl"


@dataclass(frozen=True)
class WordRecord:
    """A target word (in an ASR agent: a source word).

    Attributes:
        text: the word.
        source_ms: length of the source audio that the model had processed when it committed the word.
        start_ms, end_ms: position in the output audio without the pauses of playback; for a source word, in the source
            audio.
        joined: it goes on with the word before, without a space.
    """

    text: str
    source_ms: float
    start_ms: float
    end_ms: float
    joined: bool = False


@dataclass(frozen=True)
class StepRecord:
    """One call of the agent.

    Attributes:
        arrived_ms: length of the source audio received so far.
        compute_ms: compute time of the step.
        output_ms: length of the audio that it returned.
        text: text added to the output, with a space before each new word.
        source_text: text added to the transcript of the source, likewise.
        words: committed words.
        evidence: text added to the greedy path of the ST CTC, likewise.
        source_words: recognised words, with times in the source audio; their joined texts are ``source_text``.
        sentence_ends: for each sentence of the translation that ended, the characters of ``text`` before its end; 0: it
            ended with an earlier step.
    """

    arrived_ms: float
    compute_ms: float
    output_ms: float = 0.0
    text: str = ""
    source_text: str = ""
    words: tuple[WordRecord, ...] = ()
    evidence: str = ""
    source_words: tuple[WordRecord, ...] = ()
    sentence_ends: tuple[int, ...] = ()

    def to_dict(self) -> dict:
        """Convert to JSON types. Empty fields are omitted, because with short segments most steps return nothing."""
        values = {**asdict(self), "sentence_ends": list(self.sentence_ends)}
        for name in ("words", "source_words"):
            values[name] = [{key: value for key, value in word.items() if value is not False} for word in values[name]]
        return {key: value for key, value in values.items() if value or key in ("arrived_ms", "compute_ms")}

    @classmethod
    def from_dict(cls, values: Mapping) -> StepRecord:
        """The inverse of :meth:`to_dict`."""
        words = {name: tuple(WordRecord(**word) for word in values.get(name, ())) for name in ("words", "source_words")}
        return cls(**{**values, **words, "sentence_ends": tuple(values.get("sentence_ends", ()))})


@dataclass
class UtteranceRecord:
    """All steps of one utterance; ``index`` is SimulEval's index, ``source_ms`` the length of the source."""

    index: int
    source_ms: float
    steps: list[StepRecord] = field(default_factory=list)

    @property
    def words(self) -> list[tuple[int, WordRecord]]:
        """Every word with the index of the step that committed it; of one that was split, the last part's."""
        found: list[tuple[int, WordRecord]] = []
        for i, step in enumerate(self.steps):
            for word in step.words:
                if word.joined and found:
                    _, begun = found.pop()
                    word = replace(word, text=begun.text + word.text, start_ms=begun.start_ms, joined=begun.joined)
                found.append((i, word))
        return found

    @property
    def text(self) -> str:
        """The model's translation as text."""
        return "".join(step.text for step in self.steps).strip()

    @property
    def source_text(self) -> str:
        """The model's transcript of the source."""
        return "".join(step.source_text for step in self.steps).strip()

    @property
    def evidence(self) -> str:
        """Greedy path of the ST CTC as text."""
        return "".join(step.evidence for step in self.steps).strip()

    def to_json(self) -> str:
        """One line of JSON, without a line break."""
        steps = [step.to_dict() for step in self.steps]
        return json.dumps({"index": self.index, "source_ms": self.source_ms, "steps": steps}, ensure_ascii=False)

    @classmethod
    def from_json(cls, line: str) -> UtteranceRecord:
        """The inverse of :meth:`to_json`."""
        values = json.loads(line)
        steps = [StepRecord.from_dict(step) for step in values["steps"]]
        return cls(values["index"], values["source_ms"], steps)


def append_record(output: Path | str, record: UtteranceRecord, fresh: bool = False) -> None:
    """Append one utterance to ``steps.jsonl`` in ``output``; ``fresh`` replaces the file of an earlier run."""
    path = Path(output) / LOG_NAME
    line = record.to_json() + "\n"
    if not fresh and path.is_file():
        with path.open("rb") as file:  # a killed run may have left an incomplete line
            file.seek(-min(1, path.stat().st_size), 2)
            line = line if file.read() in (b"", b"\n") else "\n" + line
    with path.open("w" if fresh else "a", encoding="utf-8") as file:
        file.write(line)


def load_records(output: Path | str) -> dict[int, UtteranceRecord]:
    """Read ``steps.jsonl`` in SimulEval's ``--output`` folder; the keys are the indices of the utterances.

    A resumed run appends to the file, so the last line of an index is used. Incomplete lines of a killed run are
    skipped.

    Raises:
        ValueError: the file does not exist.
    """
    path = Path(output) / LOG_NAME
    if not path.is_file():
        raise ValueError(f"{path} is missing: the ECHO_ metrics need the log that EchoStream's agents make")
    records = {}
    for line in text_lines(path):
        try:
            record = UtteranceRecord.from_json(line)
        except json.JSONDecodeError:
            continue
        records[record.index] = record
    return records
