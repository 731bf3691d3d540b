"""Registry of vocoder classes by the ``type`` in their configuration."""

from __future__ import annotations

from typing import Any

from echostream.vocoders.code_hifigan import CodeHiFiGANVocoder
from echostream.vocoders.interface import UnitVocoder, VocoderError
from echostream.vocoders.istft import ISTFTVocoder

VOCODERS: dict[str, type[UnitVocoder]] = {}


def register_vocoder(vocoder: type[UnitVocoder]) -> type[UnitVocoder]:
    """Class decorator that registers a vocoder under its ``kind``, the ``type`` in its ``config.json``.

    Raises:
        ValueError: another class is registered under this name.
    """
    if VOCODERS.setdefault(vocoder.kind, vocoder) is not vocoder:
        raise ValueError(f"the vocoder type {vocoder.kind!r} is registered already: choose another name")
    return vocoder


for _vocoder in (CodeHiFiGANVocoder, ISTFTVocoder):
    register_vocoder(_vocoder)


def build_vocoder(config: dict[str, Any]) -> UnitVocoder:
    """Build a vocoder with random weights from its configuration.

    A configuration without ``type``, as published unit vocoders have, is that of a CodeHiFiGAN.

    Raises:
        VocoderError: for an unknown type, or a setting that is missing or not valid.
    """
    kind = config.get("type", CodeHiFiGANVocoder.kind)
    if kind not in VOCODERS:
        raise VocoderError(f"unknown vocoder type {kind!r}; known: {', '.join(sorted(VOCODERS))}")
    try:
        return VOCODERS[kind](config)
    except KeyError as error:
        raise VocoderError(f"the {kind} vocoder's config lacks {error}") from error
    except (TypeError, RuntimeError) as error:
        raise VocoderError(f"the {kind} vocoder's config makes no sense: {str(error).splitlines()[0]}") from error
