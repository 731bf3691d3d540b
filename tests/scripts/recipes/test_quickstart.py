"""The quickstart corpus: its parts on made-up data, and the whole recipe on three sentences."""

import os
import shutil
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
import soundfile
from fairseq.data import Dictionary
from fairseq.data.audio.audio_utils import _get_torchaudio_fbank, get_features_or_waveform
from fairseq.data.audio.data_cfg import MultitaskConfig, S2SDataConfig
from fairseq.data.audio.speech_to_speech_dataset import SpeechToSpeechDatasetCreator
from killing import check_killed_run, with_every_recipe

from echostream.tasks.data_config import load_multitask_config, load_speech_config
from scripts.data import fbank_archive, manifests
from scripts.files import write_text
from scripts.recipes.quickstart import make_texts
from scripts.speech import french_voice
from scripts.speech.audio import read_speech, write_speech
from scripts.speech.speech_synthesis import read_table
from scripts.speech.text_normalization import normalize_text
from scripts.units import unit_features, units

SCRIPTS = Path(__file__).resolve().parents[3] / "scripts"
DATA_PACKAGES = (
    *french_voice.PACKAGES,
    *unit_features.PACKAGES["whisper"],
    "hibari",
)
needs_data_packages = pytest.mark.skipif(
    any(find_spec(package) is None for package in DATA_PACKAGES), reason="needs pip install -e '.[data]'"
)
TASKS = ("source_unigram", "target_unigram", "ctc_target_unigram")
PAIRS = (
    ("a", "L'été, c'est fini.", "Summer is over."),
    ("b", "Où est la gare ?", "Where is the station?"),
    ("c", "Merci beaucoup, à demain !", "Thank you, see you tomorrow!"),
)


def run_python(script: str, *arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, str(SCRIPTS / script), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def fairseq_fbank(path: Path) -> np.ndarray:
    """What fairseq computes; its own reader of audio files needs a module that torchaudio no longer has."""
    return _get_torchaudio_fbank(read_speech(path)[None] * 2**15, 16000)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """A data root after the units stage, with noise for speech."""
    generator = np.random.default_rng(0)
    lines = ["id\taudio\tunits"]
    for index, (name, _, _) in enumerate(PAIRS):
        write_speech(tmp_path / "audio/fr" / f"{name}.wav", generator.normal(size=9000 + 800 * index), 16000)
        lines.append(f"{name}\taudio/en/{name}.wav\t{index} {index} 7 7 7 {index} 9")
    write_text(tmp_path / "units.tsv", "\n".join(lines) + "\n")
    rows = ["id\tfr\ten", *("\t".join(pair) for pair in PAIRS)]
    write_text(tmp_path / "texts/pairs.tsv", "\n".join(rows) + "\n")
    return tmp_path


def test_sentences_fit_the_recipe():
    rows = read_table(make_texts.SENTENCES, "fr", "en")
    assert len(rows) == 40 and len({row["fr"] for row in rows}) == 40
    for row in rows:
        assert 6 <= len(row["fr"].split()) <= 14 and 6 <= len(row["en"].split()) <= 14
        assert not any(letter.isdigit() for letter in row["en"])
        assert all(letter.isalpha() or letter in " .,?!'-" for letter in row["fr"] + row["en"])


def test_extra_lines_are_varied_and_repeatable():
    def lines():
        generator = make_texts.random.Random(3)
        return [make_texts.make_line(generator) for _ in range(50)]

    assert lines() == lines() and len(set(lines())) == 50
    assert all(line[0].isupper() and line[-1] in ".?!" and "{" not in line for line in lines())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("L’été, c'est  fini !", "l'été c'est fini"),
        ("Pouvez-vous rappeler ?", "pouvez vous rappeler"),
        ("'Nine' o'clock.", "nine o'clock"),
        ("E\u0301te\u0301", "été"),
    ],
)
def test_text_is_lower_case_words(text, expected):
    assert normalize_text(text) == expected


def test_espeak_sounds_in_kokoro_alphabet():
    assert french_voice.to_kokoro("t^ʃˈɛk (en)wˈɪnd(fr) bɔ̃ʒ-ˈuʁ") == "ʧˈɛk wˈɪnd bɔ̃ʒˈuʁ"


def test_speech_file_is_whole_units_at_16_khz(tmp_path):
    silence, tone = np.zeros(12000), np.sin(np.arange(24000) / 20)
    count = write_speech(tmp_path / "x.wav", np.concatenate([silence, tone, silence]), 24000, multiple=320)
    samples = read_speech(tmp_path / "x.wav")
    assert count == len(samples) and count % 320 == 0
    # 1 s of tone and a margin of 0.1 s on either side, cut to whole units
    assert 1.17 < count / 16000 < 1.21
    assert abs(samples).max() == pytest.approx(0.8, abs=1e-3)
    with pytest.raises(ValueError, match="silent"):
        write_speech(tmp_path / "y.wav", silence, 24000)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.wav"]


def test_run_once_resumes_and_discards(tmp_path):
    script, data, partial = tmp_path / "work.py", tmp_path / "in.txt", tmp_path / "partial"
    script.write_text(
        "import pathlib, sys\n"
        "folder = pathlib.Path(sys.argv[1]); folder.mkdir(exist_ok=True)\n"
        "log = folder / 'log'; runs = len(log.read_text()) if log.exists() else 0\n"
        "log.write_text('x' * (runs + 1)); sys.exit(runs == 0)\n"
    )
    data.write_text("one")
    log = partial / "log"

    def stage():
        arguments = ("--data-root", tmp_path, "--name", "work", "--inputs", data, "--outputs", log)
        command = ("--", sys.executable, script, partial)
        return run_python("recipes/run_once.py", *arguments, "--partial", partial, *command).returncode

    assert stage() == 1  # fails the first time, and keeps its unfinished work
    assert stage() == 0 and log.read_text() == "xx"
    assert stage() == 0 and log.read_text() == "xx"  # not run again
    data.write_text("two")
    assert stage() == 1 and log.read_text() == "x"  # other inputs: from the beginning


def test_features_are_fairseqs(tmp_path):
    path = tmp_path / "x.wav"
    soundfile.write(path, np.random.default_rng(0).normal(size=8000).clip(-1, 1) * 0.3, 16000)
    features = fbank_archive.log_mel(read_speech(path))
    np.testing.assert_allclose(features, fairseq_fbank(path), rtol=1e-6)
    stored = {"é": features, "b": features[:7] + 1}
    addresses = fbank_archive.write_archive(tmp_path / "x.zip", stored.items())
    for name, array in stored.items():
        np.testing.assert_array_equal(get_features_or_waveform(f"{tmp_path}/{addresses[name]}"), array)


def test_archives_are_split_by_size(tmp_path):
    stored = {f"é{i}": np.full((3, 80), i, np.float32) for i in range(5)}
    whole = fbank_archive.write_archive(tmp_path / "a/x.zip", stored.items())
    assert {address.split(":")[0] for address in whole.values()} == {"x.zip"}
    first_two = (tmp_path / "a/x.zip").stat().st_size // 2
    addresses = fbank_archive.write_archive(tmp_path / "b/x.zip", stored.items(), first_two)
    assert [address.split(":")[0] for address in addresses.values()] == ["x.zip"] * 2 + ["x.1.zip"] * 2 + ["x.2.zip"]
    for path in (tmp_path / "b").iterdir():
        assert path.stat().st_size <= first_two and zipfile.ZipFile(path).testzip() is None
    for name, array in stored.items():
        np.testing.assert_array_equal(get_features_or_waveform(f"{tmp_path}/b/{addresses[name]}"), array)
    # In one archive again, with the bytes it had; a member larger than the limit has an archive of its own.
    assert fbank_archive.write_archive(tmp_path / "b/x.zip", stored.items()) == whole
    assert [path.name for path in (tmp_path / "b").iterdir()] == ["x.zip"]
    assert (tmp_path / "b/x.zip").read_bytes() == (tmp_path / "a/x.zip").read_bytes()
    fbank_archive.write_archive(tmp_path / "b/x.zip", stored.items(), 1)
    assert len(list((tmp_path / "b").iterdir())) == 5


def test_units_survive_saving_and_name_the_nearest_cluster(tmp_path):
    generator = np.random.default_rng(0)
    labels = [["A", "B", "C"][i] for i in generator.integers(0, 3, 300)]
    features = np.array([[{"A": 0, "B": 4, "C": 8}[p], 0, 0] for p in labels]) + generator.normal(size=(300, 3)) * 0.3
    features = features.astype(np.float32)
    model = units.fit_units([features, features[:50]], [labels, None], "mfcc", clusters=6, context=0)
    assert model.num_units == 6 and model.projection.shape == (3, 2)
    model.save(tmp_path / "kmeans.npz")
    found = units.UnitModel.load(tmp_path / "kmeans.npz").encode(features)
    distances = np.linalg.norm(model.project(features)[:, None] - model.centroids, axis=2)
    np.testing.assert_array_equal(found, distances.argmin(1))
    for unit in range(6):
        assert len({label for label, u in zip(labels, found, strict=True) if u == unit}) <= 1
    assert units.remove_repeats(np.array([3, 3, 1, 1, 3])) == [3, 1, 3]


def test_mfcc_has_one_frame_for_20_ms():
    samples = np.random.default_rng(0).normal(size=320 * 50 + 100).astype(np.float32)
    assert unit_features.MfccFeatures()(samples).shape == (50, 60)


def test_held_out_pairs_are_disjoint():
    rows = [{"id": str(i)} for i in range(9)]
    splits = manifests.split_rows(rows, 2)
    assert {k: [r["id"] for r in v] for k, v in splits.items()} == {
        "train": list("01234"),
        "dev": list("56"),
        "test": list("78"),
    }
    with pytest.raises(SystemExit, match="too few"):
        manifests.split_rows(rows, 5)


def test_manifests_load_in_fairseq(corpus, monkeypatch):
    done = run_python(
        "data/manifests.py", "--data-root", corpus, "--pairs", corpus / "texts/pairs.tsv", "--num-units", 100
    )
    assert done.returncode == 0, done.stderr
    # fairseq itself resolves relative paths from where it runs, the task of this project from the data
    monkeypatch.chdir(corpus)
    config = S2SDataConfig(corpus / "config_gcmvn.yaml")
    tasks = MultitaskConfig(corpus / "config_multitask.yaml").get_all_tasks()
    dictionary = Dictionary()
    for unit in range(10):
        dictionary.add_symbol(str(unit))
    data = SpeechToSpeechDatasetCreator.from_tsv(
        str(corpus), config, "dev", False, 1, 1, target_is_code=True, tgt_dict=dictionary
    )
    stats = np.load("gcmvn.npz")
    everything = []
    for index, (name, _, _) in enumerate(PAIRS):
        item = data[index]
        expected = fairseq_fbank(corpus / f"audio/fr/{name}.wav")
        assert data.ids[index] == name and data.n_frames[index] == len(expected)
        np.testing.assert_allclose(item.source.numpy(), (expected - stats["mean"]) / stats["std"], rtol=1e-3, atol=1e-4)
        assert dictionary.string(item.target) == f"{index} 7 {index} 9"
        assert data.tgt_lens[index] == 4
        everything.append(item.source.numpy())
    np.testing.assert_allclose(np.concatenate(everything).mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(np.concatenate(everything).std(0), 1, atol=1e-3)

    for task, column in (("source_unigram", 1), ("target_unigram", 2), ("ctc_target_unigram", 2)):
        symbols, folder = tasks[task].tgt_dict, corpus / tasks[task].data
        model = sentencepiece.SentencePieceProcessor(str(folder / "spm_unigram.model"))
        assert [symbols[i] for i in range(len(symbols))] == [model.id_to_piece(i) for i in range(len(symbols))]
        for pair, row in zip(PAIRS, read_table(folder / "train.tsv", "tgt_text"), strict=True):
            assert row["id"] == pair[0]
            ids = symbols.encode_line(row["tgt_text"], add_if_not_exist=False, append_eos=False)
            assert symbols.unk() not in ids
            assert model.decode(ids.tolist()) == normalize_text(pair[column])


def test_manifests_load_from_another_folder(corpus, monkeypatch, tmp_path_factory):
    done = run_python(
        "data/manifests.py", "--data-root", corpus, "--pairs", corpus / "texts/pairs.tsv", "--num-units", 100
    )
    assert done.returncode == 0, done.stderr
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    speech = load_speech_config(corpus / "config_gcmvn.yaml")
    texts = load_multitask_config(corpus / "config_multitask.yaml")
    assert speech.audio_root == corpus and speech.cmvn[0].shape == (80,)
    assert [texts[name].loss_weight for name in ("source_unigram", "ctc_target_unigram", "target_unigram")] == [4, 4, 8]
    for path in [*corpus.glob("*.tsv"), *corpus.glob("*.yaml"), *corpus.glob("*_unigram/*.tsv")]:
        assert str(corpus) not in path.read_text()


def test_a_data_set_that_goes_on_from_another_fits_its_model(corpus, tmp_path_factory):
    def made(root, *options):
        pairs = root / "texts/pairs.tsv"
        return run_python("data/manifests.py", "--data-root", root, "--pairs", pairs, "--num-units", 100, *options)

    assert made(corpus).returncode == 0
    larger = tmp_path_factory.mktemp("larger")
    shutil.copytree(corpus / "audio", larger / "audio")
    shutil.copy(corpus / "audio/fr/a.wav", larger / "audio/fr/d.wav")
    write_text(larger / "units.tsv", (corpus / "units.tsv").read_text() + "d\taudio/en/d.wav\t5 5 6\n")
    rows = (
        corpus / "texts/pairs.tsv"
    ).read_text() + "d\tMerci, la gare est fermée.\tThank you, the station is closed.\n"
    write_text(larger / "texts/pairs.tsv", rows)
    kept = ["gcmvn.npz", *(f"{task}/{name}" for task in TASKS for name in ("dict.txt", "spm_unigram.model"))]
    assert made(larger).returncode == 0
    assert all((larger / name).read_bytes() != (corpus / name).read_bytes() for name in kept)
    assert made(larger, "--continue-from", corpus).returncode == 0
    assert all((larger / name).read_bytes() == (corpus / name).read_bytes() for name in kept)
    known = {line.split()[0] for line in (corpus / "source_unigram/dict.txt").read_text().splitlines()}
    pieces = [row["tgt_text"].split() for row in read_table(larger / "source_unigram/train.tsv", "tgt_text")]
    assert len(pieces) == 4 and set(pieces[3][:3]) <= known
    again = made(larger, "--continue-from", larger)  # a data set that has grown goes on from itself
    assert again.returncode == 0 and all((larger / name).read_bytes() == (corpus / name).read_bytes() for name in kept)
    wrong = made(larger, "--continue-from", corpus / "audio")
    assert wrong.returncode == 1 and "give the folder of a data set or of a model" in wrong.stderr.splitlines()[-1]


def test_errors_are_one_line_with_a_remedy(corpus, tmp_path):
    (corpus / "units.tsv").write_text("id\taudio\tunits\na\taudio/en/a.wav\t1 2\n")
    done = run_python(
        "data/manifests.py", "--data-root", corpus, "--pairs", corpus / "texts/pairs.tsv", "--num-units", 100
    )
    assert done.returncode == 1 and "no units for b; run the units stage again" in done.stderr.splitlines()[-1]
    with pytest.raises(SystemExit, match="--voice-table"):
        french_voice.load_voice_table(tmp_path / "none.npy")
    wrong = subprocess.run(
        [SCRIPTS / "recipes/quickstart/prepare.sh", "--data-rot", "x"], capture_output=True, text=True
    )
    assert wrong.returncode == 2 and "unknown option --data-rot" in wrong.stderr


def test_shipped_voice_table():
    table = french_voice.load_voice_table(SCRIPTS / "recipes/quickstart/voices/ff_siwis.npy")
    assert table.shape == (510, 256) and np.isfinite(table).all() and table.std() > 0


@needs_data_packages
def test_whole_recipe_runs_once(tmp_path):
    root = tmp_path / "data"

    def prepare(root):
        options = ["--limit", "3", "--extra-lines", "6", "--clusters", "20", "--jobs", "1", "--stop-stage", "5"]
        command = [SCRIPTS / "recipes/quickstart/prepare.sh", "--data-root", root, "--python", sys.executable, *options]
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"CUDA_VISIBLE_DEVICES": ""})
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "fr: 3 spoken" in prepare(root)
    made = {path.relative_to(root): path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()}
    for folder in ("fr", "en"):
        assert 1 < len(read_speech(root / f"audio/{folder}/pair01.wav")) / 16000 < 6
    unit_rows = read_table(root / "units.tsv", "audio", "units")
    assert len(unit_rows) == 9
    for row in unit_rows:
        frames = [int(unit) for unit in row["units"].split()]
        assert len(frames) * 320 == len(read_speech(root / row["audio"])) and min(frames) >= 0 and max(frames) < 20
    sources = (root / "simuleval/source.txt").read_text().split("\n")[:-1]
    references = (root / "simuleval/target.txt").read_text().split("\n")[:-1]
    assert all(Path(source).is_file() for source in sources) and len(sources) == len(references) == 3
    assert references[0] == "hello i would like to book a room for two nights"

    (root / "audio/fr/pair02.wav").unlink()  # as if the run had been stopped
    moved = root.rename(tmp_path / "moved")
    output = prepare(moved)
    assert "texts: already done" in output and "units: 0 recordings to do, 9 already done" in output
    assert "fr: 1 spoken, 2 already done" in output and "en: 0 spoken, 9 already done" in output
    again = {path.parts[0] for path, time in made.items() if (moved / path).stat().st_mtime_ns != time}
    assert again == {"audio", "simuleval", "simuleval_dev"}
    assert str(moved / "audio/fr/pair01.wav") in (moved / "simuleval/source.txt").read_text()


@pytest.mark.integration
@needs_data_packages
@with_every_recipe
def test_killed_in_every_stage(tmp_path):
    sentences = tmp_path / "short.tsv"
    sentences.write_text("id\tfr\ten\na\tMerci.\tThank you.\nb\tBonjour.\tGood morning.\nc\tÀ demain.\tSee you.\n")

    def command(root: Path) -> list[str]:
        small = ("--sentences", sentences, "--extra-lines", 1, "--features", "mfcc", "--clusters", 10, "--jobs", 1)
        return [
            *map(
                str,
                (SCRIPTS / "recipes/quickstart/prepare.sh", "--data-root", root, "--python", sys.executable, *small),
            )
        ]

    check_killed_run(command, tmp_path, last_stage=5)
