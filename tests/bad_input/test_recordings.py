"""Invalid recordings give one line in all programs, and the output of the other recordings is kept."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import soundfile
from cases import COMMAND, PREPARING, RECORDINGS, SIMULEVAL, TRAINING, WORKS

from echostream.tasks import EchoStreamTask, EchoStreamTaskConfig

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


def cases(surface: str) -> list:
    return [pytest.param(name, row[surface], id=name) for name, row in RECORDINGS.items() if surface in row]


@pytest.mark.parametrize(("name", "message"), cases(COMMAND))
def test_translate_continues_with_other_recordings(name, message, recordings, model, tmp_path, echostream):
    out = tmp_path / "out"
    bad = [recordings[name]] if name == "a folder" else [recordings["good"], recordings[name], recordings["other"]]
    status, said = echostream("translate", *bad, "--model", model, "--policy", "fixed-rate", "-o", out)
    errors = [line for line in said if line.startswith("error: ")]
    if message == WORKS:
        assert status == 0 and not errors
        soundfile.read(out / f"{recordings[name].stem}.translated.wav")
        assert any("is clipped" in line for line in said) == (name == "clipped")
    else:
        assert status == 1 and len(errors) == 1 and message in errors[0]
        assert str(recordings[name]) in errors[0]
    if len(bad) > 1:
        for good in ("good", "other"):
            assert soundfile.info(out / f"{recordings[good].stem}.translated.wav").frames > 0


@pytest.mark.parametrize(("name", "message"), cases(COMMAND))
def test_asr_reports_one_line(name, message, recordings, model, echostream):
    status, said = echostream("asr", recordings[name], "--model", model, "--text", "-q")
    if message == WORKS:
        assert status == 0 and not said
    else:
        assert status == 1 and len(said) == 1
        assert said[0].startswith("error: ") and message in said[0] and str(recordings[name]) in said[0]


@pytest.mark.parametrize(("name", "message"), cases(SIMULEVAL))
def test_simuleval_keeps_what_was_evaluated(name, message, recordings, simuleval, tmp_path):
    status = simuleval([recordings["good"], recordings[name], recordings["good"]], tmp_path / "out")
    log = tmp_path / "out" / "instances.log"
    if message == WORKS:
        assert status == 0 and (tmp_path / "out" / "scores.tsv").is_file()
        return
    assert status.startswith("error: source 2 of the list") and message in status and "\n" not in status
    assert str(recordings[name]) in status
    if "is no file" not in message:  # that is checked before the start
        assert len(log.read_text().splitlines()) == 1


# fairseq reads ahead in a thread, and worker processes pass on errors in another way; one case is enough for these.
@pytest.mark.parametrize(
    ("name", "message", "workers"),
    [
        *[pytest.param(*case.values, 0, id=case.id) for case in cases(TRAINING)],
        pytest.param("NaN", RECORDINGS["NaN"][TRAINING], 1, id="NaN in a worker"),
    ],
)
def test_training_names_the_recording_that_it_cannot_read(name, message, workers, recordings, corpus):
    corpus.replace("train.tsv", "train_1.wav", str(recordings[name]))
    options = {"data": str(corpus.folder), "seed": 1, "train_subset": "train", "num_units": 20}

    def read() -> int:
        task = EchoStreamTask.setup_task(EchoStreamTaskConfig(**options))
        task.load_dataset("train")
        batches = task.get_batch_iterator(
            task.dataset("train"), max_tokens=1000, num_workers=workers, data_buffer_size=2
        )
        return sum(batch["nsentences"] for batch in batches.next_epoch_itr())

    if message == WORKS:
        assert read() == 6
        return
    with pytest.raises(SystemExit) as ended:
        read()
    said = str(ended.value)
    assert said.startswith("echostream: ") and message in said and str(recordings[name]) in said and "\n" not in said


def test_first_batch_is_read_before_the_training_starts(recordings, corpus):
    corpus.replace("train.tsv", "train_1.wav", str(recordings["NaN"]))
    task = EchoStreamTask.setup_task(EchoStreamTaskConfig(data=str(corpus.folder), seed=1, train_subset="train"))
    task.load_dataset("train")
    batches = task.get_batch_iterator(task.dataset("train"), max_tokens=1000)
    with pytest.raises(SystemExit, match=r"echostream: .*holds NaN"):
        _ = batches.first_batch


@pytest.fixture(scope="module")
def checked(recordings, tmp_path_factory) -> dict[str, str]:
    """Messages of the first stage of scripts/recipes/custom for the recordings, all in one table."""
    folder = tmp_path_factory.mktemp("preparing")
    names = [name for name, row in RECORDINGS.items() if PREPARING in row]
    rows = [f"{recordings[name]}\tbon\tgood\t{number}" for number, name in enumerate(names)]
    table = folder / "table.tsv"
    table.write_text("\n".join(["source_wav\tsource_text\ttarget_text\tid", *rows]) + "\n")
    command = [sys.executable, SCRIPTS / "recipes/custom" / "check_table.py", "--table", table, "--audio-root", folder]
    done = subprocess.run([*map(str, command), "--out", str(folder / "out")], capture_output=True, text=True)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: ")
    told = dict(line.split("\t", 1) for line in (folder / "out" / "bad_rows.tsv").read_text().splitlines()[1:])
    return {name: told.get(str(number), "") for number, name in enumerate(names, start=2)}


@pytest.mark.parametrize(("name", "message"), cases(PREPARING))
def test_preparation_lists_all_invalid_rows_at_once(name, message, checked):
    if message == WORKS:
        assert not checked[name]
    else:
        assert message in checked[name]
