"""Recordings as a microphone in a room would give them: echo, background noise, a telephone's band, other loudness.

Everything is computed here from a seed and the utterance's id, nothing is downloaded:

- a room is white noise that decays exponentially (60 dB in 0.1 to 0.6 s) behind the direct sound, which stays in place;
- noise has a spectrum between white and brown and a loudness that drifts, 5 to 30 dB below the speech;
- now and then only a telephone's band is left, 300 to 3400 Hz;
- if asked for, some go on after the speech with seconds of nothing to hear but the room, a hum, music or digital
  silence, so that a model learns to be silent there.

    python augmentation.py --texts pairs.tsv --audio DIR/audio/fr --out DIR/audio/fr_rooms --only train --share 0.5 \\
        --pause-share 0.4
"""

from __future__ import annotations

import argparse
import os
import shutil
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import soundfile

from scripts.command_line import require
from scripts.files import atomic_path, digest
from scripts.speech.audio import PEAK, SAMPLE_RATE, read_speech
from scripts.speech.sounds import at_level, coloured_noise, generator_of, hum, music
from scripts.speech.speech_synthesis import read_table
from scripts.speech.voice_variation import share_of_one
from scripts.work import Work, add_share_arguments, is_too_early, make_files, share

# Raise it when the sound changes: what there is, is then made again.
KIND = "rooms v1"
# "same": the room and its noise go on.
PAUSES = ("same", "quiet room", "digital silence", "music", "hum")
TELEPHONE_BAND_HZ = (300, 3400)


@dataclass(frozen=True)
class Surroundings:
    """How often what happens, and how strong it is."""

    room_share: float = 0.6
    decay_s: tuple[float, float] = (0.1, 0.6)  # time in which the echo loses 60 dB
    direct_to_echo_db: tuple[float, float] = (0.0, 15.0)
    noise_share: float = 0.9
    signal_to_noise_db: tuple[float, float] = (5.0, 30.0)
    spectrum_slope: tuple[float, float] = (0.0, 2.0)  # power falls with frequency to this power: 0 white, 2 brown
    telephone_share: float = 0.1
    loudness_db: tuple[float, float] = (-15.0, 0.0)
    pause_share: float = 0.0
    pause_s: tuple[float, float] = (1.0, 8.0)
    quiet_db: tuple[float, float] = (-75.0, -45.0)  # of a quiet room, below full scale

    def __call__(self, samples: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """Speech `(n,)` at 16 kHz -> the same delay and dtype, with a peak of at most 0.8, longer by its pause."""
        sound, pause = samples.astype(np.float64), ""
        if self.pause_share and generator.random() < self.pause_share:
            pause = PAUSES[generator.integers(len(PAUSES))]
            sound = np.concatenate([sound, self._pause(pause, np.abs(sound).max(initial=0.0), generator)])
        if generator.random() < self.room_share:
            sound = reverberate(
                sound, generator.uniform(*self.decay_s), generator.uniform(*self.direct_to_echo_db), generator
            )
        if generator.random() < self.noise_share:
            noise = coloured_noise(len(sound), generator.uniform(*self.spectrum_slope), generator)
            sound = add_noise(sound, noise, generator.uniform(*self.signal_to_noise_db))
        if generator.random() < self.telephone_share:
            sound = telephone(sound)
        peak = PEAK * 10 ** (generator.uniform(*self.loudness_db) / 20)
        sound *= peak / max(np.abs(sound).max(initial=0.0), 1e-9)
        if pause == "digital silence":
            sound[len(samples) :] = 0
        elif pause == "quiet room":
            rest = len(sound) - len(samples)
            noise = coloured_noise(rest, generator.uniform(*self.spectrum_slope), generator)
            sound[len(samples) :] = at_level(noise, generator.uniform(*self.quiet_db))
        return sound.astype(samples.dtype)

    def _pause(self, kind: str, peak: float, generator: np.random.Generator) -> np.ndarray:
        """What follows speech with this peak; the surroundings themselves are heard in it as well."""
        size = round(generator.uniform(*self.pause_s) * SAMPLE_RATE)
        if kind not in ("music", "hum"):
            return np.zeros(size)
        sound = (music if kind == "music" else hum)(size, generator)
        return sound * (peak * generator.uniform(0.05, 1.0) / np.abs(sound).max())


def reverberate(
    sound: np.ndarray, decay_s: float, direct_to_echo_db: float, generator: np.random.Generator
) -> np.ndarray:
    """Add the echo of a room `(n,)` -> `(n,)`; the direct sound keeps its place and strength."""
    length = max(1, round(decay_s * SAMPLE_RATE))
    # 60 dB are a factor of 1000 in amplitude.
    echo = generator.normal(size=length) * 1000 ** (-np.arange(length) / length)
    echo[0] = 0
    echo *= 10 ** (-direct_to_echo_db / 20) / max(np.linalg.norm(echo), 1e-9)
    echo[0] = 1
    return require("scipy.signal").fftconvolve(sound, echo)[: len(sound)]


def add_noise(sound: np.ndarray, noise: np.ndarray, signal_to_noise_db: float) -> np.ndarray:
    """Mix `(n,)` and `(n,)` with this ratio of their mean powers."""
    power, noise_power = np.mean(sound**2), np.mean(noise**2)
    if not power or not noise_power:
        return sound
    return sound + noise * np.sqrt(power / noise_power) * 10 ** (-signal_to_noise_db / 20)


def telephone(sound: np.ndarray) -> np.ndarray:
    """Leave the band of a telephone."""
    signal = require("scipy.signal")
    return signal.sosfilt(signal.butter(4, TELEPHONE_BAND_HZ, "bandpass", fs=SAMPLE_RATE, output="sos"), sound)


@dataclass(frozen=True)
class Change(Work):
    """A recording and where its changed version belongs; None as seed: it stays as it is."""

    seed: int | None = None


def _work_on(surroundings: Surroundings, work: Change) -> None:
    assert work.recording is not None
    with atomic_path(work.out) as temporary:
        if work.seed is None:
            try:
                os.link(work.recording, temporary)
            except OSError:  # another file system, or one without links
                shutil.copyfile(work.recording, temporary)
            return
        samples = surroundings(read_speech(work.recording), generator_of(work.seed, work.id))
        soundfile.write(temporary, samples, SAMPLE_RATE, subtype="PCM_16")


def main() -> None:
    parser = argparse.ArgumentParser(description="Put recordings into rooms and noise.")
    parser.add_argument("--texts", type=Path, required=True, help="tab-separated table with a column id")
    parser.add_argument("--audio", type=Path, required=True, help="folder of <id>.wav, 16 kHz mono")
    parser.add_argument("--out", type=Path, required=True, help="folder for <id>.wav")
    parser.add_argument("--only", metavar="SPLIT", help="change this split alone; the others stay as they are")
    parser.add_argument("--share", type=share_of_one, default=1.0, help="of recordings to change (default: all)")
    parser.add_argument(
        "--pause-share",
        type=share_of_one,
        default=0.0,
        help="of the changed ones, to be followed by a pause (default: 0)",
    )
    parser.add_argument("--seed", type=int, default=0)
    add_share_arguments(parser)
    args = parser.parse_args()

    if is_too_early(args, args.out.name, "made", args.texts):
        return
    works = []
    for row in share(read_table(args.texts, *(["split"] if args.only else [])), args):
        changed = (
            args.only in (None, row.get("split")) and generator_of(args.seed, f"{row['id']}?").random() < args.share
        )
        file = f"{row['id']}.wav"
        works.append(Change(row["id"], args.out / file, args.audio / file, args.seed if changed else None))
    surroundings = Surroundings(pause_share=args.pause_share)
    settings = digest(KIND, sorted(asdict(surroundings).items()))
    make_files(
        args,
        works,
        lambda work: digest(settings, work.seed, work.recording),
        partial(_work_on, surroundings),
        "made",
        prepare=lambda: require("scipy.signal"),
    )
    if not args.dry_run:
        count = sum(work.seed is not None for work in works)
        print(f"{args.out.name}: {count} of {len(works)} in rooms and noise", flush=True)


if __name__ == "__main__":
    main()
