"""``echostream info``: what a checkpoint holds."""

from __future__ import annotations

import argparse
from typing import Any

from echostream.cli.options import UserError, load_user_dir
from echostream.printing import printable


def run(args: argparse.Namespace) -> int:
    """Print what the checkpoint holds, and what can be done with it.

    Raises:
        UserError: a model or vocoder that is missing or damaged.
    """
    from echostream.checkpoints.model_files import load_model
    from echostream.checkpoints.model_folder import ModelSettings
    from echostream.checkpoints.model_store import resolve_model
    from echostream.checkpoints.vocoder_files import load_vocoder
    from echostream.cli.threads import choose_threads
    from echostream.streaming import StreamingTranslator

    load_user_dir(args)
    try:
        model_path = resolve_model(args.model)
        settings = ModelSettings.of(model_path).with_options(vocoder=args.vocoder)
        loaded = load_model(settings.checkpoint)
        beside = settings.vocoder or settings.checkpoint.parent / "vocoder"
        vocoder = load_vocoder(beside) if settings.vocoder or beside.is_dir() else None
    except ValueError as error:
        raise UserError(str(error)) from error
    model, cfg = loaded.model, loaded.model.cfg
    rows: dict[str, Any] = (
        {"languages": f"{settings.source_lang} to {settings.target_lang}"} if settings.source_lang else {}
    )
    encoder_ms = model.encoder.layer_frame_ms
    rows |= {
        "parameters": f"{sum(parameter.numel() for parameter in model.parameters()):,}",
        "encoder": f"{cfg.encoder_layers} layers of {cfg.encoder_dim}, "
        f"left context {encoder_ms * cfg.left_context_frames} ms, "
        f"memory {cfg.memory_slots} x {encoder_ms * cfg.memory_block_frames} ms, "
        f"look-ahead {model.frame_ms * cfg.right_context_frames} ms",
        "source pieces": len(loaded.source_symbols),
        "target pieces": len(loaded.target_symbols),
        "units": model.unit_decoder.num_units,
    }
    if vocoder is None:
        rows["vocoder"] = "none beside it: --task s2tt and asr work as they are, speech needs --vocoder"
    else:
        fits = vocoder.num_units == model.unit_decoder.num_units
        rows["vocoder"] = f"{beside}: {vocoder.num_units} units, {vocoder.sample_rate} Hz"
        rows["vocoder"] += "" if fits else ", which does not fit this model"
    chosen = {name: value for name, value in settings.options.items() if value is not None}
    if settings.source_lm is None:
        chosen = {name: value for name, value in chosen.items() if not name.startswith("lm_")}
    translator = StreamingTranslator(loaded.model, loaded.source_symbols, loaded.target_symbols, task="asr")
    rows["threads"] = str(choose_threads(translator))
    rows["defaults"] = ", ".join(f"{name} {value}" for name, value in chosen.items())
    for name, value in rows.items():
        print(printable(f"{name:14} {value}"))
    return 0
