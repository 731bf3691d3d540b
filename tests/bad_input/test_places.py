"""Full disks and invalid output folders in translation, evaluation, training and data preparation."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile
import torch
from spoilt import TESTS, largest_file

from echostream.tasks import checkpoint_files

SCRIPTS = TESTS.parent / "scripts"


@pytest.fixture
def place(tmp_path) -> Path:
    """A folder that can't be created, not even by root, because a part of its path is a file."""
    (tmp_path / "file").touch()
    return tmp_path / "file" / "folder"


def is_one_line(said: list[str]) -> bool:
    return len(said) == 1 and said[0].startswith("error: ")


def test_translate_keeps_output_before_the_disk_was_full(recordings, model, tmp_path, echostream):
    options = ["--model", model, "--policy", "fixed-rate", "-q"]
    whole, cut = tmp_path / "whole.wav", tmp_path / "cut.wav"
    assert echostream("translate", recordings["long"], *options, "-o", whole)[0] == 0
    with largest_file(whole.stat().st_size // 2):
        status, said = echostream("translate", recordings["long"], *options, "-o", cut, "--vtt", tmp_path / "cut.vtt")
    assert status == 1 and is_one_line(said) and "cannot write" in said[0] and "cut.wav" in said[0]
    expected, got = (soundfile.read(path, dtype="int16")[0] for path in (whole, cut))
    assert 0 < len(got) < len(expected) and (got == expected[: len(got)]).all()
    assert (tmp_path / "cut.vtt").read_text().startswith("WEBVTT\n")


def test_translate_of_a_folder_names_all_failed_recordings(recordings, model, tmp_path, echostream):
    options = ["--model", model, "--policy", "fixed-rate", "-q", "-o", tmp_path / "out"]
    good, long = recordings["good"], recordings["long"]
    with largest_file(40_000):
        status, said = echostream("translate", good, long, *options)
    assert status == 1 and is_one_line(said) and f"{long.stem}.translated.part.wav" in said[0]
    made = tmp_path / "out" / f"{good.stem}.translated.wav"
    before = made.stat()
    assert before.st_size > 44
    assert echostream("translate", good, long, *options) == (0, [])
    assert made.stat().st_mtime_ns == before.st_mtime_ns  # the second run translated only the rest
    assert sorted(path.name for path in made.parent.iterdir()) == sorted(
        f"{path.stem}.translated.wav" for path in (good, long)
    )


def test_translate_into_an_invalid_folder(recordings, model, place, echostream):
    options = ["--model", model, "-q"]
    for output in (["-o", place / "a.wav"], ["--vtt", place / "a.vtt", "--task", "s2tt"]):
        status, said = echostream("translate", recordings["good"], *options, *output)
        assert status == 1 and is_one_line(said) and "cannot write" in said[0] and str(place) in said[0]


@pytest.mark.parametrize("command", ["asr", "info"])
def test_text_output_to_a_full_disk(command, recordings, model, echostream, monkeypatch):
    words = {"asr": ["asr", recordings["good"], "--model", model, "--text", "-q"], "info": ["info", model]}[command]
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        status, said = echostream(*words)
        full.flush()  # as Python does at exit; it must not fail again
    assert status == 1 and is_one_line(said)
    assert "the standard output: No space left on device" in said[0]


@pytest.mark.integration
def test_full_file_system(recordings, model, tmp_path):
    """Use a small file system, if users are allowed to mount one."""
    namespace = ["unshare", "--map-root-user", "--mount"]
    probe = [*namespace, "mount", "-t", "tmpfs", "none", str(tmp_path)]
    if shutil.which("unshare") is None or subprocess.run(probe, capture_output=True).returncode:
        pytest.skip("needs root or user namespaces; the tests with a limit of file size stand for this one")
    program = [sys.executable, TESTS / "bad_input" / "small_disk.py", model, recordings["long"], tmp_path / "disk"]
    done = subprocess.run([*namespace, *map(str, program)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["status"] == 1 and is_one_line(found["said"].splitlines())
    assert "out.wav: No space left on device" in found["said"] and 44 < found["bytes"] <= 96 * 1024
    for name in ("save", "copy"):
        assert found[name].startswith("echostream: cannot write ") and "checkpoint_last.pt is kept" in found[name]
    assert "No space left on device" in found["copy"]
    assert found["kept"] and found["left"] == ["checkpoint_last.pt"]


def test_evaluation_keeps_finished_utterances(recordings, simuleval, tmp_path):
    output = tmp_path / "out"
    sources = [recordings["good"], recordings["long"]]
    with largest_file(40_000):
        message = simuleval(sources, output, task="speech_to_speech")
    assert message.startswith("error: cannot ") and str(output) in message and "\n" not in message
    (line,) = (output / "instances.log").read_text().splitlines()
    assert json.loads(line)["index"] == 0 and (output / "wavs" / "0_pred.wav").stat().st_size > 44
    assert simuleval(sources, output, "--continue-unfinished", task="speech_to_speech") == 0
    assert len((output / "instances.log").read_text().splitlines()) == 2


def test_evaluation_into_an_invalid_folder(recordings, simuleval, place):
    message = simuleval([recordings["good"]], place)
    assert message.startswith("error: cannot use ") and str(place.parent) in message and "\n" not in message


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        (None, "one\n", "no such list"),
        ("a.wav\n", None, "no such list"),
        ("", "", "or none"),
        ("a.wav\nb.wav\n", "one\n", "different numbers of lines"),
        (b"\xff\xfe\n", "one\n", "not a list in UTF-8"),
    ],
)
def test_lists_that_do_not_match(source, target, message, simuleval, recordings, tmp_path):
    options = []
    for name, content in (("source", source), ("target", target)):
        path = tmp_path / f"list of {name}"
        if content is not None:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        options += [f"--{name}", str(path)]
    said = simuleval([recordings["good"]], tmp_path / "out", *options)
    assert said.startswith("error: ") and message in said and "\n" not in said


# --- training ----------------------------------------------------------------------------------------------------


def weights(value: float) -> dict[str, torch.Tensor]:
    return {"model": {"a": torch.full((50_000,), value)}}


@pytest.fixture
def fairseq_saves(tmp_path):
    """fairseq's functions as the plugin replaces them, and a complete last checkpoint."""
    from fairseq import checkpoint_utils
    from fairseq.file_io import PathManager

    last = tmp_path / "checkpoint_last.pt"
    checkpoint_utils.torch_persistent_save(weights(1.0), str(last))
    return checkpoint_utils, PathManager, last, last.read_bytes()


def test_failed_save_keeps_the_old_checkpoint(fairseq_saves, tmp_path):
    checkpoint_utils, _, last, before = fairseq_saves
    with largest_file(100_000):
        with pytest.raises(SystemExit) as ended:
            checkpoint_utils.torch_persistent_save(weights(2.0), str(last))
        with pytest.raises(SystemExit) as ended_too:
            checkpoint_utils.torch_persistent_save(weights(2.0), str(tmp_path / "checkpoint_1_5.pt"))
    for said in (str(ended.value), str(ended_too.value)):
        assert said.startswith("echostream: cannot write ") and f"{last} is kept" in said and "\n" not in said
    assert last.read_bytes() == before and [path.name for path in tmp_path.iterdir()] == [last.name]


def test_failed_copy_keeps_the_old_checkpoint(fairseq_saves, tmp_path):
    checkpoint_utils, manager, last, before = fairseq_saves
    newer = tmp_path / "checkpoint_1_5.pt"
    checkpoint_utils.torch_persistent_save(weights(2.0), str(newer))
    with largest_file(100_000), pytest.raises(SystemExit, match=r"^echostream: cannot write .*File too large"):
        manager.copy(str(newer), str(last), overwrite=True)
    assert last.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == [newer.name, last.name]
    assert manager.copy(str(newer), str(last), overwrite=True)
    assert last.read_bytes() == newer.read_bytes()


def test_training_into_an_invalid_folder(fairseq_saves, place):
    with pytest.raises(SystemExit, match=r"^echostream: cannot write to --save-dir .*Not a directory"):
        fairseq_saves[0].verify_checkpoint_directory(str(place))


def test_two_trainings_do_not_write_into_one_folder(fairseq_saves, tmp_path):
    """The lock is a process's: it holds against another one, not against this, and goes when that ends."""
    program = (
        "import sys; from pathlib import Path; from echostream.checkpoints.folder_lock import lock_folder;"
        "lock_folder(Path(sys.argv[1])); print('locked', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    prepare = fairseq_saves[0].verify_checkpoint_directory
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "locked\n"
        with pytest.raises(SystemExit, match=r"^echostream: another training writes to --save-dir .*: wait for its"):
            prepare(str(tmp_path))
        other.kill()  # which leaves nothing behind that keeps the folder
    for name in (str(tmp_path), str(tmp_path / ".." / tmp_path.name)):
        prepare(name)
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.returncode == 1 and "FolderInUseError" in done.stderr


@pytest.mark.integration
def test_training_resumes_after_a_full_disk(corpus, train, tmp_path):
    assert train(corpus, tmp_path / "run", 2) == 0
    last = tmp_path / "run" / "checkpoint_last.pt"
    before = last.read_bytes()
    with largest_file(len(before) // 2):
        said = train(corpus, tmp_path / "run", 4)
    assert said.startswith("echostream: cannot write ") and f"{last} is kept" in said
    assert last.read_bytes() == before
    assert train(corpus, tmp_path / "run", 4) == 0
    state = torch.load(last, weights_only=True)
    assert state["optimizer_history"][-1]["num_updates"] == 4


def test_second_install_has_no_effect():
    from fairseq import checkpoint_utils

    before = checkpoint_utils.torch_persistent_save
    checkpoint_files.install()
    assert checkpoint_utils.torch_persistent_save is before


# --- scripts -----------------------------------------------------------------------------------------------------


def script(name: str, *arguments: object) -> subprocess.CompletedProcess:
    return subprocess.run([SCRIPTS / name, *map(str, arguments)], capture_output=True, text=True, check=False)


def test_train_sh_into_an_invalid_folder(corpus, place):
    options = ["--max-update", 1, "--device", "cpu", "--python", sys.executable]
    done = script("train.sh", "--data", corpus.folder, "--save-dir", place, *options)
    assert done.returncode == 2 and is_one_line(done.stderr.splitlines()), done.stderr
    assert f"--save-dir {place} can't be written to" in done.stderr


def test_preparation_into_an_invalid_folder(place, tmp_path):
    (tmp_path / "table.tsv").write_text("source_wav\n")
    done = script(
        "recipes/custom/run.sh", "--table", tmp_path / "table.tsv", "--data-root", place, "--python", sys.executable
    )
    assert done.returncode != 0 and done.stderr.splitlines()[-1].startswith("error: cannot make the folder")
    assert "Traceback" not in done.stderr


def test_preparation_resumes_after_a_full_disk(recordings, tmp_path):
    """Convert recordings, the first long stage of scripts/recipes/custom: two fit on the disk and one doesn't."""
    rows = [f"{name}\t{recordings[name]}" for name in ("good", "long", "other")]
    (tmp_path / "checked.tsv").write_text("\n".join(["id\tsource_wav", *rows]) + "\n")
    out = tmp_path / "audio"
    command = [sys.executable, SCRIPTS / "recipes/custom" / "import_audio.py", "--texts", tmp_path / "checked.tsv"]
    command += ["--column", "source_wav", "--audio-root", tmp_path, "--out", out]
    with largest_file(40_000):
        # Child processes of Python ignore SIGXFSZ too.
        done = subprocess.run([*map(str, command)], capture_output=True, text=True, restore_signals=False)
    assert done.returncode != 0 and not (out / "long.wav").exists()
    assert not [path for path in out.iterdir() if path.name.startswith(".long")]
    kept = {path.name: path.read_bytes() for path in out.glob("*.wav")}
    again = subprocess.run([*map(str, command)], capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert sorted(path.name for path in out.glob("*.wav")) == ["good.wav", "long.wav", "other.wav"]
    for name, content in kept.items():
        assert (out / name).read_bytes() == content


def once(root: Path, *prefix: object) -> subprocess.CompletedProcess:
    """A stage that makes a file, recorded in the folder of the recipe."""
    stage = [sys.executable, SCRIPTS / "recipes" / "run_once.py", "--data-root", root, "--name", "stage"]
    stage += ["--outputs", root / "made", "--", "touch", root / "made"]
    return subprocess.run(
        [*map(str, [*prefix, *stage])], capture_output=True, text=True, restore_signals=False, check=False
    )


def test_stage_on_a_full_disk(tmp_path):
    with largest_file(0):
        done = once(tmp_path)
    assert done.returncode == 1 and is_one_line(done.stderr.splitlines()), done.stderr
    assert "cannot write the output: File too large" in done.stderr and "the same command goes on" in done.stderr
    assert once(tmp_path).returncode == 0 and (tmp_path / "made").exists()


def test_finished_and_unfinished_stages_in_a_read_only_folder(tmp_path):
    namespace = ["unshare", "--map-root-user", "--mount"]
    probe = [*namespace, "mount", "-t", "tmpfs", "none", str(tmp_path)]
    if shutil.which("unshare") is None or subprocess.run(probe, capture_output=True).returncode:
        pytest.skip("needs root or user namespaces; the tests with a limit of file size stand for this one")
    mount = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && exec "$@"'
    for root, is_finished in ((tmp_path / "a", False), (tmp_path / "b", True)):
        root.mkdir()
        if is_finished:
            assert once(root).returncode == 0
        done = once(root, *namespace, "sh", "-c", mount, root)
        if is_finished:
            assert done.returncode == 0 and "already done" in done.stdout, done.stderr
        else:
            assert done.returncode == 1 and is_one_line(done.stderr.splitlines()), done.stderr
            assert "cannot write" in done.stderr and "Read-only file system" in done.stderr
