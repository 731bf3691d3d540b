"""Stage 3: what people said, from Debian's packages: speech to distil from, French to develop on and to test with.

    python human.py --out DIR/human [--packages FOLDER]

writes

- `human.tsv`: `id audio n_frames seconds language`, speech in other languages than French, for distillation and babble:
  Asterisk's prompts (en es it ru) and the stamps of Tux Paint (be bg ca da el es lt ml nl ro ru), as FLAC in zips;
- `tuxpaint_fr.tsv`: `id audio n_frames seconds fr en`, French to develop on, never to train on;
- `armelle.tsv`: likewise, a French voice at 8 kHz, a test set of its own.

The French and English prompts of Asterisk, the test set, come from the recipe `asterisk`.
"""

from __future__ import annotations

import argparse
import io
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile

from echostream.audio.downmix import mix_down
from scripts.command_line import require
from scripts.data.fbank_archive import log_mel_frames, write_members
from scripts.files import scratch_folder, write_text
from scripts.recipes.asterisk import packages
from scripts.recipes.asterisk.make_test_set import NOT_SPEECH, decode_g722, read_transcript
from scripts.recipes.everyday.texts import table
from scripts.speech.audio import SAMPLE_RATE
from scripts.speech.speech_synthesis import read_table

ASTERISK = ("en", "es", "it", "ru")
TUXPAINT, ARMELLE = "tuxpaint-stamps-default", "asterisk-prompt-fr-armelle"
DEVELOPMENT = "fr"  # of Tux Paint's languages
MIN_S, MAX_S = 0.5, 28.0
REMEMBERED_ARCHIVE_BYTES = 400 * 2**20


class HumanSpeech:
    """Recordings of `human.tsv`, drawn at random; their archives are held in memory."""

    def __init__(self, path: Path):
        self._rows = read_table(path, "audio")
        if not self._rows:
            raise SystemExit(f"error: {path} lists no recordings; run the stage before again")
        names = {row["audio"].split(":")[0] for row in self._rows}
        total = sum((path.parent / name).stat().st_size for name in names)
        if total > REMEMBERED_ARCHIVE_BYTES:
            raise SystemExit(
                f"error: the archives beside {path} hold {total} bytes, more than {REMEMBERED_ARCHIVE_BYTES}"
            )
        self._archives = {name: (path.parent / name).read_bytes() for name in names}

    def draw(self, generator: np.random.Generator) -> np.ndarray:
        """One recording: float32 `(n,)` at 16 kHz."""
        archive, start, size = self._rows[generator.integers(len(self._rows))]["audio"].rsplit(":", 2)
        data = self._archives[archive][int(start) : int(start) + int(size)]
        return soundfile.read(io.BytesIO(data), dtype="float32")[0]


def to_mono(samples: np.ndarray, rate: int) -> np.ndarray:
    """Float32 `(n,)` or `(n, channels)` -> `(n,)` at 16 kHz."""
    mono = samples if samples.ndim == 1 else mix_down(samples, rate)
    return mono if rate == SAMPLE_RATE else require("soxr").resample(mono, rate, SAMPLE_RATE)


def asterisk(folder: Path) -> Iterator[tuple[str, np.ndarray]]:
    """`(name, samples)` of one language's prompts."""
    for path in sorted((folder / "sounds").rglob("*.g722")):
        name = path.relative_to(folder / "sounds").with_suffix("").as_posix()
        yield name.replace("/", "__"), decode_g722(path).astype(np.float32) / 2**15


def read_sound(path: Path) -> np.ndarray:
    """Float32 `(n,)` at 16 kHz of a file that libsndfile reads; GSM without a header as Asterisk stores it."""
    if path.suffix == ".gsm":
        samples, rate = soundfile.read(
            path, dtype="float32", format="RAW", subtype="GSM610", samplerate=8000, channels=1
        )
    else:
        samples, rate = soundfile.read(path, dtype="float32")
    return to_mono(samples, rate)


def tuxpaint_texts(path: Path) -> tuple[str, str]:
    """English and French description of a stamp: the first line, and the line that begins with fr.utf8=."""
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    french = [line.removeprefix("fr.utf8=") for line in lines if line.startswith("fr.utf8=")]
    return lines[0].strip(), french[0].strip() if french else ""


def tuxpaint(folder: Path) -> Iterator[tuple[str, str, Path, Path]]:
    """`(id, language, sound, text)` of every description that was recorded."""
    for path in sorted(folder.rglob("*_desc_*.ogg")):
        stem, _, rest = path.name.rpartition("_desc_")
        name = f"{path.parent.relative_to(folder).as_posix()}/{stem}".replace("/", "__")
        yield name, rest.partition(".")[0], path, path.with_name(f"{stem}.txt")


def store(path: Path, recordings: Iterator[tuple[str, np.ndarray, tuple[str, ...]]]) -> list[tuple[str, ...]]:
    """Write `(id, samples, more columns)` as FLAC -> rows `id audio n_frames seconds ...` of those of 0.5 to 28 s."""
    rows: list[tuple[str, ...]] = []

    def members() -> Iterator[tuple[str, bytes]]:
        for name, samples, more in recordings:
            seconds = len(samples) / SAMPLE_RATE
            if not MIN_S <= seconds <= MAX_S or not samples.any():
                continue
            file = io.BytesIO()
            soundfile.write(file, np.clip(samples, -1, 1 - 2**-15), SAMPLE_RATE, "PCM_16", format="FLAC")
            rows.append((name, "", str(log_mel_frames(len(samples))), f"{seconds:.3f}", *more))
            yield f"{name}.flac", file.getvalue()

    addresses = write_members(path, members())
    return [(row[0], address, *row[2:]) for row, address in zip(rows, addresses, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description="Collect human speech from Debian's packages.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--packages", type=Path, help="folder with the .deb files (default: by apt-get download)")
    args = parser.parse_args()

    args.out.mkdir(parents=True, exist_ok=True)
    folder = args.packages or args.out / "deb"
    languages = (*ASTERISK, "fr")
    names = [name for language in languages for name in packages.package_names(language)] + [TUXPAINT, ARMELLE]
    if not args.packages:
        packages.fetch(names, folder, "")
    debs = {name: packages.find_deb(folder, name) for name in names}
    missing = [name for name, path in debs.items() if path is None]
    if missing:
        raise SystemExit(f"error: {folder} has no package {', '.join(missing)}; see 'apt-get download' (--packages)")
    human: list[tuple[str, ...]] = []
    with scratch_folder(args.out / ".unpacked") as unpacked:
        for path in debs.values():
            assert path is not None
            packages.unpack_deb(path, unpacked)
        for language in languages:
            packages.install(unpacked, language, unpacked / "asterisk")
        for language in ASTERISK:
            prompts = (
                (f"asterisk_{language}_{n}", x, (language,)) for n, x in asterisk(unpacked / "asterisk" / language)
            )
            human += store(args.out / f"asterisk_{language}.zip", prompts)
        stamps = list(tuxpaint(unpacked / "usr" / "share" / "tuxpaint" / "stamps"))
        for language in sorted({item[1] for item in stamps} - {DEVELOPMENT}):
            spoken = (
                (f"tuxpaint_{language}_{name}", read_sound(sound), (language,))
                for name, of, sound, _ in stamps
                if of == language
            )
            human += store(args.out / f"tuxpaint_{language}.zip", spoken)
        development = []
        for name, language, sound, text in stamps:
            english, french = tuxpaint_texts(text) if language == DEVELOPMENT and text.is_file() else ("", "")
            if english and french:
                development.append((name, sound, (french, english)))
        tux = store(
            args.out / "tuxpaint_fr.zip", ((name, read_sound(sound), texts) for name, sound, texts in development)
        )
        texts = {
            language: read_transcript(unpacked / "asterisk" / language / "transcript.txt") for language in ("fr", "en")
        }
        sounds = unpacked / "usr" / "share" / "asterisk" / "sounds" / "fr"
        prompts = []
        for path in sorted(sounds.rglob("*.gsm")):
            name = path.relative_to(sounds).with_suffix("").as_posix()
            pair = tuple(" ".join(texts[language].get(name, "").split()) for language in ("fr", "en"))
            if all(pair) and not any(text.startswith(NOT_SPEECH) for text in pair):
                prompts.append((name.replace("/", "__"), path, pair))
        armelle = store(args.out / "armelle.zip", ((name, read_sound(path), pair) for name, path, pair in prompts))
        for name in (TUXPAINT, ARMELLE, "asterisk-core-sounds-en"):
            note = unpacked / "usr" / "share" / "doc" / name / "copyright"
            if note.is_file():
                shutil.copy(note, args.out / f"copyright.{name}")
    columns = ["id", "audio", "n_frames", "seconds"]
    write_text(args.out / "tuxpaint_fr.tsv", table([*columns, "fr", "en"], tux))
    write_text(args.out / "armelle.tsv", table([*columns, "fr", "en"], armelle))
    write_text(args.out / "human.tsv", table([*columns, "language"], human))
    hours = {
        name: sum(float(row[3]) for row in rows) / 3600
        for name, rows in (("human", human), ("tuxpaint_fr", tux), ("armelle", armelle))
    }
    print("human: " + ", ".join(f"{name} {value:.2f} h" for name, value in hours.items()), flush=True)


if __name__ == "__main__":
    main()
