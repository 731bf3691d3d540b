"""Unit vocoders: the common interface, CodeHiFiGAN, the inverse-STFT vocoder, and their training losses."""

from echostream.vocoders.interface import UnitVocoder, VocoderError, VocoderOutput, VocoderState
from echostream.vocoders.registry import build_vocoder, register_vocoder

__all__ = ["UnitVocoder", "VocoderError", "VocoderOutput", "VocoderState", "build_vocoder", "register_vocoder"]
