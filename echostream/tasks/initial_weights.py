"""Initial weights of a new run from ``--init-encoder-from``, ``--init-decoders-from`` and Whisper's files."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from echostream.checkpoints.errors import CheckpointError
from echostream.checkpoints.initialisation import PretrainedError, initialise, report
from echostream.checkpoints.whisper_files import read_whisper, read_whisper_tokens
from echostream.checkpoints.whisper_names import whisper_decoder, whisper_encoder
from echostream.constants import SAMPLE_RATE
from echostream.criterions.distillation import EncoderDistillation, load_teacher
from echostream.decoding.target_tokens import END
from echostream.models.mt_decoder import TransformerMTDecoder
from echostream.models.speech_encoder import EchoStreamSpeechEncoder
from echostream.tasks.config import EchoStreamTaskConfig
from echostream.tasks.features import FeatureError
from echostream.tasks.manifests import ManifestError, exit_with_message
from echostream.tasks.unlabelled import UnlabelledSpeech

WHISPER_FRAMES = 1500  # 30 s
PIECES, BATCH = 96, 8  # of speech, from which the places of the text decoder are measured

logger = logging.getLogger(__name__)


def load_initial_weights(
    model: nn.Module,
    cfg: EchoStreamTaskConfig,
    task_state: Mapping[str, Any],
    speech: Callable[[], UnlabelledSpeech],
) -> None:
    """Copy weights from the files in the options into ``model``, and log which; no effect if the run is resumed.

    Args:
        model: to start.
        cfg: the task's options.
        task_state: with the dictionaries.
        speech: makes pieces of speech, from which Whisper's places are measured.

    Raises:
        SystemExit: with a one-line message, if a file can't be used.
    """
    paths = {"encoder": cfg.init_encoder_from, "decoders": cfg.init_decoders_from}
    requests = {part: path for part, path in paths.items() if path}
    whisper, whisper_text = cfg.init_encoder_from_whisper, cfg.init_mt_decoder_from_whisper
    if not requests and not whisper and not whisper_text:
        return
    # If this file exists, fairseq's trainer resumes from it and replaces all weights.
    resumed = Path(cfg.restore_file)
    if cfg.restore_file == "checkpoint_last.pt":  # fairseq looks for its default in the save folder; others are paths
        resumed = Path(cfg.save_dir) / resumed
    if resumed.exists():
        logger.info(f"going on from {resumed}: the options --init-... are not used")
        return
    if whisper:
        with exit_with_message(CheckpointError, ValueError):
            if cfg.init_encoder_from:
                raise ValueError("--init-encoder-from and --init-encoder-from-whisper: the encoder starts from one")
            logger.info(take_whisper_encoder(model, whisper))
    if whisper_text:
        with exit_with_message(CheckpointError, ManifestError, FeatureError):
            logger.info(take_whisper_decoder(model, whisper_text, task_state["target_symbols"], cfg.whisper_language))
            if getattr(model.get_submodule("mt_decoder"), "places", None) is not None:
                logger.info(take_whisper_places(model, whisper_text, speech()))
    if not requests:
        return
    with exit_with_message(PretrainedError):
        transfers, missing = initialise(model, requests, task_state)
    notes, warnings = report(transfers, missing)
    for note in notes:
        logger.info(note)
    for warning in warnings:
        logger.warning(warning)


def freeze_parts(model: nn.Module, names: str) -> None:
    """Keep the parts of ``--freeze``, separated by commas, out of the training; a part of a part by its whole name.

    Raises:
        ValueError: a part that there isn't, or nothing left to train.
    """
    parts = dict(model.named_modules())
    for name in filter(None, (part.strip() for part in names.split(","))):
        if name not in parts:
            inside = parts.get(name.rpartition(".")[0], model)
            known = ", ".join(child for child, _ in inside.named_children())
            raise ValueError(f"--freeze {name}: the model has no such part, but {known}")
        parts[name].requires_grad_(False)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError(f"--freeze {names} leaves nothing to train")


def take_whisper_encoder(model: nn.Module, path: str) -> str:
    """Copy Whisper's encoder into that of ``model``; what was taken, in one line.

    Raises:
        CheckpointError: the file can't be used, or its sizes are not the encoder's.
    """
    encoder = model.get_submodule("encoder")
    assert isinstance(encoder, EchoStreamSpeechEncoder)
    layers = len(encoder.emformer.layers)
    weights = whisper_encoder(read_whisper(path), layers, path)
    left = _take(encoder, weights, path)
    rest = f"; not in the file and left as they were: {', '.join(left)}" if left else ""
    return f"the encoder starts from Whisper's in {path}: {layers} layers, {len(weights)} tensors{rest}"


def take_whisper_decoder(model: nn.Module, path: str, symbols: Sequence[str], language: str) -> str:
    """Copy Whisper's text decoder into that of ``model``; what was taken, in one line.

    Raises:
        CheckpointError: the file or the tokens beside it can't be used, or its sizes are not the decoder's.
    """
    decoder = model.get_submodule("mt_decoder")
    assert isinstance(decoder, TransformerMTDecoder)
    layers = len(decoder.stack.layers)
    weights, absent = whisper_decoder(
        read_whisper(path), read_whisper_tokens(path), symbols, END, layers, language, path
    )
    known, wanted = len(weights["languages"]), 0 if decoder.languages is None else len(decoder.languages)
    if not wanted:
        del weights["languages"]
    elif known != wanted:
        raise CheckpointError(f"{path} knows {known} languages, the model {wanted}: give --mt-languages {known}")
    left = _take(decoder, weights, path)
    assert set(left) <= {"places", "silence"}, left
    unknown = f"; {len(absent)} subwords that it doesn't have start from their bytes" if absent else ""
    return f"the text decoder starts from Whisper's in {path}: {layers} layers, {len(weights)} tensors{unknown}"


def take_whisper_places(model: nn.Module, path: str, speech: UnlabelledSpeech) -> str:
    """Give the text decoder what Whisper's finds behind the words in 30 s of its encoder; what it was, in one line.

    A place gets the mean of the encoder's frames there over many pieces of speech, without the mean over all places:
    the streaming encoder learns its frames without it. Silence is the encoder's frames of 30 s of zeros.

    Raises:
        FeatureError: a recording can't be read.
    """
    decoder, encoder = model.get_submodule("mt_decoder"), model.get_submodule("encoder")
    assert isinstance(decoder, TransformerMTDecoder) and isinstance(encoder, EchoStreamSpeechEncoder)
    assert decoder.places is not None and decoder.silence is not None
    stack = encoder.stack
    teacher = load_teacher(path)
    distillation = EncoderDistillation(teacher, len(teacher.emformer.layers))
    means = distillation.learn_positions(speech.batches(PIECES // BATCH, BATCH, "positions")).means[-1]
    size = len(decoder.places) * stack
    means = torch.cat([means, means[-1:].expand(max(0, size - len(means)), -1)])[:size]
    # As long as Whisper has always heard it; the last place needs samples behind it.
    frames = max(WHISPER_FRAMES, size)
    samples = torch.zeros((frames + 1) * teacher.frame_ms * SAMPLE_RATE // 1000)
    features = torch.from_numpy(speech.reader.of_samples(samples))[None, : 2 * frames]
    norm = teacher.emformer.norm_final
    assert isinstance(norm, nn.LayerNorm)
    with torch.no_grad():
        silence, _, _ = teacher(features)
        decoder.places.copy_((means * norm.weight).unflatten(0, (-1, stack)).mean(dim=1))
        decoder.silence.copy_(silence[0, :size].unflatten(0, (-1, stack)).mean(dim=1))
    return f"its {len(decoder.places)} places and the silence behind them: measured from {PIECES} pieces of speech"


def _take(module: nn.Module, weights: Mapping[str, Tensor], path: str) -> list[str]:
    """Copy ``weights`` into ``module``; the names of its other tensors."""
    own = module.state_dict()
    for name, tensor in weights.items():
        if name not in own or own[name].shape != tensor.shape:
            shape = tuple(own[name].shape) if name in own else "absent"
            raise CheckpointError(
                f"{path}: {name} has the shape {tuple(tensor.shape)}, in the model it is {shape}; choose "
                "--arch echostream_whisper_base, or one of its kind with these sizes"
            )
    module.load_state_dict(weights, strict=False)
    return sorted(set(own) - set(weights))
