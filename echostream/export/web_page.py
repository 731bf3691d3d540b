"""The page that runs an export in a browser: its own files, those of the server's page, and onnxruntime-web's."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

PAGE = Path(__file__).parent / "page"
SERVED = Path(__file__).parents[1] / "serve" / "static"
SERVED_NAMES = ("audio.js", "capture.worklet.js", "icon.svg", "level.js", "style.css", "transcript.js", "words.js")
RUNTIME_NAME = "onnxruntime-web"
RUNTIME_FILES = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
KNOWN_VERSION = "1.30"


def runtime_files(package: Path) -> list[Path]:
    """The files of the unpacked npm package onnxruntime-web that the page needs.

    Raises:
        ValueError: the folder is another one, or files are missing.
    """
    try:
        about = json.loads((package / "package.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        about = None
    if not isinstance(about, dict) or about.get("name") != RUNTIME_NAME:
        raise ValueError(
            f"{package} is not the unpacked npm package {RUNTIME_NAME}: 'npm pack {RUNTIME_NAME}' fetches it, "
            "and 'tar -xf' of that file makes the folder package"
        )
    files = [package / "dist" / name for name in RUNTIME_FILES]
    for file in files:
        if not file.is_file():
            raise ValueError(
                f"{file} is missing: {package} has {RUNTIME_NAME} {about.get('version')}, and {KNOWN_VERSION} has it"
            )
    return files


def write_page(folder: Path, runtime: Sequence[Path]) -> None:
    """Put the page beside the graphs in a folder: ``index.html``, and all else in ``page``.

    Args:
        folder: of the export.
        runtime: what :func:`runtime_files` gives.
    """
    page = folder / PAGE.name
    (page / RUNTIME_NAME).mkdir(parents=True)
    for file in (*PAGE.iterdir(), *(SERVED / name for name in SERVED_NAMES)):
        shutil.copyfile(file, page / file.name)
    (page / "index.html").rename(folder / "index.html")
    for file in runtime:
        shutil.copyfile(file, page / RUNTIME_NAME / file.name)
