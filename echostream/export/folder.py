"""A folder with a model as ONNX files, and what a program has to know to call them."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

import echostream
from echostream.constants import SAMPLE_RATE
from echostream.decoding.target_tokens import END, NEVER
from echostream.export.graphs import WEIGHTS_NAME, WeightsFile, export_graph, pack_weights, start_graph, write_graph
from echostream.export.parts import (
    EncoderParts,
    Part,
    encoder_parts,
    head_parts,
    mt_decoder_part,
    unit_decoder_part,
    vocoder_parts,
)
from echostream.export.web_page import write_page
from echostream.models.echostream_model import EchoStreamModel
from echostream.modules.ctc import BLANK
from echostream.vocoders.interface import MAX_UNIT_FRAMES, UnitVocoder
from echostream.vocoders.istft import MAX_REMAINING, ISTFTVocoder

FORMAT, FORMAT_VERSION = "echostream-onnx", 1
ABOUT_NAME, START_NAME = "echostream.json", "start"


@dataclass(frozen=True)
class Export:
    """What is exported, and how.

    Attributes:
        model: in inference mode, float32, on the processor.
        source_symbols, target_symbols: its dictionaries.
        vocoder: speaks its units; None, and any other than :class:`ISTFTVocoder`: the export ends with units.
        segment_ms: what a step hears, a multiple of the model's ``frame_ms``.
        precision: of the weights in the file, one of :data:`EXPORT_PRECISIONS`; everything is computed in float32.
        languages: language tags of source and target, if they are known.
        right_context_frames: look-ahead of a segment in encoder frames; None takes the trained one.
    """

    model: EchoStreamModel
    source_symbols: list[str]
    target_symbols: list[str]
    vocoder: UnitVocoder | None
    segment_ms: int
    precision: str = "float32"
    languages: tuple[str, str] = ("", "")
    right_context_frames: int | None = None

    @property
    def speaks(self) -> bool:
        """Whether the vocoder is exported too."""
        return isinstance(self.vocoder, ISTFTVocoder)

    def encoder(self) -> EncoderParts:
        """The encoder with its front end.

        Raises:
            ValueError: a segment that is no multiple of a frame, or that can't be exported.
        """
        frame_ms = self.model.frame_ms
        if self.segment_ms % frame_ms:
            raise ValueError(f"segment_ms must be a multiple of {frame_ms} ms for this model, got {self.segment_ms}")
        ahead = self.right_context_frames
        ahead = self.model.cfg.right_context_frames if ahead is None else ahead
        return encoder_parts(self.model, self.segment_ms // frame_ms, ahead)

    def parts(self, encoder: EncoderParts) -> Iterator[Part]:
        """All that becomes a file, in the order of their calls."""
        yield from (encoder.first, encoder.step, *head_parts(self.model), mt_decoder_part(self.model))
        yield unit_decoder_part(self.model)
        if isinstance(self.vocoder, ISTFTVocoder):
            yield from vocoder_parts(self.vocoder)

    def about(self, encoder: EncoderParts) -> dict[str, Any]:
        """The content of ``echostream.json``."""
        model = self.model
        content: dict[str, Any] = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "echostream_version": echostream.__version__,
            "precision": self.precision,
            "source_lang": self.languages[0],
            "target_lang": self.languages[1],
            "sample_rate": SAMPLE_RATE,
            "first_samples": encoder.first_samples,
            "step_samples": encoder.step_samples,
            "look_ahead_samples": encoder.first_samples - encoder.step_samples,
            "frame_ms": model.frame_ms,
            "blank": BLANK,
            "end": END,
            "never": list(NEVER),
            "mt_window_frames": model.mt_decoder.window_frames,
            "num_units": model.unit_decoder.num_units,
        }
        if isinstance(self.vocoder, ISTFTVocoder):
            content["vocoder"] = {
                "sample_rate": self.vocoder.sample_rate,
                "hop_samples": self.vocoder.hop_samples,
                "carries_rounding": self.vocoder.carries,
                "max_unit_frames": MAX_UNIT_FRAMES,
                "max_remaining": MAX_REMAINING,
            }
        return content | {"source_symbols": self.source_symbols, "target_symbols": self.target_symbols}


def write_export(export: Export, folder: Path, say: Callable[[str], None], web_runtime: Sequence[Path] = ()) -> None:
    """Write all files; the folder appears when it is whole.

    Args:
        export: what is exported.
        folder: to be made; there may be an empty one.
        say: is told what is being worked on.
        web_runtime: what :func:`~echostream.export.web_page.runtime_files` gives; empty: there will be no page.

    Raises:
        ValueError: options that can't be exported, or a folder with something in it.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} is there already, and not an empty folder: name another, or remove it")
    encoder = export.encoder()
    folder.parent.mkdir(parents=True, exist_ok=True)
    work = folder.with_name(f".{folder.name}.{os.getpid()}")
    work.mkdir()
    try:
        with (work / WEIGHTS_NAME).open("wb") as file:
            weights = WeightsFile(file)
            start: dict[str, Tensor] = {}
            for part in export.parts(encoder):
                say(f"exporting {part.name}")
                graph = export_graph(part)
                if export.precision == "int8" and part.is_packable:
                    pack_weights(graph.graph, part.modules)
                write_graph(graph, work / f"{part.name}.onnx", weights)
                start |= part.start
            write_graph(start_graph(start), work / f"{START_NAME}.onnx", weights)
        about = json.dumps(export.about(encoder), ensure_ascii=False, indent=1)
        (work / ABOUT_NAME).write_text(about + "\n", encoding="utf-8")
        if web_runtime:
            write_page(work, web_runtime)
        work.replace(folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)
