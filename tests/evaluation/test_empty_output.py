"""Nothing said at all, or nothing of one source: every metric answers, and no evaluation stops for it."""

import json
import math

import pytest
from simuleval.evaluator.scorers.latency_scorer import LATENCY_SCORERS_DICT
from simuleval.evaluator.scorers.quality_scorer import QUALITY_SCORERS_DICT

from echostream.evaluation.simuleval_metrics import CONTINUITY, IDEAL_ONLY

# These count from ends of words that a file holds, or need a recogniser or an aligner.
LATENCY = [name for name in LATENCY_SCORERS_DICT if "SpeechAlign" not in name and "FirstWord" not in name]
QUALITY = [name for name in QUALITY_SCORERS_DICT if "ASR" not in name and name != "WER"]
# Of nothing these are something: no pause, and time that was spent nevertheless.
COUNTED = ("DiscontinuityNum", "DiscontinuitySum", "RTF", "StepP50", "StepP95")


def nothing_said(log) -> None:
    """Leave the second utterance alone, which is empty."""
    path = log / "instances.log"
    path.write_text(path.read_text(encoding="utf-8").splitlines()[1] + "\n", encoding="utf-8")


@pytest.mark.parametrize("computation_aware", [False, True])
@pytest.mark.parametrize("kind", ["speech_log", "text_log"])
def test_every_latency_of_nothing_is_no_number(kind, computation_aware, request, score):
    log = request.getfixturevalue(kind)
    nothing_said(log)
    refused = [*(CONTINUITY if kind == "text_log" else ()), *(IDEAL_ONLY if computation_aware else ())]
    if computation_aware:  # SimulEval adds the other clock to each name
        refused += [name for name in LATENCY if name.endswith("_CA")]
    names = tuple(name for name in LATENCY if name not in refused)
    found = score(log, names, computation_aware=computation_aware)
    assert set(names) <= set(found)
    for name, value in found.items():
        counted = name.startswith("ECHO_") and name[len("ECHO_") :].removesuffix("_CA") in COUNTED
        assert math.isfinite(value) if counted else math.isnan(value), f"{name} is {value}"


@pytest.mark.parametrize("kind", ["speech_log", "text_log"])
def test_an_utterance_without_output_does_not_spoil_the_others(kind, request, score):
    log = request.getfixturevalue(kind)
    names = tuple(name for name in LATENCY if kind == "speech_log" or name not in CONTINUITY)
    both = score(log, names)
    assert all(math.isfinite(value) for value in both.values()), both
    path = log / "instances.log"
    path.write_text(path.read_text(encoding="utf-8").splitlines()[0] + "\n", encoding="utf-8")
    alone = score(log, names)
    for name in ("AL", "LAAL", "ATD", "StartOffset", "EndOffset", "ECHO_LAAL", "ECHO_ATD", "ECHO_StartOffset"):
        assert both[name] == pytest.approx(alone[name]), name


@pytest.mark.parametrize("kind", ["speech_log", "text_log"])
def test_every_quality_of_nothing_is_the_worst(kind, request, score, tmp_path):
    log = request.getfixturevalue(kind)
    nothing_said(log)
    (tmp_path / "source_text.txt").write_text("un deux\ntrois\n", encoding="utf-8")
    options = {"source_text": str(tmp_path / "source_text.txt"), "sacrebleu_tokenizer": "13a"}
    found = score(log, quality=tuple(QUALITY), **options)
    assert set(found) == set(QUALITY) and json.loads((log / "instances.log").read_text())["reference"]
    for name, value in found.items():
        if name == "ECHO_ST_Precision":
            assert math.isnan(value), "of no words none is right or wrong"
        elif "WER" in name:
            assert value == pytest.approx(100), name
        else:
            assert value == pytest.approx(0), name
