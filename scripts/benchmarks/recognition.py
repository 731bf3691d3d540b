"""What an encoder and its ASR CTC recognise, greedily and without a language model, as they do while streaming."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from echostream.checkpoints.model_files import LoadedModel
from echostream.constants import SAMPLE_RATE
from echostream.evaluation.quality import normalise
from echostream.models.echostream_model import EchoStreamModel
from echostream.modules.ctc import CTCReader
from echostream.modules.cyclic_positions import TABLE_FRAMES
from echostream.text import edit_distance, pieces_to_text, text_lines
from scripts.benchmarks.benchmarking import Progress
from scripts.speech.recordings import Recording, read_recording

FEATURES_PER_S, FEATURES = 100, 80
BATCH_S = 60  # of audio that is encoded together
PUSH_S = 2  # of a long stream that is encoded in one call, at least one segment
MINUTE = 60 * SAMPLE_RATE
SEAM, ELSEWHERE = "over the seam", "elsewhere"


@dataclass(frozen=True)
class Errors:
    """Errors and what they are errors of; the letters of a text have single spaces between its words."""

    word_errors: int = 0
    words: int = 0
    letter_errors: int = 0
    letters: int = 0

    @classmethod
    def of(cls, hypothesis: str, reference: str) -> Errors:
        """Errors of normalised texts."""
        heard, said = normalise(hypothesis), normalise(reference)
        return cls(edit_distance(heard.split(), said.split()), len(said.split()), edit_distance(heard, said), len(said))

    def __add__(self, other: Errors) -> Errors:
        return Errors(*(mine + more for mine, more in zip(vars(self).values(), vars(other).values(), strict=True)))

    @property
    def word_rate(self) -> float | None:
        """In percent; None where there are no words."""
        return 100 * self.word_errors / self.words if self.words else None

    @property
    def letter_rate(self) -> float | None:
        """In percent; None where there are no letters."""
        return 100 * self.letter_errors / self.letters if self.letters else None


@dataclass(frozen=True)
class Setting:
    """How a stream is cut: segment and right context in ms; segment 0 is the whole recording."""

    segment_ms: int
    right_context_ms: int

    def frames(self, model: EchoStreamModel) -> dict[str, int]:
        """Both in frames of the model, as its encoder takes them.

        Raises:
            ValueError: one of them is no whole number of frames.
        """
        for size in (self.segment_ms, self.right_context_ms):
            if size % model.frame_ms:
                raise ValueError(f"{size} ms is no multiple of the model's frames of {model.frame_ms} ms")
        return {"segment": self.segment_ms // model.frame_ms, "right_context": self.right_context_ms // model.frame_ms}


def samples_of(recording: Recording) -> np.ndarray:
    """float32 ``(n,)`` @16 kHz; ValueError where the file is no such recording."""
    return read_recording(recording, Path())


def read_set(folder: Path, every: int = 1) -> list[Recording]:
    """Recordings of a folder with SimulEval's lists: ``source.txt`` and ``source_text.txt``; every n-th of them.

    Raises:
        ValueError, OSError: a list or a recording is missing, or they don't fit.
    """
    files, texts = (text_lines(folder / name) for name in ("source.txt", "source_text.txt"))
    if len(files) != len(texts) or not files:
        raise ValueError(f"{folder}: source.txt has {len(files)} lines, source_text.txt {len(texts)}")
    pairs = list(zip(files, texts, strict=True))[::every]
    recordings = [Recording(Path(file).stem, file, text) for file, text in pairs]
    if missing := [one.audio for one in recordings if not Path(one.audio).is_file()]:
        raise ValueError(f"{folder}: no recording {missing[0]}; run the recipe that wrote source.txt again")
    return recordings


@torch.inference_mode()
def transcribe_alone(
    loaded: LoadedModel, recordings: Sequence[Recording], setting: Setting, label: str = ""
) -> list[str]:
    """What is recognised in each recording.

    The forward pass over whole recordings gives what steps give (to 1e-5, which is tested), and takes batches.
    """
    model, frames = loaded.model, setting.frames(loaded.model)
    features = [model.fbank(torch.from_numpy(samples_of(recording)))[0] for recording in recordings]
    order = sorted(range(len(features)), key=lambda index: -len(features[index]))
    progress, texts, done = Progress(label), [""] * len(features), 0
    while done < len(order):
        longest = max(1, len(features[order[done]]))
        rows = order[done : done + max(1, FEATURES_PER_S * BATCH_S // longest)]
        lengths = torch.tensor([len(features[row]) for row in rows])
        batch = torch.nn.utils.rnn.pad_sequence([features[row] for row in rows], batch_first=True)
        encoded = model.encode(batch, lengths, **frames, parts=("asr",))
        classes = encoded["asr_logits"].argmax(dim=-1).tolist()
        for row, labels, length in zip(rows, classes, encoded["frame_lengths"].tolist(), strict=True):
            texts[row] = _text(loaded, [symbol for _, symbol in CTCReader().read(labels[:length])[0]])
        done += len(rows)
        progress.update(done, len(order), "recordings")
    return texts


def _text(loaded: LoadedModel, symbols: Sequence[int]) -> str:
    return pieces_to_text([loaded.source_symbols[symbol] for symbol in symbols]).strip()


@dataclass(frozen=True)
class Joined:
    """One of the recordings of a long stream: which, and its begin and end in samples from the stream's start."""

    number: int
    begin: int
    end: int


def plan_streams(lengths: Sequence[int], stream_samples: int, gap_samples: int) -> list[list[Joined]]:
    """Recordings in their order, joined with silence between them to streams that are just longer than asked for.

    What would not fill a stream is left out; if none were filled, the recordings come round again.

    Args:
        lengths: of the recordings in samples.
        stream_samples: of a stream.
        gap_samples: of the silence behind each recording.
    """
    streams: list[list[Joined]] = []
    stream: list[Joined] = []
    begin = 0
    total = max(1, sum(lengths) + gap_samples * len(lengths))
    rounds = 1 if total >= stream_samples else -(-stream_samples // total)
    for number in islice(cycle(range(len(lengths))), rounds * len(lengths)):
        stream.append(Joined(number, begin, begin + lengths[number]))
        begin += lengths[number] + gap_samples
        if begin >= stream_samples:
            streams.append(stream)
            stream, begin = [], 0
    return streams


@torch.inference_mode()
def transcribe_joined(
    loaded: LoadedModel,
    recordings: Sequence[Recording],
    stream: Sequence[Joined],
    gap_samples: int,
    setting: Setting,
    label: str = "",
) -> list[str]:
    """What is recognised of each recording in a stream of all of them, which is really streamed, with one state.

    A symbol belongs to the recording in which, or in the silence behind which, it was read.
    """
    model, frames = loaded.model, setting.frames(loaded.model)
    features = _features(model, (samples_of(recordings[one.number]) for one in stream), gap_samples)
    segment = frames["segment"] * model.frame_ms * FEATURES_PER_S // 1000
    push = max(segment, PUSH_S * FEATURES_PER_S) if segment else len(features)
    state, reader, progress = None, CTCReader(), Progress(label)
    found: list[tuple[int, int]] = []
    first = 0
    for start in range(0, len(features), push):
        is_last = start + push >= len(features)
        piece = features[None, start : start + push]
        encoded, _, state = model.encoder(piece, state=state, **frames, is_last=is_last)
        labels = model.asr_head(encoded)[0][0].argmax(dim=-1).tolist()
        symbols, reader = reader.read(labels)
        found += [(first + frame, symbol) for frame, symbol in symbols]
        first += len(labels)
        progress.update(min(len(features), start + push), len(features), "features")
    ends = [one.begin * 1000 // (SAMPLE_RATE * model.frame_ms) for one in stream[1:]]
    owners = np.searchsorted(ends, [frame for frame, _ in found], side="right").tolist()
    by_recording: list[list[int]] = [[] for _ in stream]
    for owner, (_, symbol) in zip(owners, found, strict=True):
        by_recording[owner].append(symbol)
    return [_text(loaded, symbols) for symbols in by_recording]


def _features(model: EchoStreamModel, waves: Iterable[np.ndarray], gap_samples: int) -> Tensor:
    """Features ``(T, 80)`` of one stream of recordings, each with silence behind it."""
    state, pieces, silence = None, [], torch.zeros(gap_samples)
    for wave in waves:
        features, state = model.fbank(torch.cat([torch.from_numpy(wave), silence]), state)
        pieces.append(features)
    return torch.cat(pieces)


def places(one: Joined, model: EchoStreamModel) -> Iterator[str]:
    """The groups that a recording of a stream counts to: its minute, and whether a table of positions turns in it."""
    yield f"minute {one.begin // MINUTE + 1}"
    period = seam_s(model) * SAMPLE_RATE
    yield SEAM if one.begin // period != one.end // period else ELSEWHERE


def seam_s(model: EchoStreamModel) -> int:
    """After how many seconds Whisper's table of positions begins anew."""
    return TABLE_FRAMES * model.encoder.layer_frame_ms // 1000


@torch.inference_mode()
def operations(model: EchoStreamModel, setting: Setting) -> float | None:
    """Floating-point operations of the encoder for a second of audio; None without segments.

    Those of matrix products, two for a multiplication with its addition, in a step of a stream, its right context
    computed anew in each. A count, not a time: the same on any machine.
    """
    if not setting.segment_ms:
        return None
    frames, state = setting.frames(model), model.encoder.init_state()
    counter = FlopCounterMode(display=False)
    for step in range(2):  # the first one waits for the right context as well
        missing = model.encoder.missing_features(frames["segment"], frames["right_context"], state)
        features = torch.zeros(1, missing, FEATURES)
        if step == 0:
            _, _, state = model.encoder(features, state=state, **frames, is_last=False)
            continue
        # The counter knows the products that plain attention is made of, and not each of the fused kernels.
        with sdpa_kernel(SDPBackend.MATH), counter:
            out, _, _ = model.encoder(features, state=state, **frames, is_last=False)
        assert out.size(1) == frames["segment"]
    return counter.get_total_flops() * 1000 / setting.segment_ms
