"""Vocoders by the name that their configuration gives."""

from __future__ import annotations

from typing import Any

from echostream.vocoders.code_hifigan import CodeHiFiGANVocoder
from echostream.vocoders.interface import UnitVocoder, VocoderError
from echostream.vocoders.istft import ISTFTVocoder

VOCODERS: dict[str, type[UnitVocoder]] = {}


def register_vocoder(vocoder: type[UnitVocoder]) -> type[UnitVocoder]:
    """Make a vocoder known under its ``kind``, which stands as ``type`` in its ``config.json``; a class decorator.

    Raises:
        ValueError: the name is taken by another class.
    """
    if VOCODERS.setdefault(vocoder.kind, vocoder) is not vocoder:
        raise ValueError(f"the vocoder type {vocoder.kind!r} is registered already: choose another name")
    return vocoder


for _vocoder in (CodeHiFiGANVocoder, ISTFTVocoder):
    register_vocoder(_vocoder)


def build_vocoder(config: dict[str, Any]) -> UnitVocoder:
    """Make a vocoder with random weights from its configuration.

    Published unit vocoders carry no ``type``: they are CodeHiFiGANs.

    Raises:
        VocoderError: for an unknown type, or a setting that is missing or makes no sense.
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
