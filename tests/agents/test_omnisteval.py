"""OmniSTEval (Polák et al. 2025, arXiv:2509.17349) reads the logs of the agents: their words, and when each was there.

It is a program of its own, with dependencies that EchoStream needs for nothing else: `pip install OmniSTEval` anywhere.
"""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from test_agents import corpus, no_agents, one_thread, simuleval, speech  # noqa: F401  # fixtures

from echostream.evaluation.record import UtteranceRecord, load_records

OMNISTEVAL = shutil.which("omnisteval")
pytestmark = pytest.mark.skipif(OMNISTEVAL is None, reason="needs OmniSTEval")
# As docs/guides/evaluation.md says it. The keys of text are those that OmniSTEval looks for by itself.
KEYS = {"s2tt": [], "s2st": ["--emission_cu_key", "word_delays", "--emission_ca_key", "word_elapsed"]}


def omnisteval(form: str, task: str, log: Path, folder: Path, *options: str) -> dict[str, float]:
    """Its scores, the references being the predictions themselves."""
    texts = [json.loads(line)["prediction"] for line in log.read_text(encoding="utf-8").splitlines()]
    references = folder / "references.txt"
    references.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    command = [OMNISTEVAL, form, "--hypothesis_file", log, "--ref_sentences_file", references, "--word_level"]
    command += ["--output_folder", folder / form, *KEYS[task], *options]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line.split("\t") for line in (folder / form / "scores.tsv").read_text(encoding="utf-8").splitlines()[1:]]
    return {name: float(value) for name, value in rows if value not in ("YES", "NO")}


def heard_ms(record: UtteranceRecord, task: str, computation_aware: bool) -> list[float]:
    """When each word was shown or, of speech, its end was heard: from the steps alone, sample by sample."""
    ready, played = 0.0, 0.0
    shown, ends = [], []  # of each step; of the pieces: in the output without pauses, and when they have been heard
    for step in record.steps:
        ready = max(ready, step.arrived_ms) + step.compute_ms if computation_aware else step.arrived_ms
        shown.append(ready)
        if step.output_ms:
            played = max(played, ready) + step.output_ms
            ends.append((step.output_ms + (ends[-1][0] if ends else 0.0), played))
    if task == "s2tt":
        return [shown[step] for step, _ in record.words]
    pieces = [next((piece for piece in ends if word.end_ms <= piece[0] + 0.04), ends[-1]) for _, word in record.words]
    return [
        heard - max(0.0, position - word.end_ms)
        for (_, word), (position, heard) in zip(record.words, pieces, strict=True)
    ]


def lagging(word_ms: list[float], source_ms: float) -> float:
    """LAAL of a hypothesis that is as long as its reference, in ms."""
    until = next((i for i, time in enumerate(word_ms) if time >= source_ms), len(word_ms) - 1) + 1
    if word_ms[0] > source_ms:
        return word_ms[0]
    return sum(time - i * source_ms / len(word_ms) for i, time in enumerate(word_ms[:until])) / until


@pytest.mark.parametrize("size", ["40", "320"])
@pytest.mark.parametrize("task", KEYS)
def test_words_and_both_clocks(task, size, corpus, tmp_path, monkeypatch):  # noqa: F811
    output, log = tmp_path / "out", tmp_path / "out/instances.log"
    options = ["--source-segment-size", size, "--output", str(output), "--end-index", "1", "--computation-aware"]
    simuleval(monkeypatch, task, *corpus, *options)
    record = load_records(output)[0]
    scores = omnisteval("shortform", task, log, tmp_path)
    assert scores["chrF"] == pytest.approx(100)  # words, not the names of files
    for clock, computation_aware in (("CU", False), ("CA", True)):
        expected = lagging(heard_ms(record, task, computation_aware), record.source_ms)
        assert scores[f"LAAL ({clock})"] == pytest.approx(expected, abs=0.1)
    ideal_ms, aware_ms = (heard_ms(record, task, computation_aware) for computation_aware in (False, True))
    assert ideal_ms and all(aware > ideal for aware, ideal in zip(aware_ms, ideal_ms, strict=True))

    # The recording as one segment of itself: a word for each time, or OmniSTEval would stop.
    segment = {"wav": "a.wav", "offset": 0.0, "duration": record.source_ms / 1000}
    (tmp_path / "segments.json").write_text(json.dumps([segment]), encoding="utf-8")
    long = omnisteval("longform", task, log, tmp_path, "--speech_segmentation", str(tmp_path / "segments.json"))
    assert long["chrF"] == pytest.approx(100)
    assert long["LongLAAL (CA)"] == pytest.approx(scores["LAAL (CA)"], abs=0.1)
