"""Networks and their configuration: the model, its speech encoder, CTC, MT and unit decoders."""

import importlib

from echostream.models.config import ARCHITECTURES, EchoStreamConfig, architecture_config
from echostream.models.ctc_decoder import CTCDecoder, CTCDecoderWithTransformerLayer
from echostream.models.echostream_model import EchoStreamModel
from echostream.models.mt_decoder import TransformerMTDecoder
from echostream.models.speech_encoder import EchoStreamSpeechEncoder
from echostream.models.unit_decoder import CTCTransformerUnitDecoder

__all__ = [
    "ARCHITECTURES",
    "CTCDecoder",
    "CTCDecoderWithTransformerLayer",
    "CTCTransformerUnitDecoder",
    "EchoStreamConfig",
    "EchoStreamModel",
    "EchoStreamSpeechEncoder",
    "TransformerMTDecoder",
    "architecture_config",
]


def __getattr__(name: str) -> object:
    """The runtime under the name that version 0.1 gave it; it has moved to :mod:`echostream.streaming`."""
    if name == "StreamingTranslator":
        return importlib.import_module("echostream.streaming").StreamingTranslator
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
