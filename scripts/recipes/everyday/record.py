"""Stage 4: French speech. Each shard is a zip of FLAC recordings, made whole by one process, and a table of them.

    python record.py --recordings DIR/texts/recordings.tsv --voices DIR/voices.tsv --voices-dir VOICES \\
        --foreign DIR/human/human.tsv --out DIR/french --jobs 2

`shard_00012.zip` holds recordings 12 x 256 to 13 x 256 - 1 of the table, `shard_00012.tsv` (written last) says where:
`id audio n_frames seconds times`, with audio as `shard_00012.zip:offset:bytes`, n_frames of 10 ms, and in times the
begin and end of each sentence in seconds. A shard that is there and was made of the same rows, voices and seed is not
made again.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import soundfile

from scripts.data.fbank_archive import log_mel_frames, write_members
from scripts.files import digest, write_text
from scripts.recipes.everyday.human import HumanSpeech
from scripts.recipes.everyday.places import Places, lay_out
from scripts.recipes.everyday.texts import SEPARATOR, table
from scripts.recipes.everyday.voices import Speakers, Voice, read_voices, speed_of
from scripts.recipes.everyday.wordless import WORDLESS_S, make
from scripts.speech.audio import PEAK, SAMPLE_RATE
from scripts.speech.pico_voice import OTHER_LANGUAGES, PicoVoice
from scripts.speech.sounds import generator_of
from scripts.speech.speech_synthesis import read_table
from scripts.work import Work, add_share_arguments, is_too_early, make_files, share

# Raise it when the sound changes: what there is, is then made again.
KIND = "everyday v2"
SHARD_SIZE = 256
SPEEDS = (0.85, 1.2)
PITCH_SEMITONES = 1.0  # by which a speaker's pitch differs from one recording to the next
COLUMNS = ["id", "audio", "n_frames", "seconds", "times"]
DITHER = 1 / 2**15
# Silence around a recording that is to be heard as it was spoken.
PLAIN_GAP_S = 0.3


@dataclass(frozen=True)
class Shard(Work):
    """Rows of the table of recordings."""

    rows: tuple[tuple[str, ...], ...] = ()  # id, split, set, voice, fr, en


@dataclass
class Studio:
    """What makes recordings: speakers, places, and other people's speech for babble."""

    voices: dict[str, Voice]
    speakers: Speakers
    human: HumanSpeech | None
    seed: int
    places: Places

    def __post_init__(self) -> None:
        self._pico = PicoVoice()

    def _foreign(self, rows: tuple[tuple[str, ...], ...]) -> Callable[[np.random.Generator], np.ndarray]:
        english = [row[5].replace(SEPARATOR, " ") for row in rows if row[5]] or ["Good morning, how are you today?"]

        def speak(generator: np.random.Generator) -> np.ndarray:
            if self.human is not None and generator.random() < 0.7:
                return self.human.draw(generator)
            language = OTHER_LANGUAGES[1:3][generator.integers(2)]  # the two that are English
            return self._pico(
                english[generator.integers(len(english))],
                language,
                speed=generator.uniform(*SPEEDS),
                pitch=generator.uniform(0.7, 1.3),
                formants=generator.uniform(0.88, 1.12),
            )

        return speak

    def record(self, row: tuple[str, ...], shard: tuple[tuple[str, ...], ...]) -> tuple[np.ndarray, list]:
        """The recording of one row: float32 `(n,)` at 16 kHz, and the times of its sentences."""
        name, split, group, voice_name, french, _ = row
        generator = generator_of(self.seed, name)
        foreign = self._foreign(shard)
        if group == "wordless":
            words = [word for other in shard for word in other[4].replace(SEPARATOR, " ").split()] or ["oui"]
            texts = [other[4] for other in shard if other[4]] or ["Bonjour."]

            def french_speech(of: list[str], generator: np.random.Generator) -> np.ndarray:
                text = of[generator.integers(len(of))].replace(SEPARATOR, " ")
                return self._pico(text, speed=generator.uniform(*SPEEDS), pitch=generator.uniform(0.7, 1.3))

            speech = {
                "foreign": foreign,
                "french": partial(french_speech, texts),
                "word": partial(french_speech, words),
            }
            sound = make(voice_name, generator.uniform(*WORDLESS_S), generator, speech)
            return self.places(sound.astype(np.float32), generator), []
        voice, sentences = self.voices[voice_name], french.split(SEPARATOR)
        if split == "train":
            speed = speed_of(self.seed, voice, sentences[0], SPEEDS)
            pitch = 2 ** (generator.uniform(-PITCH_SEMITONES, PITCH_SEMITONES) / 12)
            gaps = self.places.gaps(len(sentences), generator)
        else:
            speed, pitch, gaps = 1.0, 1.0, [PLAIN_GAP_S] * (len(sentences) + 1)
        samples, times = lay_out([self.speakers(voice, text, speed, pitch) for text in sentences], gaps)
        if split == "train":
            return self.places(samples, generator, foreign), times
        return samples * (PEAK / max(np.abs(samples).max(initial=0.0), 1e-9)), times


_studio: Studio | None = None


def _start(voices: Path, voices_dir: Path | None, engine: str, foreign: Path | None, seed: int) -> None:
    global _studio
    _studio = Studio(
        {voice.name: voice for voice in read_voices(voices)},
        Speakers(voices_dir, engine),
        HumanSpeech(foreign) if foreign else None,
        seed,
        Places(),
    )


def _make(shard: Shard) -> None:
    assert _studio is not None
    packed, lines = [], []
    for row in shard.rows:
        try:
            samples, times = _studio.record(row, shard.rows)
        except ValueError as error:
            raise ValueError(f"{row[0]} ({row[3]}): {error}") from error
        # Triangular dither of one step replaces digital silence, whose log energy no microphone ever gives.
        generator = np.random.default_rng(len(samples))
        samples = samples + DITHER * generator.uniform(-0.5, 0.5, (2, len(samples))).sum(0)
        file = io.BytesIO()
        soundfile.write(file, np.clip(samples, -1, 1 - DITHER), SAMPLE_RATE, "PCM_16", format="FLAC")
        packed.append((f"{row[0]}.flac", file.getvalue()))
        spans = " ".join(f"{start:.2f}-{end:.2f}" for start, end in times)
        lines.append((row[0], str(log_mel_frames(len(samples))), f"{len(samples) / SAMPLE_RATE:.3f}", spans))
    addresses = write_members(shard.out.with_suffix(".zip"), packed)
    rows = [(line[0], address, *line[1:]) for line, address in zip(lines, addresses, strict=True)]
    write_text(shard.out, table(COLUMNS, rows))


def read_recordings(path: Path) -> list[tuple[str, ...]]:
    """Rows `id split set voice fr en` of the table of recordings; texts may be empty."""
    columns = ("id", "split", "set", "voice")
    return [tuple(row[name] or "" for name in (*columns, "fr", "en")) for row in read_table(path, *columns[1:])]


def read_shards(folder: Path) -> list[dict[str, str]]:
    """All rows of the tables of shards in a folder, in order; audio relative to that folder's parent."""
    rows = []
    for path in sorted(folder.glob("shard_*.tsv")):
        rows += [{**row, "audio": f"{folder.name}/{row['audio']}"} for row in read_table(path, "audio")]
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description="Record the French side.")
    parser.add_argument("--recordings", type=Path, required=True, help="table of texts.py")
    parser.add_argument("--voices", type=Path, required=True, help="table of voices")
    parser.add_argument("--voices-dir", type=Path, help="folder with Kokoro's voice tables")
    parser.add_argument("--voice-engine", default="onnxruntime", help="what computes Kokoro (default: %(default)s)")
    parser.add_argument("--foreign", type=Path, help="human.tsv, for babble and for what is not French")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    add_share_arguments(parser)
    args = parser.parse_args()

    if is_too_early(args, args.out.name, "recorded", args.recordings, args.voices):
        return
    rows = read_recordings(args.recordings)
    voices = {voice.name for voice in read_voices(args.voices)}
    unknown = sorted({row[3] for row in rows if row[2] != "wordless"} - voices)
    if unknown:
        raise SystemExit(f"error: {args.recordings} names voices that {args.voices} has not: {', '.join(unknown)}")
    works = []
    for start in range(0, len(rows), SHARD_SIZE):
        name = f"shard_{start // SHARD_SIZE:05d}"
        works.append(Shard(name, args.out / f"{name}.tsv", None, tuple(rows[start : start + SHARD_SIZE])))
    settings = digest(KIND, args.seed, args.voices, *([args.foreign] if args.foreign else []), args.voice_engine)
    make_files(
        args,
        share(works, args),
        lambda shard: digest(settings, shard.rows),
        _make,
        "recorded",
        "french speech, shards",
        initializer=_start,
        initargs=(args.voices, args.voices_dir, args.voice_engine, args.foreign, args.seed),
    )


if __name__ == "__main__":
    main()
