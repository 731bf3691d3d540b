"""Front ends by name: what turns samples into the frames that the encoder's layers read."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from echostream.models.config import EchoStreamConfig
from echostream.modules.fbank import NUM_MELS, OnlineFbank
from echostream.modules.front_end import Features, Subsampler
from echostream.modules.subsampling import ConvSubsampler
from echostream.modules.whisper_features import WhisperFeatures
from echostream.modules.whisper_subsampling import WhisperSubsampler


@dataclass(frozen=True)
class FrontEnd:
    """How a front end is made.

    Attributes:
        features: makes the features module.
        subsampler: makes the subsampler for a config.
        num_features: size of a feature vector.
        frame_ms: duration of a frame.
        frame_scale: what frames are multiplied by before the first layer, for a config.
    """

    features: Callable[[], Features]
    subsampler: Callable[[EchoStreamConfig], Subsampler]
    num_features: int
    frame_ms: int
    frame_scale: Callable[[EchoStreamConfig], float] = lambda cfg: 1.0


FRONT_ENDS: dict[str, FrontEnd] = {}


def register_front_end(name: str, front_end: FrontEnd) -> FrontEnd:
    """Make a front end known under a name, for ``front_end`` of :class:`EchoStreamConfig`.

    Raises:
        ValueError: another one has that name.
    """
    if FRONT_ENDS.setdefault(name, front_end) is not front_end:
        raise ValueError(f"there is a front end called '{name}' already")
    return front_end


def find_front_end(name: str) -> FrontEnd:
    """The front end called ``name``.

    Raises:
        ValueError: there is none.
    """
    if name not in FRONT_ENDS:
        raise ValueError(f"unknown front end '{name}': choose one of {', '.join(sorted(FRONT_ENDS))}")
    return FRONT_ENDS[name]


register_front_end(
    "fbank",
    FrontEnd(
        OnlineFbank,
        lambda cfg: ConvSubsampler(NUM_MELS, cfg.subsampler_hidden_dim, cfg.encoder_dim, cfg.subsampler_kernel),
        NUM_MELS,
        frame_ms=40,
        # As in fairseq's speech encoders. Without it, frames start at a tenth of the size of what each layer adds to
        # them, and what was heard drowns: the CTC heads then learn little more than how frequent the pieces are.
        frame_scale=lambda cfg: math.sqrt(cfg.encoder_dim),
    ),
)
register_front_end(
    "whisper",
    FrontEnd(WhisperFeatures, lambda cfg: WhisperSubsampler(NUM_MELS, cfg.encoder_dim), NUM_MELS, frame_ms=20),
)
