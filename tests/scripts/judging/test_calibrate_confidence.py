"""Calibration finds what made the words right or wrong, and says how well it does."""

from __future__ import annotations

import json
import random
import sys

import numpy as np
import pytest
import soundfile
import yaml
from model_files import save_model

from echostream.checkpoints.model_folder import ModelSettings
from echostream.decoding.confidence import Confidence
from echostream.streaming import StreamingTranslator
from scripts.judging import calibrate_confidence
from scripts.judging.calibrate_confidence import calibration_error, discrimination, fit, report
from scripts.release.export_model import file_facts

TRUE = Confidence(1.5, -0.5)


@pytest.fixture(scope="module")
def words() -> list[tuple[float, bool]]:
    generator = random.Random(0)
    log_probs = [-generator.expovariate(0.7) for _ in range(20_000)]
    return [(log_prob, generator.random() < TRUE.of([log_prob])) for log_prob in log_probs]


def test_fit_finds_slope_and_offset(words):
    found = fit(words)
    assert (found.slope, found.offset) == pytest.approx((TRUE.slope, TRUE.offset), abs=0.1)
    assert calibration_error(words, found) < 0.02 < 0.1 < calibration_error(words, Confidence())


def test_fit_stays_finite_where_nothing_overlaps():
    found = fit([(-0.1, True)] * 40 + [(-3.0, False)] * 40)
    assert found.slope and abs(found.slope) < 100 and found.of([-0.1]) > 0.95 and found.of([-3.0]) < 0.05


def test_discrimination_is_the_share_of_pairs_in_order():
    assert discrimination([(-1.0, True), (-2.0, False)]) == 1
    assert discrimination([(-2.0, True), (-1.0, False)]) == 0
    assert discrimination([(-1.0, True), (-1.0, False)]) == 0.5
    assert discrimination([(-1.0, True), (-2.0, False), (-3.0, True), (-4.0, False)]) == 0.75


def test_report_has_a_line_for_each_bin_with_words(words):
    lines = report(words, TRUE).splitlines()
    assert sum(int(line.split()[3]) for line in lines[1:]) == len(words)


def test_what_was_found_is_written_and_used(tmp_path, monkeypatch, capsys):
    folder = save_model(StreamingTranslator.random("echostream_tiny", seed=5), tmp_path / "model", "policy: fixed-rate")
    generator = np.random.default_rng(0)
    translator = StreamingTranslator.from_checkpoint(folder, task="s2tt")
    sources, targets = [], []
    for number in range(6):
        sound = generator.normal(0, 0.1, 48_000).astype(np.float32)
        soundfile.write(tmp_path / f"{number}.wav", sound, 16_000, subtype="FLOAT")
        text = [word.text for word in translator.step(sound, translator.init_state(), is_last=True).words]
        sources.append(str(tmp_path / f"{number}.wav"))
        targets.append(" ".join(text[: len(text) // 2]))
    for name, lines in (("source.txt", sources), ("target.txt", targets)):
        (tmp_path / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    lists = f"{tmp_path / 'source.txt'}={tmp_path / 'target.txt'}"
    (folder / "release.json").write_text(json.dumps({"files": {"model.yaml": {"bytes": 1, "sha256": "0"}}}))
    monkeypatch.setattr(sys, "argv", ["calibrate", "--model", str(folder), "--set", lists, "--write"])
    calibrate_confidence.main()
    printed = capsys.readouterr().out
    assert "of 6 recordings" in printed and "fitted on the other half" in printed
    settings = ModelSettings.of(folder)
    facts = json.loads((folder / "release.json").read_text())["files"]["model.yaml"]
    assert facts == file_facts(folder / "model.yaml")
    assert yaml.safe_load(printed.splitlines()[-2])["confidence_slope"] == settings.confidence_slope
    confidence = StreamingTranslator.from_checkpoint(folder, task="s2tt").writer.confidence
    assert (confidence.slope, confidence.offset) == (settings.confidence_slope, settings.confidence_offset)
    monkeypatch.setattr(sys, "argv", ["calibrate", "--model", str(folder), "--set", "a=b"])
    with pytest.raises(SystemExit, match=r"no list a \(--set SOURCE=TARGET\)"):
        calibrate_confidence.main()
