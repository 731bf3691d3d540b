"""All registered latency metrics compared with results by hand for the logs in conftest.py."""

import json
import shutil

import pytest
from simuleval.evaluator.scorers.latency_scorer import LATENCY_SCORERS_DICT

from echostream.evaluation.record import LOG_NAME

SPEECH = {
    # played at 400..600, 800..900 and 1000..1400
    "ECHO_StartOffset": 400,
    "ECHO_EndOffset": 400,
    "ECHO_DiscontinuityNum": 2 / 2,  # the silent utterance has none
    "ECHO_DiscontinuitySum": (200 + 100) / 2,
    # heard at 900 and 1400; the reference has 3 words, one every 333 ms
    "ECHO_AL": (900 + (1400 - 1000 / 3)) / 2,
    "ECHO_LAAL": (900 + (1400 - 1000 / 3)) / 2,
    # target tokens end at 600, 900, 1300, 1400; source tokens at 300, 400 | 700, 800 | 1000
    "ECHO_ATD": ((600 - 300) + (900 - 400) + (1300 - 700) + (1400 - 800)) / 4,
    # ready at 460, 860, 1500: played at 460..660, 860..960, 1500..1900
    "ECHO_StartOffset_CA": 460,
    "ECHO_EndOffset_CA": 900,
    "ECHO_DiscontinuityNum_CA": 2 / 2,
    "ECHO_DiscontinuitySum_CA": (200 + 540) / 2,
    "ECHO_AL_CA": (960 + (1900 - 1000 / 3)) / 2,
    "ECHO_LAAL_CA": (960 + (1900 - 1000 / 3)) / 2,
    "ECHO_ATD_CA": ((660 - 300) + (960 - 400) + (1800 - 700) + (1900 - 800)) / 4,
    # written at 400 and 1000, heard at 900 and 1400, or 960 and 1900
    "ECHO_SpokenLag": 500,
    "ECHO_SpokenLagDrift": (400 - 500) / 600 * 60_000,
    "ECHO_SpokenLag_CA": 900,
    "ECHO_SpokenLagDrift_CA": (900 - 560) / 600 * 60_000,
    "ECHO_RTF": 750 / 1500,
    "ECHO_StepP50": 60,  # of 20, 60, 60, 110, 500
    "ECHO_StepP95": 500,
}

TEXT = {
    "ECHO_StartOffset": 400,
    "ECHO_EndOffset": 0,
    "ECHO_DiscontinuityNum": 0,
    "ECHO_DiscontinuitySum": 0,
    "ECHO_AL": (400 + (1000 - 1000 / 3)) / 2,
    "ECHO_LAAL": (400 + (1000 - 1000 / 3)) / 2,
    # words at 400 and 1000; source tokens end at 300, 400 | 700, 1000
    "ECHO_ATD": ((400 - 300) + (1000 - 400)) / 2,
    "ECHO_StartOffset_CA": 460,
    "ECHO_EndOffset_CA": 500,
    "ECHO_DiscontinuityNum_CA": 0,
    "ECHO_DiscontinuitySum_CA": 0,
    "ECHO_AL_CA": (460 + (1500 - 1000 / 3)) / 2,
    "ECHO_LAAL_CA": (460 + (1500 - 1000 / 3)) / 2,
    "ECHO_ATD_CA": ((460 - 300) + (1500 - 400)) / 2,
    "ECHO_SpokenLag": 0,
    "ECHO_SpokenLagDrift": 0,
    "ECHO_SpokenLag_CA": 500,
    "ECHO_SpokenLagDrift_CA": (500 - 60) / 600 * 60_000,
    "ECHO_RTF": 0.5,
    "ECHO_StepP50": 60,
    "ECHO_StepP95": 500,
}


# The first source word ends at 250 ms.
FIRST_WORD = {"ECHO_StartOffset_FirstWord": 400 - 250, "ECHO_StartOffset_FirstWord_CA": 460 - 250}


def test_every_metric_is_tested():
    registered = {name for name in LATENCY_SCORERS_DICT if name.startswith("ECHO_")}
    assert registered - set(FIRST_WORD) == set(SPEECH) == set(TEXT)


def test_every_metric_has_a_docstring():
    assert all(LATENCY_SCORERS_DICT[name].__doc__ for name in [*SPEECH, *FIRST_WORD])


def test_speech(speech_log, score):
    assert score(speech_log, tuple(SPEECH)) == pytest.approx(SPEECH)


def test_simulevals_own_discontinuities(speech_log, score):
    """Of the one utterance with output; SimulEval stops at what it reads from its log."""
    own = score(speech_log, ("DiscontinuityNum", "DiscontinuitySum", "DiscontinuityAve"))
    assert own == {"DiscontinuityNum": 2, "DiscontinuitySum": 300, "DiscontinuityAve": 150}


@pytest.mark.parametrize("name", ["DiscontinuityNum", "EndOffset"])
def test_what_simuleval_cannot_score_is_refused_from_the_log_alone(speech_log, text_log, score, name):
    with pytest.raises(SystemExit, match=f"{name} of speech takes no notice of --computation-aware: take ECHO_{name}"):
        score(speech_log, (name,), computation_aware=True)
    if name == "DiscontinuityNum":
        with pytest.raises(SystemExit, match="is for speech output"):
            score(text_log, (name,))
    else:
        assert score(text_log, (name,)) == {name: 0}


def test_text(text_log, score):
    assert score(text_log, tuple(TEXT)) == pytest.approx(TEXT)


def test_latency_from_the_end_of_the_first_word(speech_log, text_log, score, tmp_path):
    ends = tmp_path / "ends.txt"
    ends.write_text("0.25\n0.40\n", encoding="utf-8")
    for log in (speech_log, text_log):
        assert score(log, tuple(FIRST_WORD), first_word_ends=str(ends)) == pytest.approx(FIRST_WORD)
    ends.write_text("0.25 s\n", encoding="utf-8")
    for name in (str(ends), None):
        with pytest.raises(SystemExit, match="cannot read --first-word-ends"):
            score(speech_log, tuple(FIRST_WORD), first_word_ends=name)
    ends.write_text("", encoding="utf-8")
    with pytest.raises(ValueError, match="has 0 lines"):
        score(speech_log, tuple(FIRST_WORD), first_word_ends=str(ends))


def test_single_outlier_does_not_change_the_median(speech_log, score, tmp_path):
    line = (speech_log / "instances.log").read_text(encoding="utf-8").splitlines()[0]
    record = json.loads((speech_log / LOG_NAME).read_text(encoding="utf-8").splitlines()[0])
    (speech_log / "instances.log").write_text(
        "".join(json.dumps({**json.loads(line), "index": index}) + "\n" for index in range(3)), encoding="utf-8"
    )
    (speech_log / LOG_NAME).write_text(
        "".join(json.dumps({**record, "index": index}) + "\n" for index in range(3)), encoding="utf-8"
    )
    (tmp_path / "ends.txt").write_text("0.3\n0.3\n0\n", encoding="utf-8")
    result = score(speech_log, ("ECHO_StartOffset_FirstWord",), first_word_ends=str(tmp_path / "ends.txt"))
    assert result == {"ECHO_StartOffset_FirstWord": pytest.approx(100)}


def test_without_reference_length(speech_log, score):
    result = score(speech_log, ("ECHO_AL",), no_use_ref_len=True)
    assert result["ECHO_AL"] == pytest.approx((900 + (1400 - 500)) / 2)


def test_computation_aware_option_adds_ca_variants(speech_log, score):
    result = score(speech_log, ("ECHO_ATD", "ECHO_LAAL"), computation_aware=True)
    assert result == pytest.approx({name: SPEECH[name] for name in result})
    assert set(result) == {"ECHO_ATD", "ECHO_ATD_CA", "ECHO_LAAL", "ECHO_LAAL_CA"}


def test_evaluations_in_one_process_do_not_share_options(speech_log, evaluator, tmp_path):
    """Two are made before the first one scores, with other logs and other lists."""
    moved = tmp_path / "moved"
    shutil.copytree(speech_log, moved)
    lines = [json.loads(line) for line in (moved / LOG_NAME).read_text(encoding="utf-8").splitlines()]
    lines[0]["steps"][0]["compute_ms"] += 100
    (moved / LOG_NAME).write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    made = []
    for folder, end in ((speech_log, "0.25"), (moved, "0.30")):
        ends = tmp_path / f"{end}.txt"
        ends.write_text(f"{end}\n0.40\n", encoding="utf-8")
        names = ("ECHO_StartOffset", "ECHO_StartOffset_FirstWord", "ATD")
        made.append(evaluator(folder, names, first_word_ends=str(ends), computation_aware=True))
    first, second = (made_one.latency for made_one in made)
    assert (first["ECHO_StartOffset_CA"], second["ECHO_StartOffset_CA"]) == (460, 560)
    assert second["ATD_CA"] > first["ATD_CA"] > first["ATD"] == second["ATD"]
    assert (first["ECHO_StartOffset_FirstWord"], second["ECHO_StartOffset_FirstWord"]) == (150, 100)
    assert (first["ECHO_StartOffset_FirstWord_CA"], second["ECHO_StartOffset_FirstWord_CA"]) == (210, 260)


def test_empty_output_has_no_latency(speech_log, score):
    lines = (speech_log / "instances.log").read_text(encoding="utf-8").splitlines()
    (speech_log / "instances.log").write_text(lines[1] + "\n", encoding="utf-8")
    result = score(speech_log, ("ECHO_StartOffset", "ECHO_ATD", "ECHO_DiscontinuityNum", "ECHO_RTF"))
    assert result["ECHO_StartOffset"] != result["ECHO_StartOffset"]  # NaN
    assert result["ECHO_ATD"] != result["ECHO_ATD"]
    assert result["ECHO_DiscontinuityNum"] == 0
    assert result["ECHO_RTF"] == pytest.approx(130 / 500)


def test_logs_of_two_runs_are_rejected(speech_log, score):
    lines = [json.loads(line) for line in (speech_log / LOG_NAME).read_text(encoding="utf-8").splitlines()]
    lines[0]["source_ms"] = 900.0
    (speech_log / LOG_NAME).write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    with pytest.raises(ValueError, match="two runs"):
        score(speech_log, ("ECHO_ATD",))


def test_other_agents_are_recognised(speech_log, score):
    (speech_log / LOG_NAME).write_text("", encoding="utf-8")
    with pytest.raises(ValueError, match="EchoStream agent"):
        score(speech_log, ("ECHO_ATD",))
