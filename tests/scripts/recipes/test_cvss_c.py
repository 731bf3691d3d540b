"""The CVSS-C recipe, from tar files in the published layouts to a data set that fairseq trains on."""

import functools
import http.server
import os
import subprocess
import sys
import tarfile
import threading
from pathlib import Path

import joblib
import numpy as np
import pytest
import soundfile
from fairseq.data import Dictionary
from killing import check_killed_run
from sklearn.cluster import MiniBatchKMeans
from tiny_models import WIDTH, save_hubert, speech_like

from echostream.tasks.data_config import load_multitask_config, load_speech_config
from echostream.tasks.features import FeatureReader
from scripts.data import fbank
from scripts.recipes.cvss_c import data_set, download, extract, pairs, texts
from scripts.speech.audio import read_speech
from scripts.speech.speech_synthesis import read_table
from scripts.units.hubert_features import HubertFeatures
from scripts.units.units import UnitModel, remove_repeats

SCRIPTS = Path(__file__).resolve().parents[3] / "scripts"

# id, split, French, English as spoken; what is wrong with it
PAIRS = [
    ("common_voice_fr_1", "train", 'Bonjour, "tout le monde.', "hello everybody"),
    ("common_voice_fr_2", "train", "La gare est fermée.", "the station is closed"),
    ("common_voice_fr_3", "train", "Où est l'hôtel ?", "where is the hotel"),
    ("common_voice_fr_4", "train", "Il pleut depuis deux jours.", "it has been raining for two days"),
    ("common_voice_fr_5", "dev", "Merci beaucoup !", "thank you very much"),
    ("common_voice_fr_6", "test", "À demain.", "see you tomorrow"),
    ("common_voice_fr_7", "test", "Le train part à midi.", "the train leaves at noon"),
]
FAULTY = {
    "common_voice_fr_20": ("train", "not in validated.tsv of Common Voice"),
    "common_voice_fr_21": ("train", "in test of CoVoST 2"),
    "common_voice_fr_22": ("train", "no words in the source text"),
    "common_voice_fr_23": ("dev", "common_voice_fr_23.mp3 is unreadable"),
    "common_voice_fr_24": ("train", "common_voice_fr_24.mp3.wav is missing"),
}
CLUSTERS = 12
ARCHIVE_BYTES = 110_000  # two utterances or fewer


def pack(folder: Path, path: Path) -> Path:
    """A tar file of what is in a folder."""
    with tarfile.open(path, "w:gz") as archive:
        for inside in sorted(folder.iterdir()):
            archive.add(inside, inside.name)
    return path


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Path:
    """Tar files and unit model as they are published, on a miniature scale."""
    root = tmp_path_factory.mktemp("published")
    voice, covost, cvss = root / "voice", root / "covost", root / "cvss"
    for folder in (voice / "clips", covost, *(cvss / split for split in ("train", "dev", "test"))):
        folder.mkdir(parents=True)
    rows = PAIRS + [(name, split, "Une phrase.", "a sentence") for name, (split, _) in FAULTY.items()]
    validated, translations = ["client_id\tpath\tsentence\tup_votes"], ["path\ttranslation\tsplit"]
    tables = {"train": [], "dev": [], "test": []}
    for seed, (name, split, french, english) in enumerate(rows):
        clip, reason = f"{name}.mp3", FAULTY.get(name, ("", ""))[1]
        if "validated" not in reason:
            validated.append(f"speaker\t{clip}\t{french if 'no words' not in reason else '?!'}\t2")
        # CoVoST adds clips to the training set under another name.
        in_covost = "test" if "CoVoST" in reason else {1: "train_covost"}.get(seed, split)
        translations.append(f"{clip}\t{english.capitalize()}.\t{in_covost}")
        tables[split].append(f"{clip}\t{english}")
        soundfile.write(voice / "clips" / clip, speech_like(1.2 + 0.1 * seed, 48000, seed), 48000, format="MP3")
        if "unreadable" in reason:
            (voice / "clips" / clip).write_bytes(b"")
        if "missing" not in reason:
            soundfile.write(cvss / split / f"{clip}.wav", speech_like(1 + 0.1 * seed, 24000, 100 + seed), 24000)
    (voice / "validated.tsv").write_text("\n".join(validated) + "\n", encoding="utf-8")
    (covost / "covost_v2.fr_en.tsv").write_text("\n".join(translations) + "\n", encoding="utf-8")
    for split, lines in tables.items():
        (cvss / f"{split}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    pack(voice, root / "fr.tar.gz")
    pack(covost, root / "covost_v2.fr_en.tsv.tar.gz")
    pack(cvss, root / "cvss_c_fr_en_v1.0.tar.gz")
    save_hubert(root / "hubert.pt")
    points = np.random.default_rng(0).normal(size=(400, WIDTH)).astype(np.float32)
    joblib.dump(MiniBatchKMeans(CLUSTERS, n_init=1, random_state=0).fit(points), root / "km.bin")
    return root


def call(module, monkeypatch, *arguments: object) -> None:
    """The command line of a tool, in this process."""
    monkeypatch.setattr(sys, "argv", [module.__name__, *map(str, arguments)])
    module.main()


def fetch_arguments(published: Path, corpora: Path, address: str = "") -> list[str]:
    address = address or str(published)
    return [
        *("--lang", "fr", "--out", str(corpora)),
        *("--common-voice-url", f"{address}/fr.tar.gz"),
        *("--covost-url", f"{address}/covost_v2.fr_en.tsv.tar.gz"),
        *("--cvss-url", f"{address}/cvss_c_fr_en_v1.0.tar.gz"),
    ]


@pytest.fixture(scope="module")
def corpora(published, tmp_path_factory) -> Path:
    """Unpacked corpora."""
    folder = tmp_path_factory.mktemp("data") / "corpora"
    with pytest.MonkeyPatch.context() as patch:
        call(download, patch, *fetch_arguments(published, folder))
    return folder


@pytest.fixture(scope="module")
def extracted(corpora, tmp_path_factory) -> Path:
    """A data root after stages 2 to 4."""
    root = tmp_path_factory.mktemp("root")
    with pytest.MonkeyPatch.context() as patch:
        call(texts, patch, "--lang", "fr", "--corpora", corpora, "--out", root / "texts")
        for shard in (1, 0):
            share = ("--num-shards", 2, "--shard", shard)
            call(extract, patch, "--lang", "fr", "--corpora", corpora, "--data-root", root, *share)
        call(pairs, patch, "--lang", "fr", "--data-root", root)
    return root


class RangeServer(http.server.BaseHTTPRequestHandler):
    """Serves a folder, understands where to go on, and breaks off the first answer after 1000 bytes."""

    def __init__(self, *args, folder: Path, asked: list[str], **kwargs):
        self.folder, self.asked = folder, asked
        super().__init__(*args, **kwargs)

    def do_GET(self):
        data = (self.folder / Path(self.path).name).read_bytes()
        begin = int(self.headers.get("Range", "bytes=0-")[6:-1])
        self.asked.append(f"{Path(self.path).name} from {begin}")
        self.send_response(206 if begin else 200)
        self.send_header("Content-Length", str(len(data) - begin))
        self.end_headers()
        self.wfile.write(data[begin : 1000 if len(self.asked) == 1 else None])

    def log_message(self, *args):
        pass


def test_download_goes_on_where_it_stopped(published, tmp_path, monkeypatch, capsys):
    asked: list[str] = []
    handler = functools.partial(RangeServer, folder=published, asked=asked)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        arguments = fetch_arguments(published, tmp_path, f"http://127.0.0.1:{server.server_port}")
        with pytest.raises(SystemExit, match="1 of the corpora are missing"):
            call(download, monkeypatch, *arguments)
        assert "the connection ended" in capsys.readouterr().err
        call(download, monkeypatch, *arguments)
        server.shutdown()
    assert asked == [
        "fr.tar.gz from 0",
        "covost_v2.fr_en.tsv.tar.gz from 0",
        "cvss_c_fr_en_v1.0.tar.gz from 0",
        "fr.tar.gz from 1000",
    ]
    made = {path.relative_to(tmp_path): path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert Path("cv-corpus-4/fr/clips/common_voice_fr_1.mp3") in made
    assert Path("cvss_c_fr_en_v1.0/test/common_voice_fr_6.mp3.wav") in made and Path("covost_v2.fr_en.tsv") in made
    call(download, monkeypatch, *arguments)  # nothing to do, and no server
    assert made == {path.relative_to(tmp_path): path.stat().st_mtime_ns for path in tmp_path.rglob("*")}


def test_missing_corpora_are_all_named_with_a_remedy(published, tmp_path, monkeypatch, capsys):
    arguments = fetch_arguments(published, tmp_path, "http://127.0.0.1:9")
    arguments[arguments.index("--common-voice-url") + 1] = ""
    with pytest.raises(SystemExit, match="3 of the corpora are missing"):
        call(download, monkeypatch, *arguments)
    lines = capsys.readouterr().err.splitlines()
    assert "Common Voice 4: accept its terms" in lines[0] and str(tmp_path / "cv-corpus-4/fr") in lines[0]
    assert "cannot be fetched" in lines[1] and "--covost-url" in lines[1] and "--cvss-url" in lines[2]


def test_archive_must_not_leave_its_folder(published, tmp_path, monkeypatch, capsys):
    (tmp_path / "payload").write_text("x")
    with tarfile.open(tmp_path / "evil.tar", "w") as archive:
        archive.add(tmp_path / "payload", "../../escaped")
    arguments = fetch_arguments(published, tmp_path / "a/b/corpora")
    arguments[arguments.index("--cvss-url") + 1] = str(tmp_path / "evil.tar")
    with pytest.raises(SystemExit):
        call(download, monkeypatch, *arguments)
    assert "evil.tar cannot be unpacked" in capsys.readouterr().err
    assert not list(tmp_path.rglob("escaped")) and not list(tmp_path.rglob("*.unpacking"))


def test_rest_of_an_archive_goes_if_unpacking_was_killed_at_its_end(published, tmp_path, monkeypatch):
    arguments = fetch_arguments(published, tmp_path)
    call(download, monkeypatch, *arguments)
    rest = tmp_path / "cv-corpus-4/.fr.unpacking/cv-corpus-4"
    rest.mkdir(parents=True)
    call(download, monkeypatch, *arguments, "--dry-run")
    assert rest.exists()
    call(download, monkeypatch, *arguments)
    assert [path.name for path in tmp_path.rglob(".*")] == []


def test_texts_are_joined_and_faults_named(extracted):
    rows = read_table(extracted / "texts/pairs.tsv", "split", "audio", "fr", "en")
    assert [(row["id"], row["split"], row["fr"], row["en"]) for row in rows] == PAIRS
    tables = [read_table(extracted / "texts" / name, "reason") for name in ("skipped.tsv", "unusable.tsv")]
    assert {row["id"]: (row["split"], row["reason"]) for table in tables for row in table} == FAULTY


def test_splits_of_covosts_own_script_count_the_same(corpora, extracted, tmp_path, monkeypatch):
    split_tables = tmp_path / "corpora"
    split_tables.mkdir()
    for path in corpora.iterdir():
        (split_tables / path.name).symlink_to(path)
    rows = [line.split("\t") for line in (corpora / "covost_v2.fr_en.tsv").read_text().splitlines()[1:]]
    for split in ("train", "dev", "test"):
        lines = [f"{path}\tx\t{text}\tspeaker" for path, text, where in rows if where.removesuffix("_covost") == split]
        table = "\n".join(["path\tsentence\ttranslation\tclient_id", *lines]) + "\n"
        (split_tables / f"covost_v2.fr_en.{split}.tsv").write_text(table)
    (split_tables / "covost_v2.fr_en.tsv").unlink()
    call(texts, monkeypatch, "--lang", "fr", "--corpora", split_tables, "--out", tmp_path)
    assert (tmp_path / "all.tsv").read_bytes() == (extracted / "texts/all.tsv").read_bytes()


def test_recordings_are_resampled_and_not_trimmed(extracted, corpora):
    for index, (name, split, _, _) in enumerate(PAIRS):
        original, rate = soundfile.read(corpora / f"cvss_c_fr_en_v1.0/{split}/{name}.mp3.wav", dtype="float32")
        speech = read_speech(extracted / f"audio/en/{name}.wav")
        assert len(speech) == -(-len(original) * 16000 // rate)
        assert np.abs(speech[::2][: len(original) // 3] - original[::3][: len(speech) // 2]).max() < 0.05
        source = read_speech(extracted / f"audio/fr/{name}.wav")
        assert abs(len(source) / 16000 - (1.2 + 0.1 * index)) < 0.1 and np.abs(source).max() > 0.3


def test_extraction_goes_on_where_it_stopped(extracted, corpora, monkeypatch, capsys):
    arguments = ("--lang", "fr", "--corpora", corpora, "--data-root", extracted)
    lost, kept = (extracted / f"audio/{name}.wav" for name in ("fr/common_voice_fr_3", "en/common_voice_fr_3"))
    before, time_ns = lost.read_bytes(), kept.stat().st_mtime_ns
    lost.unlink()
    with pytest.raises(SystemExit, match="common_voice_fr_3 were not extracted; run stage 3 again"):
        call(pairs, monkeypatch, "--lang", "fr", "--data-root", extracted)
    call(extract, monkeypatch, *arguments, "--dry-run")
    # the two pairs with a faulty recording are tried each time
    assert "3 pairs to extract, 6 already done" in capsys.readouterr().out and not lost.exists()
    call(extract, monkeypatch, *arguments)
    assert lost.read_bytes() == before and kept.stat().st_mtime_ns == time_ns


@pytest.fixture(scope="module")
def with_units(extracted) -> Path:
    """The same data root with features and made-up units."""
    with pytest.MonkeyPatch.context() as patch:
        folders = ("--audio", extracted / "audio/fr", "--out", extracted / "fbank")
        call(fbank, patch, "--texts", extracted / "texts/pairs.tsv", *folders)
    UnitModel.of_centroids(np.eye(CLUSTERS, dtype=np.float32), "hubert:2").save(extracted / "kmeans.npz")
    lines = [f"{name}\taudio/en/{name}.wav\t{index} {index} 9 9" for index, (name, *_) in enumerate(PAIRS)]
    (extracted / "units.tsv").write_text("\n".join(["id\taudio\tunits", *lines]) + "\n")
    return extracted


def test_each_kind_of_manifest_gives_the_same_features(with_units, monkeypatch):
    features, lengths = {}, {}
    for kind in ("zip", "npy", "wav"):
        arguments = ("--data-root", with_units, "--kmeans", with_units / "kmeans.npz", "--vocab-size", 60)
        template = ("--config", SCRIPTS.parent / "configs/config_gcmvn.yaml")
        size = ("--archive-bytes", ARCHIVE_BYTES)
        call(data_set, monkeypatch, "--lang", "fr", *arguments, *template, "--manifest", kind, *size)
        config = load_speech_config(with_units / "config_gcmvn.yaml")
        reader = FeatureReader(config, "test", is_train=False)
        tables = [read_table(with_units / f"{split}.tsv") for split in ("train", "dev", "test")]
        rows = {row["id"]: row for table in tables for row in table}
        assert list(rows) == [pair[0] for pair in PAIRS] and rows["common_voice_fr_3"]["tgt_audio"] == "2 9"
        features[kind] = {name: reader.read(str(with_units / row["src_audio"])).numpy() for name, row in rows.items()}
        lengths[kind] = {name: int(row["src_n_frames"]) for name, row in rows.items()}
    archives = sorted(path.name for path in with_units.glob("src_fbank80*.zip"))
    assert archives[:3] == ["src_fbank80.1.zip", "src_fbank80.2.zip", "src_fbank80.3.zip"]
    assert archives[-1] == "src_fbank80.zip"
    assert all((with_units / name).stat().st_size <= ARCHIVE_BYTES for name in archives)
    train = np.concatenate([features["zip"][name] for name, split, *_ in PAIRS if split == "train"])
    np.testing.assert_allclose(train.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(train.std(0), 1, atol=1e-3)
    for name, array in features["zip"].items():
        np.testing.assert_array_equal(array, features["npy"][name])
        np.testing.assert_allclose(array, features["wav"][name], atol=2e-3)
        assert {len(array)} == {lengths[kind][name] for kind in lengths}


def test_data_set_is_the_same_each_time(with_units, monkeypatch):
    def make() -> dict[str, bytes]:
        arguments = ("--data-root", with_units, "--kmeans", with_units / "kmeans.npz", "--vocab-size", 60)
        template = ("--config", SCRIPTS.parent / "configs/config_gcmvn.yaml")
        call(data_set, monkeypatch, "--lang", "fr", *arguments, *template)
        patterns = ("*.tsv", "*.zip", "*.npz", "*.yaml", "*_unigram/*")
        return {str(path): path.read_bytes() for pattern in patterns for path in sorted(with_units.glob(pattern))}

    first = make()
    assert len(first) > 20
    assert {path for path, data in make().items() if first[path] != data} == set()


def recipe_command(root: Path, published: Path, *options: object) -> list[str]:
    command = [
        SCRIPTS / "recipes/cvss_c/run.sh",
        "--data-root",
        root,
        "--lang",
        "fr",
        "--python",
        sys.executable,
        "--jobs",
        1,
    ]
    sources = [
        *("--common-voice-url", published / "fr.tar.gz", "--cvss-url", published / "cvss_c_fr_en_v1.0.tar.gz"),
        *("--covost-url", published / "covost_v2.fr_en.tsv.tar.gz", "--vocab-size", 60),
    ]
    return [*map(str, (*command, *sources, *options))]


def recipe(root: Path, published: Path, *options: object) -> subprocess.CompletedProcess:
    hubert = ("--hubert", published / "hubert.pt", "--layer", 2, "--kmeans", published / "km.bin")
    command = recipe_command(root, published, *hubert, *options)
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


@pytest.mark.integration
def test_whole_recipe(published, tmp_path):
    root = tmp_path / "data"
    listed = recipe(root, published, "--dry-run")
    assert listed.returncode == 0 and "would be fetched" in listed.stdout and not root.exists(), listed.stderr
    done = recipe(root, published)
    assert done.returncode == 0, done.stdout + done.stderr
    speech, multitask = (
        load_speech_config(root / "config_gcmvn.yaml"),
        load_multitask_config(root / "config_multitask.yaml"),
    )
    assert speech.num_units == CLUSTERS and speech.audio_root == root
    assert isinstance(multitask["target_unigram"].dictionary, Dictionary)
    extractor = HubertFeatures(published / "hubert.pt", 2)
    centroids = joblib.load(published / "km.bin").cluster_centers_
    for split in ("train", "dev", "test"):
        expected = [pair for pair in PAIRS if pair[1] == split]
        rows = read_table(root / f"{split}.tsv", "src_audio", "src_n_frames", "tgt_audio", "tgt_n_frames")
        assert [row["id"] for row in rows] == [pair[0] for pair in expected]
        for row in rows:
            features = extractor(read_speech(root / f"audio/en/{row['id']}.wav"))
            units = np.linalg.norm(features[:, None] - centroids, axis=2).argmin(1)
            assert row["tgt_audio"] == " ".join(map(str, remove_repeats(units)))
            assert row["tgt_n_frames"] == str(len(row["tgt_audio"].split()))
    sources = (root / "simuleval/source.txt").read_text().splitlines()
    assert sources == [str(root / f"audio/fr/{name}.wav") for name, split, _, _ in PAIRS if split == "test"]
    assert (root / "simuleval/target.txt").read_text().splitlines() == [p[3] for p in PAIRS if p[1] == "test"]

    # fairseq trains on it as it is: the four pairs in one batch.
    save_dir = tmp_path / "model"
    command = [
        SCRIPTS / "train.sh",
        "--data",
        root,
        "--save-dir",
        save_dir,
        "--max-update",
        1,
        "--python",
        sys.executable,
    ]
    trained = subprocess.run([*map(str, command), "--device", "cpu"], capture_output=True, text=True, check=False)
    assert trained.returncode == 0, trained.stdout + trained.stderr
    assert (save_dir / "checkpoint_last.pt").is_file() and "4 utterances" in (save_dir / "train.log").read_text()


@pytest.mark.integration
def test_killed_in_every_stage(published, tmp_path):
    def command(root: Path) -> list[str]:
        return recipe_command(root, published, "--features", "mfcc", "--clusters", 8)

    check_killed_run(command, tmp_path, last_stage=7)
