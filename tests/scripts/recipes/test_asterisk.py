"""The human test set: packages, transcripts and G.722 made here in the form of Asterisk's and Debian's."""

import gzip
import io
import subprocess
import sys
import tarfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import soundfile
from killing import check_killed_run

from scripts.recipes.asterisk import packages
from scripts.recipes.asterisk.make_test_set import decode_g722, read_transcript
from scripts.speech.speech_synthesis import read_table

pytestmark = pytest.mark.skipif(find_spec("av") is None, reason="needs pip install -e '.[data]'")
SCRIPTS = Path(__file__).resolve().parents[3] / "scripts"
TRANSCRIPTS = {
    "fr": """; Core Asterisk Sounds in French

activated: activé
agent-pass: Composez votre mot de passe, suivi du dièse.
beep: [tone of five words or more here]
dir-welcome:
letters/slash: Ce texte est assez long, oui.
lonely: Ce texte est tout seul ici.
long: Cette phrase est trop longue pour le test.
""",
    "en": """; Core Asterisk Sounds in English

activated: Activated.
agent-pass: Please enter your password followed by the pound key.
beep: [this is a simple beep tone]
dir-welcome: Welcome to the directory of this company.
letters/slash: This text is long enough, I think.
long: This sentence is too long for the test set.
silent: There is no recording of this one, sadly.
""",
}
SOUNDS = {"activated": 1.0, "agent-pass": 2.0, "beep": 1.0, "dir-welcome": 1.0, "letters/slash": 1.5, "long": 4.0}


def write_g722(path: Path, samples: np.ndarray) -> None:
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format="g722") as container:
        stream = container.add_stream("g722", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.round(samples * 32767).astype(np.int16)[None], layout="mono")
        frame.sample_rate = 16000
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)


def tone(seconds: float) -> np.ndarray:
    return 0.3 * np.sin(2 * np.pi * 440 * np.arange(round(seconds * 16000)) / 16000)


def write_deb(path: Path, folder: Path) -> None:
    """An `ar` archive like dpkg's."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:xz") as archive:
        archive.add(folder, arcname=".")
    members = {"debian-binary": b"2.0\n", "control.tar.xz": b"odd", "data.tar.xz": data.getvalue()}
    content = b"!<arch>\n"
    for name, value in members.items():
        content += (
            f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(value):<10}`\n".encode() + value + b"\n" * (len(value) % 2)
        )
    path.write_bytes(content)


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory) -> Path:
    """What `dpkg-deb -x` makes of the packages, in a folder each."""
    root = tmp_path_factory.mktemp("unpacked")
    for language, voice in (("fr", "fr_CA_f_June"), ("en", "en_US_f_Allison")):
        doc = root / f"asterisk-core-sounds-{language}/usr/share/doc/asterisk-core-sounds-{language}"
        doc.mkdir(parents=True)
        (doc / f"core-sounds-{language}.txt.gz").write_bytes(gzip.compress(TRANSCRIPTS[language].encode()))
        (doc / "copyright").write_text("License: CC-BY-SA-3.0\n")
        sounds = root / f"asterisk-core-sounds-{language}-g722/usr/share/asterisk/sounds/{voice}"
        for name, seconds in SOUNDS.items():
            write_g722(sounds / f"{name}.g722", tone(seconds))
    write_g722(root / "asterisk-core-sounds-fr-g722/usr/share/asterisk/sounds/fr_CA_f_June/lonely.g722", tone(1))
    return root


@pytest.fixture(scope="module")
def debs(unpacked, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("debs")
    for package in unpacked.iterdir():
        write_deb(folder / f"{package.name}_1.7-1_all.deb", package)
    return folder


def command(root: Path, *options: object) -> list[str]:
    return [*map(str, (SCRIPTS / "recipes/asterisk/run.sh", "--data-root", root, "--python", sys.executable, *options))]


def run(root: Path, *options: object) -> subprocess.CompletedProcess:
    return subprocess.run(command(root, *options), capture_output=True, text=True, check=False)


def test_recipe_makes_lists_and_resumes(debs, unpacked, tmp_path):
    first = run(tmp_path / "a", "--packages", debs, "--max-seconds", "3")
    assert first.returncode == 0, first.stderr
    assert "7 fr transcripts, 7 en transcripts; 4 parallel prompts; 2 kept: 0.1 min fr, 0.1 min en" in first.stdout
    out = tmp_path / "a/fr-en"
    rows = read_table(out / "pairs.tsv", "fr", "en")
    assert [row["id"] for row in rows] == ["agent-pass", "letters__slash"]
    assert (out / "simuleval/target.txt").read_text().splitlines() == [
        "please enter your password followed by the pound key",
        "this text is long enough i think",
    ]
    sources = [Path(line) for line in (out / "simuleval/source.txt").read_text().splitlines()]
    targets = [Path(line) for line in (out / "simuleval/target_audio.txt").read_text().splitlines()]
    assert [path.name for path in sources] == ["agent-pass.wav", "letters__slash.wav"]
    assert all(path.is_file() for path in sources + targets)
    samples, rate = soundfile.read(sources[0])
    assert rate == 16000 and float(rows[0]["fr_seconds"]) == pytest.approx(len(samples) / 16000, abs=0.01)
    assert "CC-BY-SA-3.0" in (out / "copyright.fr").read_text()

    again = run(tmp_path / "a", "--packages", debs, "--max-seconds", "3")
    assert "packages-fr: already done" in again.stdout and "pairs-fr: already done" in again.stdout
    other = run(tmp_path / "b", "--packages", unpacked, "--max-seconds", "3")  # not packed, elsewhere: the same set
    assert other.returncode == 0, other.stderr
    assert (tmp_path / "b/fr-en/pairs.tsv").read_bytes() == (out / "pairs.tsv").read_bytes()
    for path in sorted(out.rglob("*.wav")):
        assert (tmp_path / "b/fr-en" / path.relative_to(out)).read_bytes() == path.read_bytes()


def test_killed_in_every_stage(debs, tmp_path):
    options = ("--packages", debs, "--max-seconds", "3")
    check_killed_run(lambda root: command(root, *options), tmp_path, last_stage=3, spared=[3])


def test_decoded_sound_is_the_sound(tmp_path):
    write_g722(tmp_path / "x.g722", tone(1.0))
    samples = decode_g722(tmp_path / "x.g722") / 32768
    assert abs(len(samples) - 16000) <= 640
    expected = tone(1.0)[1000:15000]
    # The codec's filters delay by a few samples.
    best = max(np.corrcoef(expected, samples[1000 + lag : 15000 + lag])[0, 1] for lag in range(40))
    assert best > 0.99


def test_transcript_lines(tmp_path):
    path = tmp_path / "core-sounds-xx.txt"
    path.write_text("; comment: no\n\na: one: two\na: again\nempty:\nno colon\n", encoding="utf-8")
    assert read_transcript(path) == {"a": "one: two", "empty": ""}


def test_bad_packages_are_named(debs, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    done = run(tmp_path / "data", "--packages", folder, "--stop-stage", "1")
    assert done.returncode == 1 and "neither the package asterisk-core-sounds-fr nor" in done.stderr
    for deb in debs.iterdir():
        (folder / deb.name).write_bytes(deb.read_bytes())
    damaged = next(folder.glob("asterisk-core-sounds-fr-g722*"))
    damaged.write_bytes(damaged.read_bytes()[:2000])
    done = run(tmp_path / "data", "--packages", folder, "--stop-stage", "1")
    assert done.returncode == 1 and "cannot unpack" in done.stderr and "Traceback" not in done.stderr
    published = folder / "asterisk-core-sounds-fr-g722_1.6.1-1_all.deb"
    damaged.rename(published)
    with pytest.raises(SystemExit, match="has not the SHA-256"):
        packages.check_sum(published, "asterisk-core-sounds-fr-g722")


def test_fetching_from_a_mirror(debs, tmp_path):
    pool = tmp_path / "mirror" / packages.POOL
    pool.mkdir(parents=True)
    names = ["asterisk-core-sounds-en", "asterisk-core-sounds-fr"]
    for name in names:
        (pool / f"{name}_{packages.VERSION}_all.deb").write_bytes(next(debs.glob(f"{name}_*")).read_bytes())
    packages.fetch(names, tmp_path / "deb", (tmp_path / "mirror").as_uri())
    assert all(packages.find_deb(tmp_path / "deb", name) for name in names)
    with pytest.raises(SystemExit, match=r"cannot fetch .*--packages"):
        packages.fetch(["asterisk-core-sounds-es"], tmp_path / "deb", (tmp_path / "mirror").as_uri())
    assert len(list((tmp_path / "deb").iterdir())) == 2
