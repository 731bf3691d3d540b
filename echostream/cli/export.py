"""``echostream export``: a model as ONNX files."""

from __future__ import annotations

import argparse
import importlib.util
import shlex

from echostream.cli.console import Console
from echostream.cli.options import UsageError, UserError, load_user_dir
from echostream.installation import install_hint

NEEDED = ("onnx", "onnxscript")  # by torch's exporter; onnxruntime is for those who use what is exported
MEGABYTE = 1_000_000


def run(args: argparse.Namespace) -> int:
    """Export what the options say; returns the exit status.

    Raises:
        UserError: a package that is missing, a model that can't be exported, or a folder with something in it.
        UsageError: a segment without an end.
    """
    if args.segment_ms == 0:
        raise UsageError("--segment-ms 0 can't be exported: choose a segment of at least one frame")
    for name in NEEDED:
        if importlib.util.find_spec(name) is None:
            raise UserError(f"the export needs the package {name}: {install_hint('onnx')}")
    from echostream.checkpoints.model_files import load_model
    from echostream.checkpoints.model_folder import ModelSettings
    from echostream.checkpoints.model_store import resolve_model
    from echostream.checkpoints.vocoder_files import load_vocoder
    from echostream.export.folder import Export, write_export
    from echostream.export.web_page import runtime_files

    console = Console(args.quiet, args.verbose)
    load_user_dir(args)
    try:
        web_runtime = runtime_files(args.page) if args.page else []
        settings = ModelSettings.of(resolve_model(args.model))
        settings = settings.with_options(vocoder=args.vocoder, segment_ms=args.segment_ms)
        loaded = load_model(settings.checkpoint)
        beside = settings.vocoder or settings.checkpoint.parent / "vocoder"
        vocoder = load_vocoder(beside) if settings.vocoder or beside.is_dir() else None
        export = Export(
            loaded.model,
            list(loaded.source_symbols),
            list(loaded.target_symbols),
            vocoder,
            settings.segment_ms,
            args.precision,
            (settings.source_lang, settings.target_lang),
            settings.right_context_frames,
        )
        write_export(export, args.output, console.detail, web_runtime)
    except ValueError as error:
        raise UserError(str(error)) from error
    if vocoder is not None and not export.speaks:
        kind = type(vocoder).__name__.removesuffix("Vocoder")
        console.warning(f"the vocoder in {beside} is a {kind}, which can't be exported: the files end with units")
    size = sum(file.stat().st_size for file in args.output.rglob("*") if file.is_file())
    console.status(f"{args.output}: {size / MEGABYTE:.0f} MB, segments of {settings.segment_ms} ms, {args.precision}")
    if args.page:
        console.status(f"the page: python -m http.server --bind 127.0.0.1 --directory {shlex.quote(str(args.output))}")
    return 0
