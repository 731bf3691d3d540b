"""When the first word of each recording ends: latency is counted from there.

    python word_ends.py --source simuleval/source.txt --source-text simuleval/source_text.txt --output first_words.txt

Whisper base aligns the known transcript with the recording, by dynamic time warping on the cross-attention of the heads
that follow the speech (Radford et al. 2022, arXiv:2212.04356; word times as in its timestamps). Not the model that is
judged: the peaks of its CTC may come late, which would make its own latency look short. Not the loudness either: it
tells where speech begins, but not where one word ends and the next begins. An alignment that ends before any sound is
moved to where the sound begins, so that silence isn't counted as the model's delay... nor a word's end lost.

One line of seconds a recording. Interrupted, it goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import soundfile
from tqdm import tqdm

from echostream.constants import SAMPLE_RATE
from echostream.evaluation.asr import find_model, load_whisper
from echostream.text import text_lines
from scripts.files import digest, write_text

TIME_STEP_S = 0.02  # of Whisper's encoder
ONSET_BLOCK_S = 0.02
ONSET_LEVEL = 0.05  # of the loudest block


class WordAligner:
    """Whisper's cross-attention as an aligner of a known text.

    Args:
        language: two-letter code of the recordings.
        compute: ``float32`` or ``int8``.
    """

    def __init__(self, language: str, compute: str = "int8") -> None:
        from faster_whisper.tokenizer import Tokenizer  # optional: only this needs it

        self.whisper = load_whisper(find_model("base", language), compute)
        self.tokenizer = Tokenizer(self.whisper.hf_tokenizer, True, "transcribe", language)

    def first_word_end(self, samples: np.ndarray, text: str) -> float:
        """Seconds from the start of float32 ``samples (n,)`` @16 kHz to the end of the first word of ``text``."""
        features = self.whisper.feature_extractor(samples)
        num_frames = features.shape[-1]
        encoded = self.whisper.encode(pad_or_trim(features))
        tokens = self.tokenizer.encode(f" {text.strip()}")
        aligned = self.whisper.model.align(encoded, self.tokenizer.sot_sequence, [tokens], num_frames)[0]
        times = {}
        for token, step in aligned.alignments:
            times.setdefault(token, step * TIME_STEP_S)
        second = next((i for i in range(1, len(tokens)) if self.tokenizer.decode([tokens[i]]).startswith(" ")), None)
        length_s = len(samples) / SAMPLE_RATE
        end = length_s if second is None else times.get(second, length_s)
        return min(max(end, onset(samples)), length_s)


def pad_or_trim(features: np.ndarray, frames: int = 3000) -> np.ndarray:
    """Features of 30 s, which Whisper expects."""
    features = features[..., :frames]
    return np.pad(features, [(0, 0)] * (features.ndim - 1) + [(0, frames - features.shape[-1])])


def onset(samples: np.ndarray) -> float:
    """Where sound begins, seconds: the first 20 ms that reach a twentieth of the loudest."""
    block = round(ONSET_BLOCK_S * SAMPLE_RATE)
    whole = samples[: len(samples) // block * block].reshape(-1, block)
    if not len(whole):
        return 0.0
    level = np.sqrt((whole**2).mean(axis=1))
    return float(np.argmax(level >= ONSET_LEVEL * level.max())) * ONSET_BLOCK_S


def main() -> None:
    parser = argparse.ArgumentParser(description="Find the end of the first word of each recording.")
    parser.add_argument("--source", type=Path, required=True, help="recordings, one a line")
    parser.add_argument("--source-text", type=Path, required=True, help="their transcripts, one a line")
    parser.add_argument("--output", type=Path, required=True, help="seconds, one a line")
    parser.add_argument("--limit", type=int, default=0, help="only the first N recordings (default 0: all)")
    parser.add_argument("--language", default="fr", help="of the recordings (default: %(default)s)")
    args = parser.parse_args()
    try:
        sources, texts = (text_lines(path) for path in (args.source, args.source_text))
        if len(sources) != len(texts):
            raise ValueError(f"{args.source} has {len(sources)} lines, {args.source_text} {len(texts)}")
        ends = find_all(sources[: args.limit or None], texts, args.language, args.output.with_suffix(".jsonl"))
    except (OSError, ValueError, RuntimeError) as error:
        raise SystemExit(f"error: {error}") from error
    content = "".join(f"{end:.2f}\n" for end in ends)
    # Evaluations know the file by its time, too: those that used it would not go on with another one.
    if not args.output.is_file() or args.output.read_text(encoding="utf-8") != content:
        write_text(args.output, content)


def find_all(sources: list[str], texts: list[str], language: str, memory: Path) -> list[float]:
    """Word ends of all recordings, those in ``memory`` not sought again."""
    known = {}
    for line in text_lines(memory) if memory.is_file() else ():
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:  # left by a kill
            continue
        known[entry["key"]] = entry["end_s"]
    memory.parent.mkdir(parents=True, exist_ok=True)
    aligner = None
    ends = []
    for source, text in zip(tqdm(sources, desc="first words", mininterval=2), texts, strict=False):
        key = digest(Path(source), text, language)
        if key not in known:
            aligner = aligner or WordAligner(language)
            known[key] = aligner.first_word_end(soundfile.read(source, dtype="float32")[0], text)
            with memory.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"key": key, "end_s": known[key]}) + "\n")
        ends.append(known[key])
    return ends


if __name__ == "__main__":
    main()
