"""SimulEval on a long recording, here of a minute: its log is whole, and its memory is told."""

import re
import sys

import pytest
from test_soak import model, recordings  # noqa: F401  # fixtures


@pytest.mark.integration
def test_a_minute_is_evaluated_and_its_memory_told(model, recordings, tmp_path, monkeypatch, capsys):  # noqa: F811
    from scripts.soak import simuleval_hour

    options = ["--output", tmp_path, "--minutes", 1, "--model", model, "--speech", recordings]
    monkeypatch.setattr(sys, "argv", ["simuleval_hour.py", *map(str, options), "--max-mb-per-minute", "500"])
    assert simuleval_hour.main() == 0
    shown = capsys.readouterr().out
    rows = re.findall(r"^\| (0.1|1) \| \d+ \| \d+ \| (\d+) \| (\d+) \|$", shown, re.MULTILINE)
    assert [minutes for minutes, *_ in rows] == ["0.1", "1"] and re.search(r"MB for a minute of audio", shown)
    monkeypatch.setattr(sys, "argv", [*sys.argv[:-2], "--minutes", "0.5"])
    with pytest.raises(SystemExit):
        simuleval_hour.main()
    assert "--minutes must be from 1 to 600" in capsys.readouterr().err


def test_an_evaluation_that_stops_is_told_in_a_line(recordings, tmp_path):  # noqa: F811
    from scripts.soak import simuleval_hour
    from scripts.soak.soak_audio import Programme, read_speech

    programme = Programme(read_speech([recordings]), minutes=0.1)
    with pytest.raises(SystemExit, match=r"SimulEval stopped; see the end of .*simuleval\.log"):
        simuleval_hour.evaluate(programme, tmp_path, tmp_path / "no_model", 320)
    assert "error: " in (tmp_path / "simuleval.log").read_text(encoding="utf-8")
