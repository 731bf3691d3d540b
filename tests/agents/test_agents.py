"""The agent files in SimulEval with random weights: their output equals that of the translator for any pushes."""

import importlib.util
import json
import sys
from argparse import ArgumentParser
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from model_files import save_model
from simuleval import cli
from simuleval.data.segments import EmptySegment, SpeechSegment, TextSegment, segment_from_json_string
from simuleval.utils.agent import EVALUATION_SYSTEM_LIST

from echostream.checkpoints.vocoder_files import find_checkpoint
from echostream.evaluation.instances import RecordingSpeechToSpeechInstance
from echostream.evaluation.record import CONFIG_KEY, load_records
from echostream.evaluation.timeline import ready_times
from echostream.streaming import StreamingTranslator

AGENTS = Path(__file__).parents[2] / "agent"
FILES = {
    "s2st": AGENTS / "speech_to_speech.echostream.agent.py",
    "s2tt": AGENTS / "speech_to_text.s2tt.echostream.agent.py",
    "asr": AGENTS / "speech_to_text.asr.echostream.agent.py",
}
TTS = {"tts": AGENTS / "text_to_speech.echostream.agent.py"}
OPTIONS = ["--random-arch", "echostream_tiny", "--policy", "fixed-rate"]


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def no_agents():
    EVALUATION_SYSTEM_LIST.clear()
    yield
    EVALUATION_SYSTEM_LIST.clear()


def make_agent(task: str, *options: str, standalone: bool = False):
    """Build the agent of an agent file from command-line options, as SimulEval does."""
    spec = importlib.util.spec_from_file_location("agents", (FILES | TTS)[task])
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
    agent_class = EVALUATION_SYSTEM_LIST.pop()
    parser = ArgumentParser()
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--source-segment-size", type=int, default=1)
    agent_class.add_args(parser)
    args = parser.parse_args([*OPTIONS, *options])
    args.standalone = standalone
    return agent_class.from_args(args)


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    return np.random.default_rng(0).normal(0, 0.1, 16000 + 123).astype(np.float32)


def push(samples: np.ndarray, finished: bool = False, sample_rate: int = 16000) -> SpeechSegment:
    return SpeechSegment(content=samples.tolist(), sample_rate=sample_rate, finished=finished, tgt_lang=None)


def drive(agent, samples: np.ndarray, push_samples: int, states=None) -> list:
    """Push a whole utterance in pieces, with one pushpop each."""
    ends = range(push_samples, len(samples) + push_samples, push_samples)
    pieces = [(samples[end - push_samples : end], end >= len(samples)) for end in ends]
    return [agent.pushpop(push(piece, last), states) for piece, last in pieces]


def content(segments: list):
    """Joined content of the segments."""
    held = [segment.content for segment in segments if not segment.is_empty]
    return "".join(held) if held and isinstance(held[0], str) else [x for samples in held for x in samples]


def test_speech_equals_that_of_the_translator(speech):
    agent = make_agent("s2st", "--segment-ms", "320")
    segments = drive(agent, speech, 16 * 320)
    translator = agent.translator
    state = translator.init_state()
    expected = np.concatenate(
        [
            translator.step(speech[i : i + 5120], state, is_last=i + 5120 >= len(speech)).samples
            for i in range(0, len(speech), 5120)
        ]
    )
    assert content(segments) == expected.tolist()
    assert len(expected) > 0
    assert {s.sample_rate for s in segments if not s.is_empty} == {16000}


@pytest.mark.parametrize("task", FILES)
def test_output_does_not_depend_on_push_sizes(task, speech):
    agent = make_agent(task, "--segment-ms", "80")
    by_40, by_320 = ([], [])
    for result, size in ((by_40, 640), (by_320, 5120)):
        agent.reset()
        result += drive(agent, speech, size)
    if task == "s2st":
        assert content(by_40) == pytest.approx(content(by_320), abs=1e-5)
    assert content(by_40)
    text = ["".join(s.config[CONFIG_KEY].get("text", "") for s in run) for run in (by_40, by_320)]
    assert text[0] == text[1]


@pytest.mark.parametrize("task", FILES)
def test_finished_once_at_the_end(task, speech):
    segments = drive(make_agent(task), speech, 2000)
    assert [segment.finished for segment in segments] == [False] * (len(segments) - 1) + [True]


def test_no_output_after_the_end(speech):
    agent = make_agent("s2st")
    drive(agent, speech[:5000], 5000)
    after = agent.pop()
    assert after.is_empty
    assert after.finished


def test_pop_without_a_push_does_nothing(speech):
    agent = make_agent("s2st")
    assert agent.pop().is_empty
    agent.push(push(speech[:640]))
    agent.push(push(speech[640:1280]))
    assert agent.pop().config[CONFIG_KEY]["arrived_ms"] == 80
    assert CONFIG_KEY not in agent.pop().config


@pytest.mark.parametrize("task", FILES)
def test_an_empty_source_ends_cleanly(task):
    segment = make_agent(task).pushpop(EmptySegment(finished=True))
    assert segment.finished


def test_reset_starts_a_new_utterance(speech):
    agent = make_agent("s2st", "--segment-ms", "320")
    first = content(drive(agent, speech, 5120))
    agent.reset()
    drive(agent, speech[::-1].copy()[:9000], 10000)  # another utterance, then the first one again
    agent.reset()
    agent.push(push(speech[:5120]))  # reset before its end
    agent.reset()
    assert content(drive(agent, speech, 5120)) == first


def test_many_states_with_one_agent(speech):
    agent = make_agent("s2st", "--segment-ms", "160")
    sources = [speech, speech[::-1][: len(speech) // 2].copy()]
    alone = []
    for source in sources:
        alone.append(content(drive(agent, source, 2560, agent.build_states())))
    states = [agent.build_states() for _ in sources]
    together = [[], []]
    for start in range(0, len(speech), 2560):
        for i, source in enumerate(sources):
            last = start + 2560 >= len(source)
            if start < len(source):
                together[i].append(agent.pushpop(push(source[start : start + 2560], last), states[i]))
    assert [content(segments) for segments in together] == alone
    assert alone[0] != alone[1]


def test_the_source_is_not_kept(speech):
    agent = make_agent("s2st", "--segment-ms", "40")
    drive(agent, np.tile(speech, 2)[:-1], 640)
    assert agent.states.source == []
    assert agent.states.target == []
    assert agent.states.take_new().size == 0


@pytest.mark.parametrize("task", FILES)
def test_segments_travel_as_json(task, speech):
    for segment in drive(make_agent(task), speech, 5120):
        assert segment_from_json_string(segment.json()) == segment


def test_record_of_a_step(speech):
    agent = make_agent("s2st", "--segment-ms", "320")
    steps = [segment.config[CONFIG_KEY] for segment in drive(agent, speech, 5120)]
    assert [step["arrived_ms"] for step in steps] == [320, 640, 960, len(speech) / 16]
    assert all(step["compute_ms"] > 0 for step in steps)
    words = [word for step in steps for word in step.get("words", ())]
    assert words
    assert all(0 <= word["start_ms"] <= word["end_ms"] for word in words)


@pytest.mark.parametrize("task", ["s2tt", "asr"])
def test_text_agents_return_text(task, speech):
    segments = [s for s in drive(make_agent(task, "--segment-ms", "320"), speech, 5120) if not s.is_empty]
    assert segments
    assert all(isinstance(segment, TextSegment) and segment.content.strip() for segment in segments)


NAN = np.array([0.0, np.nan], dtype=np.float32)


@pytest.mark.parametrize(
    ("segment", "message"),
    [
        (push(np.zeros(10), sample_rate=44100), "44100 Hz"),
        (push(np.zeros((10, 2))), "2 channels"),
        (push(NAN), "NaN"),
        (TextSegment(content="bonjour"), "has to be speech"),
    ],
)
def test_invalid_source_stops_simuleval_but_not_a_server(segment, message):
    agent = make_agent("s2st")
    with pytest.raises(SystemExit, match=message):
        agent.pushpop(segment)
    server = make_agent("s2st", standalone=True)
    refusal = server.pushpop(segment)
    assert refusal.finished
    assert message in refusal.config["echostream_error"]
    client = RecordingSpeechToSpeechInstance.__new__(RecordingSpeechToSpeechInstance)
    with pytest.raises(SystemExit, match=f"^error: .*{message}"):
        client.receive_prediction(segment_from_json_string(refusal.json()))  # as it comes over the wire
    server.reset()
    assert not server.pushpop(push(np.zeros(640))).finished


@pytest.mark.parametrize(
    ("options", "standalone", "segment_ms"),
    [
        (["--source-segment-size", "320"], False, 320),
        (["--source-segment-size", "100"], False, 120),
        (["--source-segment-size", "320", "--segment-ms", "80"], False, 80),
        ([], False, 40),
        ([], True, 320),
    ],
)
def test_model_segment_is_derived_from_the_push_size(options, standalone, segment_ms):
    assert make_agent("asr", *options, standalone=standalone).translator.segment_ms == segment_ms


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--segment-ms", "50"], "multiple of 40"),
        (["--model-path", "model.pt"], "--model-path"),
        (["--random-arch", "", "--model-path", "missing.pt"], "missing.pt"),
        (["--random-arch", ""], "--model-path"),
    ],
)
def test_errors_name_invalid_options(options, message):
    with pytest.raises(SystemExit, match=message):
        make_agent("s2st", *options)


def test_half_precision_is_rejected():
    with pytest.raises(SystemExit, match="fp16"):
        make_agent("asr").to("cpu", fp16=True)


@pytest.fixture
def corpus(tmp_path, speech) -> list[str]:
    """SimulEval's options for two sources, of which the second is empty."""
    for name, samples in (("a", speech), ("b", speech[:0])):
        soundfile.write(tmp_path / f"{name}.wav", samples, 16000)
    (tmp_path / "wavs").write_text(f"{tmp_path / 'a.wav'}\n{tmp_path / 'b.wav'}\n", encoding="utf-8")
    (tmp_path / "text").write_text("one two three\nfour\n", encoding="utf-8")
    return ["--source", str(tmp_path / "wavs"), "--target", str(tmp_path / "text")]


def simuleval(monkeypatch, task: str, *options: str) -> None:
    arguments = ["simuleval", "--agent", str(FILES[task]), *OPTIONS, "--no-progress-bar", *options]
    monkeypatch.setattr(sys, "argv", arguments)
    cli.main()


@pytest.mark.parametrize("size", ["40", "320"])
@pytest.mark.parametrize("task", FILES)
def test_simuleval_runs_and_scores(task, size, corpus, tmp_path, monkeypatch):
    output = tmp_path / "out"
    metrics = ["ECHO_StartOffset", "ECHO_ATD", "ECHO_LAAL_CA", "ECHO_DiscontinuityNum", "ECHO_RTF"]
    options = ["--source-segment-size", size, "--output", str(output), "--quality-metrics", "ECHO_BLEU"]
    simuleval(monkeypatch, task, *corpus, *options, "--latency-metrics", *metrics)
    scores = read_scores(output)
    assert set(scores) == {"ECHO_BLEU", *metrics}
    assert scores["ECHO_RTF"] > 0
    records = load_records(output)
    assert [len(records[i].steps) for i in (0, 1)] == [-(-16123 // (16 * int(size))), 1]
    logged = [json.loads(line) for line in (output / "instances.log").read_text(encoding="utf-8").splitlines()]
    if task == "s2st":
        spoken = sum(step.output_ms for step in records[0].steps)
        assert sum(logged[0]["durations"]) == pytest.approx(spoken)
        assert len(logged[0]["elapsed"]) == len(logged[0]["delays"])
        assert logged[0]["prediction"] == records[0].text
        assert soundfile.info(logged[0]["speech_file"]).frames > 0
    else:
        assert logged[0]["prediction"] == " ".join(records[0].text.split())


def read_scores(output: Path) -> dict[str, float]:
    header, values = (output / "scores.tsv").read_text(encoding="utf-8").splitlines()
    return dict(zip(header.split("\t"), map(float, values.split("\t")), strict=True))


@pytest.mark.parametrize("task", ["s2st", "s2tt"])
def test_simulevals_own_metrics_of_either_clock(task, corpus, tmp_path, monkeypatch):
    output = tmp_path / "out"
    options = ["--source-segment-size", "320", "--output", str(output), "--computation-aware"]
    metrics = ["LAAL", "StartOffset", "ATD", "ECHO_StartOffset", "ECHO_ATD_CA"]
    simuleval(monkeypatch, task, *corpus, *options, "--latency-metrics", *metrics)
    scores = read_scores(output)
    assert set(scores) == {"BLEU", *metrics, *(f"{name}_CA" for name in metrics)}
    for name in ("LAAL", "StartOffset", "ATD"):
        assert scores[f"{name}_CA"] > scores[name]
    assert scores["StartOffset"] == pytest.approx(scores["ECHO_StartOffset"])
    assert scores["ATD_CA"] == scores["ECHO_ATD_CA"]
    # Elapsed times are those of a machine that goes on while the speaker talks, not a sum of all compute times.
    (line, _) = [json.loads(text) for text in (output / "instances.log").read_text(encoding="utf-8").splitlines()]
    steps = load_records(output)[0].steps
    ready = ready_times([step.arrived_ms for step in steps], [step.compute_ms for step in steps])
    at = {step.arrived_ms: time for step, time in zip(steps, ready, strict=True)}
    assert line["elapsed"] == [pytest.approx(at[delay]) for delay in line["delays"]] and line["elapsed"]


def test_simulevals_own_metrics_of_speech_read_from_the_log(corpus, tmp_path, monkeypatch):
    """SimulEval takes what it reads back for text, which has no length."""
    output = tmp_path / "out"
    options = ["--source-segment-size", "320", "--output", str(output), "--end-index", "1"]
    own = ["ATD", "DiscontinuityNum", "EndOffset"]
    simuleval(monkeypatch, "s2st", *corpus, *options, "--latency-metrics", *own, *(f"ECHO_{name}" for name in own))
    scores = read_scores(output)
    for name in own:
        assert scores[name] == pytest.approx(scores[f"ECHO_{name}"], abs=0.1), name


@pytest.mark.parametrize(
    ("task", "options", "message"),
    [
        ("s2st", ["--quality-metrics", "ASR_BLEU"], "take ECHO_ASR_BLEU$"),
        ("s2st", ["--quality-metrics", "WHISPER_ASR_BLEU"], "take ECHO_ASR_BLEU$"),
        ("s2tt", ["--quality-metrics", "WER"], "take ECHO_WER$"),
        ("s2st", ["--latency-metrics", "AL", "LAAL_SpeechAlign_EOW"], "take ECHO_LAAL, which knows the words$"),
        ("s2tt", ["--latency-metrics", "DiscontinuityNum"], "DiscontinuityNum is for speech output: leave it out$"),
        ("s2st", ["--latency-metrics", "EndOffset", "--computation-aware"], "take ECHO_EndOffset$"),
        ("s2st", ["--latency-metrics", "DiscontinuitySum", "--computation-aware"], "take ECHO_DiscontinuitySum$"),
    ],
)
def test_metrics_that_would_be_wrong_are_refused_at_the_start(task, options, message, corpus, tmp_path, monkeypatch):
    with pytest.raises(SystemExit, match=f"^error: SimulEval's .*{message}"):
        simuleval(monkeypatch, task, *corpus, "--output", str(tmp_path / "out"), *options)
    assert not (tmp_path / "out").exists()


def test_text_scores_without_an_output_folder(corpus, monkeypatch, capsys):
    options = ["--source-segment-size", "320", "--quality-metrics", "ECHO_WER", "--latency-metrics", "ECHO_ATD"]
    simuleval(monkeypatch, "s2tt", *corpus, *options)
    assert "ECHO_ATD" in capsys.readouterr().out


def test_error_names_a_missing_source_file(corpus, tmp_path, monkeypatch):
    (tmp_path / "b.wav").unlink()
    with pytest.raises(SystemExit, match=r"source 2 .*b\.wav"):
        simuleval(monkeypatch, "s2tt", *corpus, "--source-segment-size", "320")


def test_text_is_spoken_word_by_word(tmp_path, monkeypatch):
    agent = make_agent("tts")
    words = ["w5w6", "w7", "w9w8."]
    (tmp_path / "texts").write_text(f"{' '.join(words)}\nw11\n", encoding="utf-8")
    options = ["--source", str(tmp_path / "texts"), "--output", str(tmp_path / "out"), "--latency-metrics", "AL"]
    options += ["--no-scoring", "--no-progress-bar", *OPTIONS]
    monkeypatch.setattr(sys, "argv", ["simuleval", "--agent", str(TTS["tts"]), *options])
    cli.main()
    spoken, rate = soundfile.read(tmp_path / "out/wavs/0_pred.wav", dtype="float32")
    output, _ = agent.speaker.step(" ".join(words), agent.speaker.init_state(), is_last=True)
    assert rate == 16000 and np.allclose(spoken, output.samples, atol=1e-4)
    logs = [json.loads(line) for line in (tmp_path / "out/instances.log").read_text().splitlines()]
    assert [log["delays"][0] for log in logs] == [1, 1] and len(logs[0]["delays"]) == 3
    assert [log["reference"] for log in logs] == [" ".join(words), "w11"]
    (tmp_path / "texts").write_text("w7 日本\n", encoding="utf-8")
    EVALUATION_SYSTEM_LIST.clear()
    with pytest.raises(SystemExit, match=r"^error: the model has no subword with '日'"):
        cli.main()


STREAMSPEECHS = ["--data-bin", "configs/fr-en", "--config-yaml", "config_gcmvn.yaml", "--agent-dir", "agent"]
STREAMSPEECHS += ["--multitask-config-yaml", "config_mtl_asr_st_ctcst.yaml", "--dur-prediction"]


def test_streamspeechs_options_are_taken_or_noted(speech, tmp_path, caplog, capfd):
    options = [*STREAMSPEECHS, "--segment-size", "320", "--lagging-k1", "0", "--output-asr-translation", "True"]
    with caplog.at_level("INFO"):
        agent = make_agent("s2st", *options)
    notes = [record.message for record in caplog.records if "not needed" in record.message]
    assert [note.split(":")[0] for note in notes] == [
        "--data-bin, --config-yaml, --multitask-config-yaml",
        "--agent-dir",
        "--dur-prediction",
    ]
    assert agent.translator.segment_ms == 320
    plain = make_agent("s2st", "--segment-ms", "320")
    assert content(drive(agent, speech, 5120)) == content(drive(plain, speech, 5120))
    assert " said " in capfd.readouterr().err  # what is said, as it comes
    assert make_agent("s2st", "--output-asr-translation", "False").live is None


def test_a_vocoders_config_may_lie_elsewhere(tmp_path):
    folder = save_model(StreamingTranslator.random("echostream_tiny"), tmp_path)
    config = (folder / "voice/config.json").rename(tmp_path / "elsewhere.json")
    vocoder = ["--vocoder", str(find_checkpoint(folder / "voice")), "--random-arch", ""]
    agent = make_agent("s2st", "--model-path", str(folder / "checkpoint.pt"), *vocoder, "--vocoder-cfg", str(config))
    assert agent.translator.vocoder.num_units == 100


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--lagging-k1", "3"],
            "error: --lagging-k1 is StreamSpeech's, .* use --policy wait-k --lag-k K",
        ),
        (["--stride-n2", "4"], "error: --stride-n2 is StreamSpeech's, .* use --policy stride --stride-n N"),
        (["--extra-output-dir", "x"], r"error: --extra-output-dir is StreamSpeech's: --output DIR has .* steps\.jsonl"),
        (["--feature-dim", "40"], "error: --feature-dim .* 80 mel bins"),
    ],
)
def test_streamspeechs_options_without_an_equivalent_say_what_there_is(options, message):
    with pytest.raises(SystemExit, match=message):
        make_agent("s2st", *options)
