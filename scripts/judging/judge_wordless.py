"""How much a model says of sounds that hold no sentence of its language: noise, music, applause, foreign speech ...

    python scripts/judging/judge_wordless.py --model models/fr-en --foreign FOLDER_OR_FILES --spoken FOLDER_OR_FILES \\
        --output runs/wordless

Each kind is one stream of --minutes, made of sounds of 2 to 15 s, a second between them, in loudnesses as they come
(`scripts/recipes/everyday/wordless.py`). --spoken are recordings in the model's language: they are played backwards,
and the shortest ones are said over and over. `wordless.json` and the table have the words that were heard and said in
a minute. Interrupted, it goes on with the kinds that are missing.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from echostream.cli.options import UserError, add_model_options, load_translator, model_settings
from echostream.streaming import StreamingTranslator
from scripts.benchmarks.benchmarking import Progress
from scripts.benchmarks.figures import markdown_table, write_json
from scripts.recipes.everyday.wordless import KINDS, WORDLESS_S, make
from scripts.soak.soak_audio import SAMPLE_RATE, read_speech

LONGEST_WORD_S = 1.2  # a recording that short is a word or two
LOUDNESS = (0.1, 0.9)  # peaks
PUSH_S = 1.0


class Sounds:
    """Sounds of one kind, without end, float32 ``(n,)``.

    Args:
        foreign, spoken: recordings with a peak of 1.
        seed: of all chance.
    """

    def __init__(self, foreign: list[np.ndarray], spoken: list[np.ndarray], seed: int) -> None:
        short = [samples for samples in spoken if samples.size <= LONGEST_WORD_S * SAMPLE_RATE]
        pools = {"foreign": foreign, "french": spoken, "word": short or spoken}
        self._speech = {name: _chooser(pool) for name, pool in pools.items()}
        self._seed = seed

    def of(self, kind: str) -> Iterator[np.ndarray]:
        """A sound and the second of silence behind it, again and again."""
        generator = np.random.default_rng((self._seed, KINDS.index(kind)))
        while True:
            sound = make(kind, generator.uniform(*WORDLESS_S), generator, self._speech)
            sound = sound * generator.uniform(*LOUDNESS)
            yield np.concatenate([sound, np.zeros(SAMPLE_RATE)]).astype(np.float32)


def _chooser(pool: list[np.ndarray]) -> Callable[[np.random.Generator], np.ndarray]:
    return lambda generator: pool[generator.integers(len(pool))]


def judge(translator: StreamingTranslator, sounds: Iterator[np.ndarray], minutes: float, progress: Progress) -> dict:
    """What is heard and said in one stream of so many minutes."""
    state, heard, said, fed = translator.init_state(), 0, [], 0
    total = round(60 * minutes * SAMPLE_RATE)
    while fed < total:
        sound = next(sounds)[: total - fed]
        for start in range(0, sound.size, round(PUSH_S * SAMPLE_RATE)):
            piece = sound[start : start + round(PUSH_S * SAMPLE_RATE)]
            fed += piece.size
            output = translator.step(piece, state, is_last=fed == total)
            heard += len(output.source_words)
            said += [word.text for word in output.words]
            progress.update(fed // SAMPLE_RATE, total // SAMPLE_RATE, "s of audio")
    return {"minutes": minutes, "heard": heard, "said": len(said), "words": said}


def main() -> int:
    summary = __doc__.split("\n\n")
    parser = argparse.ArgumentParser(
        description=summary[0], epilog="\n\n".join(summary[1:]), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--foreign", type=Path, nargs="+", required=True, help="recordings in other languages")
    parser.add_argument("--spoken", type=Path, nargs="+", required=True, help="recordings in the model's language")
    parser.add_argument("--output", type=Path, required=True, help="folder for wordless.json")
    parser.add_argument("--minutes", type=float, default=10, help="of each kind (10)")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS), help="which (all)")
    parser.add_argument("--seed", type=int, default=0, help="of all chance (0)")
    add_model_options(parser)
    args = parser.parse_args()
    if not 0.05 <= args.minutes <= 600:
        parser.error("--minutes must be from 0.05 to 600")
    for path in (*args.foreign, *args.spoken):
        if not path.exists():
            parser.error(f"no such file or folder: {path}")
    file = args.output / "wordless.json"
    try:
        settings = model_settings(args)
    except UserError as error:
        raise SystemExit(f"error: {error}") from error
    options = {name: str(getattr(args, name)) for name in ("foreign", "spoken", "minutes", "seed", "model")}
    played = ("segment_ms", "policy", "vad", "least_language", "least_confidence")
    options |= {name: str(getattr(settings, name)) for name in played}
    done = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {"options": options, "kinds": {}}
    if done["options"] != options:
        raise SystemExit(f"error: {file} holds figures of other options: give another --output, or delete it")
    sounds = Sounds(read_speech(args.foreign), read_speech(args.spoken), args.seed)
    try:
        translator = load_translator(args, "s2tt")
    except UserError as error:
        raise SystemExit(f"error: {error}") from error
    for kind in args.kinds:
        if kind not in done["kinds"]:
            done["kinds"][kind] = judge(translator, sounds.of(kind), args.minutes, Progress(kind))
            write_json(file, done)
    rows = [
        [kind, f"{found['heard'] / found['minutes']:.1f}", f"{found['said'] / found['minutes']:.1f}"]
        for kind, found in done["kinds"].items()
    ]
    print(markdown_table(["sound", "words heard a minute", "said"], rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
