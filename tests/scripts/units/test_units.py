"""Discrete units: features of HuBERT, clusters of others, learning, sharded application, measures, the recipe."""

import os
import pickle
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import joblib
import numpy as np
import pytest
import soundfile
import torch
from sklearn.cluster import KMeans, MiniBatchKMeans
from tiny_models import WIDTH, save_hubert, speech_like

from scripts.speech import recordings
from scripts.speech.speech_synthesis import read_table
from scripts.units import (
    align_phones,
    apply_units,
    hubert_features,
    import_kmeans,
    learn_units,
    phones_table,
    unit_features,
    unit_quality,
    units,
)
from scripts.units.phone_alignment import PhoneAligner
from scripts.units.unit_features import MfccFeatures, make_extractor

SCRIPTS = Path(__file__).resolve().parents[3] / "scripts"
NAMES = [f"r{number:02d}" for number in range(8)]
needs_english_voice = pytest.mark.skipif(
    find_spec("hibari") is None or find_spec("pocketsphinx") is None, reason="needs pip install -e '.[data]'"
)


class Harmful:
    """Unpickled the usual way, this makes a folder."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def call(module, monkeypatch, *arguments: object) -> None:
    """The command line of a tool, in this process."""
    monkeypatch.setattr(sys, "argv", [module.__name__, *map(str, arguments)])
    module.main()


@pytest.fixture(scope="module")
def speech(tmp_path_factory) -> Path:
    """A folder with recordings in audio/."""
    root = tmp_path_factory.mktemp("speech")
    (root / "audio").mkdir()
    for seed, name in enumerate(NAMES):
        soundfile.write(root / "audio" / f"{name}.wav", speech_like(1 + 0.1 * seed, 16000, seed), 16000)
    lines = [f"{name}\taudio/{name}.wav" for name in NAMES]
    (root / "speech.tsv").write_text("\n".join(["id\taudio", *lines]) + "\n")
    return root


@pytest.fixture(scope="module")
def learned(speech) -> Path:
    """Clusters of MFCC."""
    with pytest.MonkeyPatch.context() as patch:
        where = ("--list", speech / "speech.tsv", "--audio-root", speech, "--out", speech / "kmeans.npz")
        call(learn_units, patch, *where, "--features", "mfcc", "--clusters", 10)
    return speech / "kmeans.npz"


@pytest.mark.parametrize("other", [False, True])
def test_hubert_layer_is_fairseqs(tmp_path, other):
    normalize = other
    model = save_hubert(tmp_path / "hubert.pt", layer_norm_first=other, normalize=normalize, old=other)
    samples = speech_like(1.5, 16000, seed=1)
    source = torch.from_numpy(samples)[None]
    if normalize:
        source = torch.nn.functional.layer_norm(source, source.shape)
    for layer in (1, 2, 3):
        with torch.no_grad():
            expected, _ = model.extract_features(source, mask=False, output_layer=layer)
        features = hubert_features.HubertFeatures(tmp_path / "hubert.pt", layer)(samples)
        np.testing.assert_allclose(features, expected[0].numpy(), rtol=1e-5, atol=1e-5)
    assert features.shape == (74, WIDTH)  # 20 ms each, but for the last 5 ms of the first window


def test_long_recording_is_taken_in_chunks(tmp_path, monkeypatch):
    save_hubert(tmp_path / "hubert.pt")
    extractor = hubert_features.HubertFeatures(tmp_path / "hubert.pt", 2)
    samples = speech_like(2.0, 16000, seed=2)
    monkeypatch.setattr(hubert_features, "MAX_CHUNK_SAMPLES", 16000)
    expected = np.concatenate([extractor(samples[:16000]), extractor(samples[16000:])])
    np.testing.assert_array_equal(extractor(samples), expected)
    with pytest.raises(ValueError, match="too short for HuBERT"):
        extractor(samples[:300])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_hubert_on_a_gpu_agrees(tmp_path):
    save_hubert(tmp_path / "hubert.pt")
    samples = speech_like(2.0, 16000, seed=3)
    one, other = (hubert_features.HubertFeatures(tmp_path / "hubert.pt", 2, d)(samples) for d in ("cpu", "cuda"))
    np.testing.assert_allclose(one, other, atol=1e-2)


def test_checkpoint_that_is_none_is_refused(tmp_path):
    save_hubert(tmp_path / "hubert.pt")
    good = hubert_features.load_checkpoint(tmp_path / "hubert.pt")
    harm = tmp_path / "harm"
    torch.save({**good, "extra_state": Harmful(harm)}, tmp_path / "harmful.pt")
    with pytest.raises(ValueError, match=r"harmful.pt is refused: it holds posix.mkdir"):
        hubert_features.load_checkpoint(tmp_path / "harmful.pt")
    (tmp_path / "text.pt").write_text("hello " * 100)
    with pytest.raises(ValueError, match=r"text.pt is refused"):
        hubert_features.load_checkpoint(tmp_path / "text.pt")
    with pytest.raises(ValueError, match="has layers 1 to 3, not 4; choose another --layer"):
        hubert_features.HubertFeatures(tmp_path / "hubert.pt", 4)

    # fairseq evaluates this option as Python.
    options = good["cfg"]["model"]
    options["conv_feature_layers"] = f"__import__('pathlib').Path({str(harm)!r}).touch() or [(32,10,5)]"
    with pytest.raises(ValueError, match="conv_feature_layers"):
        hubert_features.build_hubert(good)
    for layers in ("[(32,10,5)] * 10 ** 9", "[(32,10,5)] * 100000", "[x for x in ()]", "[(32,10,5)"):
        with pytest.raises(ValueError, match="conv_feature_layers"):
            hubert_features.check_layers(layers)
    options["_name"] = "wav2vec2"
    with pytest.raises(ValueError, match="'wav2vec2', not a pre-trained 'hubert'"):
        hubert_features.build_hubert(good)
    assert not harm.exists()


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("kind", [KMeans, MiniBatchKMeans])
def test_published_clusters_are_read_without_running_them(tmp_path, kind, protocol):
    points = np.random.default_rng(0).normal(size=(300, 7)).astype(np.float32)
    kmeans = kind(9, n_init=1, random_state=0).fit(points)
    kmeans.random_state_ = np.random.RandomState(1)  # as older versions keep it
    joblib.dump(kmeans, tmp_path / "joblib.bin", protocol=protocol)
    with (tmp_path / "plain.pkl").open("wb") as file:
        pickle.dump(kmeans, file, protocol=protocol)
    for name in ("joblib.bin", "plain.pkl"):
        np.testing.assert_array_equal(import_kmeans.read_centroids(tmp_path / name), kmeans.cluster_centers_)


def test_arrays_are_clusters_too(tmp_path):
    centroids = np.arange(12, dtype=np.float32).reshape(4, 3)
    np.save(tmp_path / "c.npy", centroids)
    np.savez(tmp_path / "c.npz", cluster_centers_=centroids)
    joblib.dump(KMeans(2, n_init=1).fit(np.asfortranarray(centroids, np.float64)), tmp_path / "f.bin")
    for name in ("c.npy", "c.npz"):
        np.testing.assert_array_equal(import_kmeans.read_centroids(tmp_path / name), centroids)
    assert import_kmeans.read_centroids(tmp_path / "f.bin").shape == (2, 3)
    learned = units.fit_units([centroids], [None], "mfcc", 2)
    learned.save(tmp_path / "ours.npz")
    np.testing.assert_array_equal(import_kmeans.import_model(tmp_path / "ours.npz", "mfcc").mean, learned.mean)
    with pytest.raises(ValueError, match="clusters mfcc, not hubert:11"):
        import_kmeans.import_model(tmp_path / "ours.npz", "hubert:11")


def test_harmful_clusters_run_nothing(tmp_path):
    harm = tmp_path / "harm"
    kmeans = KMeans(2, n_init=1).fit(np.eye(3))
    objects = KMeans(2, n_init=1).fit(np.eye(3))
    objects.extra = np.array([Harmful(harm)], dtype=object)
    kmeans.extra = Harmful(harm)
    files = {"direct": Harmful(harm), "inside": kmeans, "in an array": objects, "a list": [np.eye(3)]}
    for name, content in files.items():
        joblib.dump(content, tmp_path / name)
        with pytest.raises(ValueError, match="is refused: it holds"):
            import_kmeans.read_centroids(tmp_path / name)
        with (tmp_path / name).open("wb") as file:
            pickle.dump(content, file)
        with pytest.raises(ValueError, match="is refused: it holds"):
            import_kmeans.read_centroids(tmp_path / name)
    assert not harm.exists()
    joblib.dump(kmeans, tmp_path / "zlib", compress=3)
    with pytest.raises(ValueError, match="compressed"):
        import_kmeans.read_centroids(tmp_path / "zlib")
    whole = (tmp_path / "direct").read_bytes()
    (tmp_path / "cut").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="cut"):
        import_kmeans.read_centroids(tmp_path / "cut")


def test_measures_on_counted_frames():
    # phone a: units 0 0 1, phone b: units 1 1 1; the last unit has no phone
    found = unit_quality.phone_agreement([(["a", "a", "a"], np.array([0, 0, 1])), (["b"] * 3, np.array([1, 1, 1, 2]))])
    assert found.frames == 6
    assert found.phone_purity == pytest.approx(5 / 6)  # unit 0: two a; unit 1: three b
    assert found.cluster_purity == pytest.approx(5 / 6)
    information = 2 / 6 * np.log(2) + 1 / 6 * np.log(0.5) + 3 / 6 * np.log(1.5)
    assert found.pnmi == pytest.approx(information / np.log(2))
    perfect = unit_quality.phone_agreement([(["a", "b", "b"], np.array([4, 7, 7]))])
    assert (perfect.phone_purity, perfect.cluster_purity, perfect.pnmi) == pytest.approx((1, 1, 1))
    nothing = unit_quality.phone_agreement([(["a", "b", "a", "b"], np.array([0, 0, 1, 1]))])
    assert nothing.pnmi == pytest.approx(0) and nothing.phone_purity == 0.5
    rates = unit_quality.unit_rates([np.array([3] * 25 + [5] * 25), np.array([5] * 50)])
    assert (rates.units_per_second, rates.units_per_second_without_repeats) == (50, 1.5)
    assert (rates.used_units, rates.seconds) == (2, 2)
    with pytest.raises(ValueError, match="no frame"):
        unit_quality.phone_agreement([([], np.array([1]))])


def test_lists_of_recordings(speech, tmp_path):
    table = recordings.list_recordings(speech / "speech.tsv", speech)
    assert recordings.list_recordings(speech / "audio", speech) == table
    (tmp_path / "list.txt").write_text("".join(f"{speech}/audio/{name}.wav\n" for name in NAMES))
    assert recordings.list_recordings(tmp_path / "list.txt", speech) == table
    (tmp_path / "twice.tsv").write_text("id\taudio\na\tx.wav\na\ty.wav\n")
    for source, message in (
        (tmp_path / "twice.tsv", "used twice"),
        (tmp_path, "lists no recordings"),
        (tmp_path / "x", "no list"),
    ):
        with pytest.raises(SystemExit, match=message):
            recordings.list_recordings(source, speech)


def test_clusters_depend_on_the_seed_only(speech, learned, tmp_path, monkeypatch):
    where = ("--list", speech / "speech.tsv", "--audio-root", speech, "--features", "mfcc", "--clusters", 10)
    call(learn_units, monkeypatch, *where, "--jobs", 2, "--out", tmp_path / "again.npz")
    call(learn_units, monkeypatch, *where, "--seed", 1, "--out", tmp_path / "other.npz")
    assert (tmp_path / "again.npz").read_bytes() == learned.read_bytes() != (tmp_path / "other.npz").read_bytes()


def test_large_samples_are_clustered_in_mini_batches(monkeypatch):
    generator = np.random.default_rng(0)
    points = np.concatenate([generator.normal(10 * centre, 1, size=(50, 2)) for centre in range(4)]).astype(np.float32)
    lloyd = units.find_centroids(points, 4, seed=0)
    monkeypatch.setattr(units, "MAX_LLOYD_PRODUCTS", 1)
    batches = units.find_centroids(points, 4, seed=0)
    np.testing.assert_allclose(np.sort(batches[:, 0]), np.sort(lloyd[:, 0]), atol=0.3)


def test_projection_is_learned_from_the_phones_kept_for_it(speech, tmp_path, monkeypatch):
    phones = {name: ["x" if i % 3 else "y" for i in range(60)] for name in NAMES}
    phones_table.write_phones(tmp_path / "phones.tsv", phones)
    parts = [phones_table.read_phones(tmp_path / "phones.tsv", part) for part in ("learn", "report")]
    assert [len(part) for part in parts] == [7, 1]
    where = ("--list", speech / "speech.tsv", "--audio-root", speech, "--features", "mfcc", "--clusters", 5)
    heard = []
    taken = learn_units.take_minutes
    monkeypatch.setattr(learn_units, "take_minutes", lambda *args: heard.extend(r.id for r in args[0]) or taken(*args))
    call(learn_units, monkeypatch, *where, "--phones", tmp_path / "phones.tsv", "--out", tmp_path / "lda.npz")
    assert units.UnitModel.load(tmp_path / "lda.npz").projection.shape == (180, 1)  # two phones differ in one direction
    assert set(heard) == set(parts[0])


def test_shards_make_what_one_run_makes(speech, learned, tmp_path, monkeypatch, capsys):
    where = ("--list", speech / "speech.tsv", "--audio-root", speech, "--kmeans", learned)
    call(apply_units, monkeypatch, *where, "--out", tmp_path / "one.tsv")
    for shard in (2, 0, 1):
        assert not (tmp_path / "three.tsv").exists()
        call(apply_units, monkeypatch, *where, "--out", tmp_path / "three.tsv", "--num-shards", 3, "--shard", shard)
    assert (tmp_path / "three.tsv").read_bytes() == (tmp_path / "one.tsv").read_bytes()
    model, extract = units.UnitModel.load(learned), MfccFeatures()
    for row in read_table(tmp_path / "one.tsv", "audio", "units"):
        samples, _ = soundfile.read(speech / row["audio"], dtype="float32")
        features = extract(samples)
        assert row["units"] == " ".join(map(str, model.encode(features))) and len(features) == len(samples) // 320

    # A crash leaves lines, the last one cut short.
    (table,) = (tmp_path / "one.tsv.parts").glob("*/0of1.tsv")
    lines = table.read_bytes().splitlines(keepends=True)
    table.write_bytes(b"".join(lines[:3]) + lines[3][:-10])
    before = (tmp_path / "one.tsv").read_bytes()
    (tmp_path / "one.tsv").unlink()
    capsys.readouterr()
    call(apply_units, monkeypatch, *where, "--out", tmp_path / "one.tsv", "--dry-run")
    call(apply_units, monkeypatch, *where, "--out", tmp_path / "one.tsv")
    assert capsys.readouterr().out.count("units: 5 recordings to do, 3 already done") == 2
    assert (tmp_path / "one.tsv").read_bytes() == before

    # Other clusters, other units.
    model.centroids = model.centroids[::-1].copy()
    model.save(tmp_path / "other.npz")
    call(apply_units, monkeypatch, *where[:-1], tmp_path / "other.npz", "--out", tmp_path / "one.tsv")
    assert "units: 8 recordings to do" in capsys.readouterr().out
    first, last = (
        np.array(t.decode().split("\n")[1].split("\t")[2].split(), int)
        for t in (before, (tmp_path / "one.tsv").read_bytes())
    )
    np.testing.assert_array_equal(first, 9 - last)


def test_killed_run_goes_on(speech, learned, tmp_path, monkeypatch, capsys):
    # Enough work that the kill comes in the middle.
    names = [f"{name}_{copy}" for copy in range(12) for name in NAMES]
    lines = [f"{name}\taudio/{name.split('_')[0]}.wav" for name in names]
    (tmp_path / "long.tsv").write_text("\n".join(["id\taudio", *lines]) + "\n")
    arguments = [
        "--list",
        tmp_path / "long.tsv",
        "--audio-root",
        speech,
        "--kmeans",
        learned,
        "--out",
        tmp_path / "units.tsv",
    ]
    command = [sys.executable, SCRIPTS / "units/apply_units.py", *arguments]
    with subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE, start_new_session=True) as process:
        seen = b""
        while b"/96" not in seen.replace(b" 0/96", b""):
            seen += process.stderr.read(1)
        os.killpg(process.pid, signal.SIGKILL)
    assert not (tmp_path / "units.tsv").exists()
    call(apply_units, monkeypatch, *arguments)
    todo, done = (int(part.split()[0]) for part in capsys.readouterr().out.split("units: ")[1].split(", "))
    assert todo + done == 96 and done > 0 and todo > 0
    rows = read_table(tmp_path / "units.tsv", "units")
    assert [row["id"] for row in rows] == names
    assert len({row["units"] for row in rows}) == len(NAMES)


def test_changed_recording_is_named_anew(learned, tmp_path, monkeypatch, capsys):
    (tmp_path / "list.txt").write_text("a.wav\nb.wav\n")
    arguments = ("--list", tmp_path / "list.txt", "--audio-root", tmp_path, "--kmeans", learned)
    for seed in (1, 2, 2):
        for name, sound in (("a", seed), ("b", 9)):
            soundfile.write(tmp_path / f"{name}.wav", speech_like(1, 16000, sound), 16000)
        call(apply_units, monkeypatch, *arguments, "--out", tmp_path / "units.tsv")
        (tmp_path / f"{seed}.tsv").write_bytes((tmp_path / "units.tsv").read_bytes())
    counts = [line for line in capsys.readouterr().out.splitlines() if "to do" in line]
    assert [line.split()[1] for line in counts] == ["2", "1", "0"]
    one, other = ((tmp_path / f"{seed}.tsv").read_text().splitlines() for seed in (1, 2))
    assert one[1] != other[1] and one[2] == other[2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--kmeans", "none.npz"), "no such file: .*none.npz"),
        (("--kmeans", "none.npz", "--num-shards", 2), "a run of this stage without --shard makes them first"),
        (("--kmeans", "hubert.npz"), "hubert:2 needs the HuBERT checkpoint: give it with --hubert"),
        (("--kmeans", "hubert.npz", "--hubert", "hubert.pt"), "r00: the clusters are of 5-dimensional features"),
        (("--kmeans", "text.npz"), "cannot read the clusters"),
        (("--kmeans", "kmeans.npz", "--list", "slow.tsv"), "r00: .*expected 16 kHz mono audio, found 8000 Hz"),
        (("--kmeans", "kmeans.npz", "--list", "text.tsv"), "r00: cannot read"),
        (("--kmeans", "kmeans.npz", "--list", "gone.tsv"), "no recording .*gone.wav"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line(speech, learned, tmp_path, monkeypatch, arguments, message):
    save_hubert(tmp_path / "hubert.pt")
    units.UnitModel.of_centroids(np.ones((3, 5), np.float32), "hubert:2").save(tmp_path / "hubert.npz")
    units.UnitModel.load(learned).save(tmp_path / "kmeans.npz")
    (tmp_path / "text.npz").write_text("hello")
    (tmp_path / "text.wav").write_text("hello")
    soundfile.write(tmp_path / "slow.wav", speech_like(1, 8000, 0), 8000)
    for name in ("slow", "text", "gone"):
        (tmp_path / f"{name}.tsv").write_text(f"id\taudio\nr00\t{tmp_path}/{name}.wav\n")
    monkeypatch.chdir(tmp_path)
    where = () if "--list" in arguments else ("--list", speech / "speech.tsv")
    with pytest.raises(SystemExit, match=message) as stop:
        call(apply_units, monkeypatch, *where, "--audio-root", speech, "--out", tmp_path / "u.tsv", *arguments)
    assert str(stop.value).startswith("error: ") and "\n" not in str(stop.value)


def test_names_of_features():
    with pytest.raises(ValueError, match="no features 'hubert:x'; there are whisper, mfcc and hubert:LAYER"):
        make_extractor("hubert:x")


@needs_english_voice
def test_english_is_aligned(tmp_path, monkeypatch):
    from hibari import Hibari

    from scripts.speech.audio import write_speech

    text, voice = "The station is closed today.", Hibari(threads=1)
    write_speech(tmp_path / "a.wav", voice(text, seed=0), voice.sample_rate)
    (tmp_path / "speech.tsv").write_text(f"id\taudio\ttext\na\ta.wav\t{text}\n")
    where = ("--list", tmp_path / "speech.tsv", "--audio-root", tmp_path, "--out", tmp_path / "phones.tsv")
    call(align_phones, monkeypatch, *where)
    phones = phones_table.read_phones(tmp_path / "phones.tsv", "learn")["a"]
    assert len(phones) == soundfile.info(tmp_path / "a.wav").frames // 320
    spoken = [phone for phone, *_ in units.groupby(phones) if phone != "SIL"]
    assert spoken[2:8] == ["S", "T", "EY", "SH", "AH", "N"]
    # Learning can align by itself, which projects as alignments made before do.
    where = ("--list", tmp_path / "speech.tsv", "--audio-root", tmp_path, "--features", "mfcc", "--clusters", 5)
    call(learn_units, monkeypatch, *where, "--align", "text", "--out", tmp_path / "one.npz")
    call(learn_units, monkeypatch, *where, "--phones", tmp_path / "phones.tsv", "--out", tmp_path / "other.npz")
    one, other = (units.UnitModel.load(tmp_path / f"{name}.npz") for name in ("one", "other"))
    assert one.projection.shape == (180, len(set(phones)) - 1)
    np.testing.assert_array_equal(one.centroids, other.centroids)


@needs_english_voice
def test_alignment_depends_on_no_other_utterance(tmp_path):
    from hibari import Hibari

    from scripts.speech.audio import read_speech, write_speech

    voice, spoken = Hibari(threads=1), []
    # Without a fresh front end the second of these comes out differently after the first.
    for text in ("Can you call back this afternoon, please?", "Our meeting starts at nine o'clock in the big room."):
        write_speech(tmp_path / "a.wav", voice(text, seed=0), voice.sample_rate, multiple=320)
        spoken.append((read_speech(tmp_path / "a.wav"), text))
    aligner = PhoneAligner()
    assert [aligner(*one) for one in spoken] == [PhoneAligner()(*one) for one in spoken]


@pytest.mark.integration
def test_recipe(speech, tmp_path):
    def run(*options: object) -> subprocess.CompletedProcess:
        standard = ("--data-root", tmp_path, "--python", sys.executable, "--jobs", 1, "--audio", speech / "speech.tsv")
        command = [SCRIPTS / "units/run.sh", *standard, "--audio-root", speech, *options]
        return subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)

    done = run("--clusters", 7)
    assert done.returncode == 0, done.stderr
    assert "clusters: 7 of mfcc" in done.stdout and "of 7 units occur" in done.stdout
    assert len(read_table(tmp_path / "units.tsv", "audio", "units")) == len(NAMES)
    wrong = run("--lda")
    assert wrong.returncode == 2 and "--lda needs alignments: give --text-column or --phones" in wrong.stderr


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
