"""Long audio made of everything that a microphone hears: speech, music, noise, babble and long silences.

A programme is planned as a whole and rendered stretch by stretch, so an hour of it takes no memory; the same
recordings, length and seed give the same samples. They are whole 16-bit steps: what goes through a 16-bit connection
is what goes past it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from echostream.audio.errors import AudioError
from echostream.audio.input import open_audio
from echostream.constants import SAMPLE_RATE
from scripts.speech.sounds import at_level, coloured_noise, hum, music

SUFFIXES = (".wav", ".flac")
SILENCES = ("digital silence", "room silence")
# In turn, with speech before each; where the time is short, all are shortened alike.
BETWEEN = ("digital silence", "music", "white noise", "room silence", "pink noise", "hum", "babble")
LENGTHS_S = {"speech": (15.0, 35.0), "music": (25.0, 50.0), **dict.fromkeys(SILENCES, (30.0, 120.0))}
NOISE_LENGTH_S = (12.0, 25.0)
LEAST_S = 4.0
CYCLE_MINUTES = 7.5
PAUSE_S = (0.3, 1.0)  # between two sentences
ROOM_DB = (-66.0, -56.0)  # of a quiet room, below full scale
NOISE_DB = (-32.0, -22.0)
SPEECH_PEAK_DB = (-12.0, -2.0)
BABBLE_VOICES = 6


@dataclass(frozen=True)
class Stretch:
    """A part of a programme.

    Attributes:
        kind: ``speech``, one of :data:`BETWEEN`.
        start, size: in samples.
        seed: of everything that is drawn in it.
        said: of speech, the recordings and where each begins, in samples from the start of the programme.
    """

    kind: str
    start: int
    size: int
    seed: tuple[int, int]
    said: tuple[tuple[int, int], ...] = ()

    @property
    def is_silent(self) -> bool:
        return self.kind in SILENCES

    @property
    def start_s(self) -> float:
        return self.start / SAMPLE_RATE


def read_speech(paths: Sequence[Path]) -> list[np.ndarray]:
    """Recordings, float32 ``(n,)`` @16 kHz with a peak of 1, of files and of what lies in folders.

    Raises:
        SystemExit: a file that can't be read, or too few to make a programme of.
    """
    files: list[Path] = []
    for path in paths:
        inside = sorted(file for file in path.rglob("*") if file.suffix in SUFFIXES) if path.is_dir() else [path]
        files += inside
    recordings = []
    for file in files:
        try:
            with open_audio(file, block_s=60) as audio:
                samples = np.concatenate(list(audio))
        except AudioError as error:
            raise SystemExit(f"error: {error}") from error
        peak = np.abs(samples).max()
        if peak > 0:
            recordings.append(samples / peak)
    if len(recordings) < 4:
        where = ", ".join(map(str, paths))
        raise SystemExit(f"error: {len(recordings)} recordings with sound in {where}: give at least 4 (wav or flac)")
    return recordings


class Programme:
    """Everything that is heard in so many minutes.

    Args:
        recordings: of speech, as :func:`read_speech` gives them.
        minutes: length; below :data:`CYCLE_MINUTES` all stretches are shorter in proportion.
        seed: another programme.
    """

    def __init__(self, recordings: Sequence[np.ndarray], minutes: float, seed: int = 0) -> None:
        self.recordings, self.size = list(recordings), round(minutes * 60 * SAMPLE_RATE)
        self._seed, self._scale = seed, min(1.0, minutes / CYCLE_MINUTES)
        self.stretches = self._plan()
        self._starts = [stretch.start for stretch in self.stretches]

    @property
    def length_s(self) -> float:
        return self.size / SAMPLE_RATE

    def _plan(self) -> list[Stretch]:
        random, bag = np.random.default_rng(self._seed), self._shuffled()
        stretches: list[Stretch] = []
        at = turn = 0
        while at < self.size:
            kind = "speech" if turn % 2 == 0 else BETWEEN[turn // 2 % len(BETWEEN)]
            wanted_s = random.uniform(*LENGTHS_S.get(kind, NOISE_LENGTH_S)) * self._scale
            size = round(max(wanted_s, LEAST_S) * SAMPLE_RATE)
            said: list[tuple[int, int]] = []
            if kind == "speech":
                place = at + self._pause(random)
                while place < at + size:
                    index = next(bag)
                    said.append((index, place))
                    place += len(self.recordings[index]) + self._pause(random)
                size = place - at
            stretches.append(Stretch(kind, at, min(size, self.size - at), (self._seed, turn), tuple(said)))
            at, turn = at + size, turn + 1
        return stretches

    def _pause(self, random: np.random.Generator) -> int:
        return round(random.uniform(*PAUSE_S) * SAMPLE_RATE)

    def _shuffled(self) -> Iterator[int]:
        """Recordings without end, all of them before one returns."""
        random, last = np.random.default_rng(self._seed + 1), -1
        while True:
            order = random.permutation(len(self.recordings)).tolist()
            if order[0] == last:
                order.append(order.pop(0))
            yield from order
            last = order[-1]

    def at(self, time_s: float) -> int:
        """Number of the stretch that is heard at a time."""
        return max(0, bisect_right(self._starts, time_s * SAMPLE_RATE) - 1)

    def render(self, stretch: Stretch) -> np.ndarray:
        """Samples of a stretch, float32 ``(size,)``, in whole 16-bit steps."""
        random = np.random.default_rng(stretch.seed)
        sound = self._sound(stretch, random) if stretch.kind != "digital silence" else np.zeros(stretch.size)
        return (np.round(sound * 32768).clip(-32768, 32767) / 32768).astype(np.float32)

    def _sound(self, stretch: Stretch, random: np.random.Generator) -> np.ndarray:
        size, kind = stretch.size, stretch.kind
        room = at_level(coloured_noise(size, 1.5, random), random.uniform(*ROOM_DB))
        if kind == "speech":
            for index, place in stretch.said:
                samples = self.recordings[index][: max(0, stretch.start + size - place)]
                begin = place - stretch.start
                room[begin : begin + len(samples)] += samples * 10 ** (random.uniform(*SPEECH_PEAK_DB) / 20)
            return room
        if kind == "room silence":
            return room
        if kind == "music":
            return room + music(size, random)
        if kind == "babble":
            return room + at_level(self._babble(size, random), random.uniform(*NOISE_DB))
        noise = hum(size, random) if kind == "hum" else coloured_noise(size, float(kind == "pink noise"), random)
        return room + at_level(noise, random.uniform(*NOISE_DB))

    def _babble(self, size: int, random: np.random.Generator) -> np.ndarray:
        voices = [self.recordings[index] for index in random.integers(len(self.recordings), size=BABBLE_VOICES)]
        return np.sum([np.resize(np.roll(voice, random.integers(len(voice))), size) for voice in voices], axis=0)

    def pieces(self, sizes: Iterator[int]) -> Iterator[np.ndarray]:
        """The whole programme cut into pieces of these sizes, the last one as it comes out, float32 ``(n,)``."""
        rest = np.zeros(0, np.float32)
        size = next(sizes)
        for stretch in self.stretches:
            rest = np.concatenate([rest, self.render(stretch)])
            used = 0
            while len(rest) - used >= size:
                yield rest[used : used + size]
                used, size = used + size, next(sizes)
            rest = rest[used:].copy()
        if len(rest):
            yield rest
