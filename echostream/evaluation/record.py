"""What an agent did with an utterance, step by step: made by the agent, kept in ``steps.jsonl``, then scored.

SimulEval's own ``instances.log`` holds no compute times for speech output and no words. Our agents
therefore put a :class:`StepRecord` into the ``config`` of every segment they return, which travels through
SimulEval's remote mode as well, and the instances of :mod:`echostream.evaluation.instances` write them
beside ``instances.log``, one JSON line an utterance.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

CONFIG_KEY = "echostream"  # in Segment.config
LOG_NAME = "steps.jsonl"


@dataclass(frozen=True)
class WordRecord:
    """A target word (in an ASR agent: a source word).

    ``source_ms``: source audio that triggered it. ``start_ms``, ``end_ms``: its place in the model's own
    output audio, pauses of playback not counted; in the source audio for an ASR agent.
    """

    text: str
    source_ms: float
    start_ms: float
    end_ms: float


@dataclass(frozen=True)
class StepRecord:
    """One call of the agent.

    ``arrived_ms``: source audio received so far. ``compute_ms``: how long the step took. ``output_ms``:
    length of the audio it returned. ``text``, ``source_text``: what it added, a leading
    space where a word begins; ``evidence``: likewise, what the ST CTC read. ``words``: what it committed.
    ``source_words``: what it recognised, with times in the source audio and texts that joined are ``source_text``.
    """

    arrived_ms: float
    compute_ms: float
    output_ms: float = 0.0
    text: str = ""
    source_text: str = ""
    words: tuple[WordRecord, ...] = ()
    evidence: str = ""
    source_words: tuple[WordRecord, ...] = ()

    def to_dict(self) -> dict:
        """As plain JSON types, without empty fields: most steps of a 40 ms stream return nothing."""
        values = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}
        return {key: value for key, value in values.items() if value or key in ("arrived_ms", "compute_ms")}

    @classmethod
    def from_dict(cls, values: Mapping) -> StepRecord:
        """The inverse of :meth:`to_dict`."""
        words = {name: tuple(WordRecord(**word) for word in values.get(name, ())) for name in ("words", "source_words")}
        return cls(**{**values, **words})


@dataclass
class UtteranceRecord:
    """All steps of one utterance; ``index`` is SimulEval's, ``source_ms`` the length of the source."""

    index: int
    source_ms: float
    steps: list[StepRecord] = field(default_factory=list)

    @property
    def words(self) -> list[tuple[int, WordRecord]]:
        """Every word with the number of the step that committed it."""
        return [(i, word) for i, step in enumerate(self.steps) for word in step.words]

    @property
    def text(self) -> str:
        """What the model meant to say."""
        return "".join(step.text for step in self.steps).strip()

    @property
    def source_text(self) -> str:
        """What the model heard."""
        return "".join(step.source_text for step in self.steps).strip()

    @property
    def evidence(self) -> str:
        """What its ST CTC read."""
        return "".join(step.evidence for step in self.steps).strip()

    def to_json(self) -> str:
        """One line without its end."""
        steps = [step.to_dict() for step in self.steps]
        return json.dumps({"index": self.index, "source_ms": self.source_ms, "steps": steps}, ensure_ascii=False)

    @classmethod
    def from_json(cls, line: str) -> UtteranceRecord:
        """The inverse of :meth:`to_json`."""
        values = json.loads(line)
        steps = [StepRecord.from_dict(step) for step in values["steps"]]
        return cls(values["index"], values["source_ms"], steps)


def append_record(output: Path | str, record: UtteranceRecord, fresh: bool = False) -> None:
    """Add one utterance to ``steps.jsonl`` in ``output``; ``fresh`` drops what an earlier run left there."""
    path = Path(output) / LOG_NAME
    line = record.to_json() + "\n"
    if not fresh and path.is_file():
        with path.open("rb") as file:  # a killed run may have left half a line
            file.seek(-min(1, path.stat().st_size), 2)
            line = line if file.read() in (b"", b"\n") else "\n" + line
    with path.open("w" if fresh else "a", encoding="utf-8") as file:
        file.write(line)


def load_records(output: Path | str) -> dict[int, UtteranceRecord]:
    """Read ``steps.jsonl`` of a SimulEval ``--output`` directory, keyed by the utterance's index.

    A resumed run appends, so the last line of an index counts, and half a line, left by a kill, does not.

    Raises:
        ValueError: there is no such file.
    """
    path = Path(output) / LOG_NAME
    if not path.is_file():
        raise ValueError(f"{path} is missing: the ECHO_ metrics need the log that EchoStream's agents make")
    records = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            record = UtteranceRecord.from_json(line)
        except json.JSONDecodeError:
            continue
        records[record.index] = record
    return records
