"""What every front end has to keep, as checks that a front end of one's own can be put through.

A check takes a :class:`FrontEnd` and raises :class:`AssertionError` with what it found; with pytest, all are one
test::

    @pytest.mark.parametrize("check", CONTRACT)
    def test_contract(check):
        check(find_front_end("mine"))
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from echostream.constants import SAMPLE_RATE
from echostream.contract import require
from echostream.models.config import EchoStreamConfig
from echostream.models.front_ends import FrontEnd
from echostream.modules.front_end import Features, Subsampler

CLOSE = 1e-5  # between float32 results of the same sums in another order
SECONDS = 1.3
Check = Callable[[FrontEnd], None]


def _samples() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return 0.1 * torch.randn(round(SECONDS * SAMPLE_RATE), generator=generator)


def _modules(front_end: FrontEnd) -> tuple[Features, Subsampler]:
    cfg = EchoStreamConfig(encoder_dim=16, encoder_heads=2, subsampler_hidden_dim=16)
    return front_end.features().eval(), front_end.subsampler(cfg).eval()


def _distance(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max()) if a.numel() else 0.0


@torch.no_grad()
def check_features_in_pieces(front_end: FrontEnd) -> None:
    """The pieces of a stream give the features of the whole recording, whatever their sizes."""
    features, samples = _modules(front_end)[0], _samples()
    whole, _ = features(samples)
    require(whole.shape[1:] == (front_end.num_features,), f"features are {tuple(whole.shape)}, not (T, num_features)")
    for size in (1, 7, 399, 5000):
        state, pieces = features.init_state(), []
        for piece in samples[: 40 * size].split(size):
            out, state = features(piece, state)
            pieces.append(out)
        streamed = torch.cat(pieces)
        expected, _ = features(samples[: 40 * size])
        require(streamed.shape == expected.shape, f"pushes of {size} samples give {len(streamed)} features")
        require(_distance(streamed, expected) <= CLOSE, f"pushes of {size} samples change the features")


@torch.no_grad()
def check_missing_samples(front_end: FrontEnd) -> None:
    """`missing_samples` is exactly what completes the next features."""
    features, samples = _modules(front_end)[0], _samples()
    state, position = features.init_state(), 0
    for count in (1, 1, 2, 5, 30):
        missing = features.missing_samples(count, state)
        early, _ = features(samples[position : position + missing - 1], state)
        out, state = features(samples[position : position + missing], state)
        require(len(early) < count, f"{missing - 1} samples complete {count} features: missing_samples says {missing}")
        require(len(out) == count, f"{missing} samples complete {len(out)} features, not {count}")
        position += missing


@torch.no_grad()
def check_frames_in_pieces(front_end: FrontEnd) -> None:
    """Segments of a stream give the frames of the whole input, and `missing_features` says what they need."""
    features, subsampler = _modules(front_end)
    x = features(_samples())[0][None]
    whole, lengths, _ = subsampler(x)
    require(int(lengths) == whole.size(1), f"{int(lengths)} frames are said to be valid, of {whole.size(1)}")
    for count in (1, 3, 8):
        state, pieces, position = subsampler.init_state(), [], 0
        while position + (missing := subsampler.missing_features(count, state)) < x.size(1):
            out, _, state = subsampler(x[:, position : position + missing], state=state, is_last=False)
            require(out.size(1) == count, f"{missing} features give {out.size(1)} frames, not {count}")
            pieces.append(out)
            position += missing
        last, _, _ = subsampler(x[:, position:], state=state)
        streamed = torch.cat([*pieces, last], dim=1)
        require(streamed.shape == whole.shape, f"segments of {count} frames give {streamed.size(1)} in all")
        require(_distance(streamed, whole) <= CLOSE, f"segments of {count} frames change the frames")


@torch.no_grad()
def check_padding(front_end: FrontEnd) -> None:
    """What the padding of a batch holds changes nothing."""
    features, subsampler = _modules(front_end)
    x = features(_samples())[0]
    length = len(x) - 21
    batch = torch.stack([x, x])
    batch[1, length:] = float("nan")
    out, lengths, _ = subsampler(batch, torch.tensor([len(x), length]))
    alone, _, _ = subsampler(x[None, :length])
    require(int(lengths[1]) == alone.size(1), f"{int(lengths[1])} frames are said to be valid, of {alone.size(1)}")
    require(_distance(out[1, : alone.size(1)], alone[0]) <= CLOSE, "the padding changes the frames")


@torch.no_grad()
def check_steps_repeat(front_end: FrontEnd) -> None:
    """The same state twice gives the same twice: nothing is changed in place."""
    features, subsampler = _modules(front_end)
    samples = _samples()
    _, state = features(samples[:5000])
    first, second = features(samples[5000:9000], state)[0], features(samples[5000:9000], state)[0]
    require(torch.equal(first, second), "a step changes the state of the features that it is given")
    x = features(samples)[0][None]
    start = subsampler.missing_features(4, subsampler.init_state())
    _, _, before = subsampler(x[:, :start], state=subsampler.init_state(), is_last=False)
    once, again = (subsampler(x[:, start:], state=before)[0] for _ in range(2))
    require(torch.equal(once, again), "a step changes the state of the subsampler that it is given")


CONTRACT: tuple[Check, ...] = (
    check_features_in_pieces,
    check_missing_samples,
    check_frames_in_pieces,
    check_padding,
    check_steps_repeat,
)
