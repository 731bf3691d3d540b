"""Registry of vocoder classes by the ``type`` in their configuration.

A class of one's own is registered where it is defined::

    @register_vocoder("sine_bank")
    class SineBankVocoder(UnitVocoder[SineBankState]): ...
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from echostream.plugins import one_line
from echostream.vocoders.code_hifigan import CodeHiFiGANVocoder
from echostream.vocoders.interface import UnitVocoder, VocoderError
from echostream.vocoders.istft import ISTFTVocoder

VOCODERS: dict[str, type[UnitVocoder]] = {}
VocoderT = TypeVar("VocoderT", bound=UnitVocoder)


def register_vocoder(name: str) -> Callable[[type[VocoderT]], type[VocoderT]]:
    """Class decorator that registers a vocoder; ``name`` is the ``type`` in its ``config.json``.

    Raises:
        ValueError: another class is registered under this name.
    """

    def register(vocoder: type[VocoderT]) -> type[VocoderT]:
        if VOCODERS.setdefault(name, vocoder) is not vocoder:
            raise ValueError(f"the vocoder type {name!r} is registered already: choose another name")
        return vocoder

    return register


# The configs of published unit vocoders have no type.
PUBLISHED = "code_hifigan"
register_vocoder(PUBLISHED)(CodeHiFiGANVocoder)
register_vocoder("istft")(ISTFTVocoder)


def build_vocoder(config: dict[str, Any]) -> UnitVocoder:
    """Build a vocoder with random weights from its configuration.

    A configuration without ``type``, as published unit vocoders have, is that of a CodeHiFiGAN.

    Raises:
        VocoderError: for an unknown type, or a setting that is missing or not valid.
    """
    kind = config.get("type", PUBLISHED)
    if not isinstance(kind, str) or kind not in VOCODERS:
        raise VocoderError(
            f"unknown vocoder type {kind!r}; known: {', '.join(sorted(VOCODERS))} (--user-dir adds those of your own)"
        )
    try:
        vocoder = VOCODERS[kind](config)
    except KeyError as error:
        raise VocoderError(f"the {kind} vocoder's config lacks {error}") from error
    except VocoderError:
        raise
    # What sizes that make no sense may end in; RuntimeError is torch's.
    except (TypeError, ValueError, AttributeError, ArithmeticError, IndexError, RuntimeError) as error:
        raise VocoderError(f"the {kind} vocoder's config makes no sense: {one_line(error)}") from error
    for name in ("sample_rate", "hop_samples", "num_units"):
        value = getattr(vocoder, name)
        if type(value) is not int or value < 1:
            raise VocoderError(f"the {kind} vocoder's config makes no sense: its {name} would be {value!r}")
    return vocoder
