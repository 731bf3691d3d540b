"""A model folder with model.yaml instead of a checkpoint: its files, its settings and error messages."""

import sys
from argparse import ArgumentParser

import numpy as np
import pytest
from model_files import save_model

from echostream.checkpoints.errors import CheckpointError
from echostream.checkpoints.model_folder import ModelSettings
from echostream.cli import main
from echostream.cli.options import add_model_options, load_translator, model_settings
from echostream.decoding.policy import FixedRatePolicy, WaitKPolicy
from echostream.evaluation.agent import EchoStreamAgent
from echostream.evaluation.agent import load_translator as load_for_agent
from echostream.streaming import StreamingTranslator

SETTINGS = (
    "policy: wait-k\nlag_k: 2\nsegment_ms: 160\nsource_lang: fr\ntarget_lang: en\ndescription: Knows one voice.\n"
)
NOISE = np.random.default_rng(0).normal(0, 0.1, 16_000).astype(np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_model(StreamingTranslator.random("echostream_tiny"), tmp_path_factory.mktemp("a model"), SETTINGS)


def speech(translator):
    return translator.step(NOISE, translator.init_state(), is_last=True).samples


def test_folder_has_the_default_settings_of_its_model(folder):
    translator = StreamingTranslator.from_checkpoint(folder)
    assert isinstance(translator.policy, WaitKPolicy) and translator.policy.lag_k == 2 and translator.segment_ms == 160
    assert (
        ModelSettings.of(folder).description == "Knows one voice."
        and "description" not in ModelSettings(folder).options
    )
    options = {"policy": "wait-k", "lag_k": 2, "segment_ms": 160}
    by_hand = StreamingTranslator.from_checkpoint(folder / "checkpoint.pt", folder / "voice", **options)
    assert speech(translator).size
    np.testing.assert_array_equal(speech(translator), speech(by_hand))


def test_the_checkpoint_that_a_folder_names_means_the_same_options(folder, tmp_path, capsys):
    assert ModelSettings.of(folder / "checkpoint.pt") == ModelSettings.of(folder)
    translator = StreamingTranslator.from_pretrained(folder / "checkpoint.pt")
    assert (translator.policy.lag_k, translator.segment_ms) == (2, 160)
    other = tmp_path / "other.pt"
    other.write_bytes((folder / "checkpoint.pt").read_bytes())
    (tmp_path / "model.yaml").write_text(f"checkpoint: {folder}/checkpoint.pt\n{SETTINGS}", encoding="utf-8")
    assert ModelSettings.of(other) == ModelSettings(other)  # the model.yaml beside it is about another file
    for path in (folder, folder / "checkpoint.pt", other):
        assert main(["info", str(path)]) == 0
        assert ("defaults       segment_ms 160, policy wait-k" in capsys.readouterr().out) == (path != other)


def test_given_options_override_those_of_the_folder(folder):
    settings = ModelSettings.of(folder)
    assert settings.with_options(lag_k=1, segment_ms=None).options == {**settings.options, "lag_k": 1}
    assert settings.with_options(policy="wait-k").lag_k == 2
    other = settings.with_options(policy="alignment")
    assert (other.lag_k, other.stride_n, other.segment_ms) == (None, None, 160)
    assert settings.with_options(policy="alignment", lag_k=3).lag_k == 3


def test_commands_and_agents_accept_the_folder(folder, capsys):
    parser = ArgumentParser()
    add_model_options(parser)
    args = parser.parse_args(["--model", str(folder), "--segment-ms", "80", "--threads", "1"])
    assert model_settings(args).target_lang == "en"
    assert (load_translator(args, "s2st").segment_ms, load_translator(args, "s2st").policy.lag_k) == (80, 2)
    parser = ArgumentParser()
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--source-segment-size", type=int, default=320)
    EchoStreamAgent.add_args(parser)
    translator = load_for_agent(parser.parse_args(["--model-path", str(folder)]), "s2st")
    assert (translator.segment_ms, translator.policy.lag_k) == (320, 2)  # SimulEval's option overrides the folder
    assert main(["info", str(folder)]) == 0
    shown = capsys.readouterr().out
    assert "fr to en" in shown and "lag_k 2" in shown and "voice: 100 units" in shown


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "a folder without model.yaml"),
        ("", "must say 'checkpoint: FILE'"),
        ("- checkpoint.pt", "must say 'checkpoint: FILE'"),
        ("checkpoint: [", "is damaged"),
        ("checkpoint: a.pt\nlagk: 2", "unknown entry 'lagk'"),
        ("checkpoint: a.pt\nlag_k: two", "lag_k must be a whole number, not 'two'"),
        ("checkpoint: a.pt\nlag_k: true", "lag_k must be a whole number, not True"),
        ("checkpoint: a.pt\nsource_lang: no", "source_lang must be text, in quotes if need be, not False"),
        ("checkpoint: a.pt\ndescription: [a, b]", "description must be text, in quotes if need be, not"),
        ("checkpoint: a.pt", "no checkpoint at"),
        ("checkpoint: a.pt\npolicy: x", "no checkpoint at"),
    ],
)
def test_errors_name_an_invalid_folder(tmp_path, text, message):
    if text is not None:
        (tmp_path / "model.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(CheckpointError, match=message) as error:
        StreamingTranslator.from_checkpoint(tmp_path)
    assert str(tmp_path) in str(error.value)


def test_a_folder_names_options_but_no_code(folder, tmp_path, monkeypatch):
    """A folder that was downloaded must not choose what is imported; whoever starts the program may."""
    monkeypatch.chdir(tmp_path)
    source = "print('imported')\ndef policy(evidence, state, *, tokens=1):\n    return None, state\n"
    (tmp_path / "code_of_a_file.py").write_text(source, encoding="utf-8")
    settings = folder / "model.yaml"
    before = settings.read_text(encoding="utf-8")
    try:
        settings.write_text(before.replace("wait-k\nlag_k: 2", "code_of_a_file:policy"), encoding="utf-8")
        with pytest.raises(CheckpointError, match="'code_of_a_file:policy' is code, which a model's folder must not"):
            StreamingTranslator.from_checkpoint(folder)
        assert "code_of_a_file" not in sys.modules
        rate = "fixed-rate\npolicy_options: {token_frames: 12}"
        settings.write_text(before.replace("wait-k\nlag_k: 2", rate), encoding="utf-8")
        assert StreamingTranslator.from_checkpoint(folder).policy == FixedRatePolicy(12)
        options = {"policy": "code_of_a_file:policy", "policy_options": {"tokens": 3}}
        translator = StreamingTranslator.from_checkpoint(folder, **options)
        assert translator.policy.keywords == {"tokens": 3}
        assert translator.view(policy_options={"tokens": 4}).policy.keywords == {"tokens": 4}
        with pytest.raises(ValueError, match="has no option words"):
            translator.view(policy_options={"words": 4})
    finally:
        settings.write_text(before, encoding="utf-8")


def test_an_agent_takes_a_policy_of_ones_own(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = "def policy(evidence, state, *, tokens=1):\n    return None, state\n"
    (tmp_path / "policy_of_an_agent.py").write_text(source, encoding="utf-8")
    parser = ArgumentParser()
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--source-segment-size", type=int, default=320)
    EchoStreamAgent.add_args(parser)
    options = ["--model-path", str(folder), "--policy", "policy_of_an_agent:policy", "--policy-option"]
    translator = load_for_agent(parser.parse_args([*options, "tokens=3"]), "s2st")
    assert translator.policy.keywords == {"tokens": 3}
    with pytest.raises(SystemExit, match="error: the policy 'policy' has no option words: it takes tokens"):
        load_for_agent(parser.parse_args([*options, "words=3"]), "s2st")
