"""SimulEval's command line and remote mode with EchoStream's agents, in separate processes."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from echostream.evaluation.record import load_records
from echostream.streaming import StreamingTranslator

REPOSITORY = Path(__file__).parents[2]
OPTIONS = ["--random-arch", "echostream_tiny", "--policy", "fixed-rate"]
AGENT = ["--agent", "agent/speech_to_speech.echostream.agent.py", *OPTIONS]
PLUGIN = ["--user-dir", "agent"]
TYPES = ["--source-type", "speech", "--target-type", "speech"]
SCORES = ["--quality-metrics", "ECHO_BLEU", "--latency-metrics", "ECHO_ATD", "ECHO_RTF"]


def simuleval(*options: str) -> list[str]:
    return [sys.executable, "-m", "simuleval.cli", *options]


def run(command: list[str]) -> subprocess.CompletedProcess:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, env=environment, check=False)


def write_corpus(folder: Path, samples: np.ndarray, sample_rate: int = 16000) -> list[str]:
    folder.mkdir()
    soundfile.write(folder / "a.wav", samples, sample_rate, subtype="FLOAT")
    (folder / "wavs").write_text(f"{folder / 'a.wav'}\n", encoding="utf-8")
    (folder / "text").write_text("one two\n", encoding="utf-8")
    return ["--source", str(folder / "wavs"), "--target", str(folder / "text"), "--output", str(folder / "out")]


@pytest.fixture
def server(tmp_path):
    """A standalone agent; yields its port."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = str(probe.getsockname()[1])
    log = (tmp_path / "server.log").open("w", encoding="utf-8")
    command = simuleval("--standalone", "--remote-port", port, *AGENT, "--segment-ms", "320")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=log, stderr=log, env=environment) as process:
        try:
            deadline = time.monotonic() + 120
            while socket.socket().connect_ex(("localhost", int(port))) != 0:
                assert process.poll() is None, (tmp_path / "server.log").read_text(encoding="utf-8")
                assert time.monotonic() < deadline
                time.sleep(0.1)
            yield port
        finally:
            process.terminate()
            log.close()


@pytest.mark.integration
def test_remote_agent_equals_local_agent(server, tmp_path):
    speech = np.random.default_rng(0).normal(0, 0.1, 16123).astype(np.float32)
    remote_corpus = write_corpus(tmp_path / "remote", speech)
    size = ["--source-segment-size", "320"]
    client = ["--remote-eval", "--remote-port", server, *PLUGIN, *TYPES, *size]
    remote = run(simuleval(*client, *remote_corpus, *SCORES))
    assert remote.returncode == 0, remote.stderr
    local_corpus = write_corpus(tmp_path / "local", speech)
    local = run(simuleval(*PLUGIN, *AGENT, *size, *local_corpus, *SCORES))
    assert local.returncode == 0, local.stderr
    sound = [(tmp_path / kind / "out" / "wavs" / "0_pred.wav").read_bytes() for kind in ("remote", "local")]
    assert sound[0] == sound[1]

    # An invalid source ends the client with a one-line message, and the server continues.
    bad = run(simuleval(*client, *write_corpus(tmp_path / "nan", np.full(640, np.nan)), *SCORES))
    assert bad.returncode == 1
    assert bad.stderr.splitlines()[-1].startswith("error: source 1 of the list")
    assert "holds NaN or infinity" in bad.stderr.splitlines()[-1]
    again = run(simuleval(*client, *write_corpus(tmp_path / "again", speech), *SCORES))
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "again" / "out" / "wavs" / "0_pred.wav").read_bytes() == sound[0]


@pytest.mark.integration
def test_both_command_lines_give_equal_scores(tmp_path):
    corpus = write_corpus(tmp_path / "c", np.random.default_rng(1).normal(0, 0.1, 8000))
    first = run(
        [sys.executable, "-m", "echostream.evaluation", *AGENT, "--source-segment-size", "40", *corpus, *SCORES]
    )
    assert first.returncode == 0, first.stderr
    scores = [*SCORES, "--score-only", "--output", str(tmp_path / "c" / "out")]
    again = run(simuleval(*PLUGIN, *scores))
    assert again.returncode == 0, again.stderr
    assert first.stdout.split()[-3:] == again.stdout.split()[-3:]


@pytest.mark.integration
def test_sources_of_any_rate_and_channels_are_what_translate_hears(tmp_path):
    """As StreamSpeech's lists name them: clips of 48 kHz, and one of 44.1 kHz with two channels."""
    speech = np.random.default_rng(2).normal(0, 0.1, 24_000)
    clip, stereo = tmp_path / "clip.mp3", tmp_path / "stereo.flac"
    soundfile.write(clip, speech, 48_000)
    soundfile.write(stereo, np.stack([speech, 0.5 * speech], 1), 44_100)
    (tmp_path / "wavs").write_text(f"{clip}\n{stereo}\n", encoding="utf-8")
    (tmp_path / "text").write_text("one\ntwo\n", encoding="utf-8")
    corpus = ["--source", tmp_path / "wavs", "--target", tmp_path / "text", "--output", tmp_path / "out"]
    result = run(
        simuleval(*PLUGIN, *AGENT, "--source-segment-size", "320", "--sample-rate", "48000", *map(str, corpus), *SCORES)
    )
    assert result.returncode == 0, result.stderr
    assert "--sample-rate: not needed, recordings say theirs, and are converted" in result.stderr
    translator = StreamingTranslator.random("echostream_tiny", 0, segment_ms=320, policy="fixed-rate")
    for number, path in enumerate((clip, stereo)):
        expected = translator.translate(path)
        (record,) = (r for r in load_records(tmp_path / "out").values() if r.index == number)
        assert record.text.split() == expected.text.split() and expected.text
        assert record.source_ms == pytest.approx(1000 * soundfile.info(path).duration, abs=0.1)
