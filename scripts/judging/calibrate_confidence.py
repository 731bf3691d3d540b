"""What the decoder's probabilities mean: fit `confidence_slope` and `confidence_offset` of model.yaml on a dev set.

    python scripts/judging/calibrate_confidence.py --model models/fr-en \\
        --set runs/dev/source.txt=runs/dev/target.txt --write

Each line of a source list is a recording, and each line of the target list its translation. Every word that the model
writes is right if the reference has it (as often, at whatever place) and wrong if not; a logistic function of the mean
log-probability of its tokens (Platt 1999) is fitted to that. Printed are how well it tells the two apart and how far
what it says is from what is (the expected calibration error, Naeini et al. 2015), on the half of the recordings that it
was not fitted on, for the model's own probabilities and after the fit.
"""

from __future__ import annotations

import argparse
import math
from collections import Counter
from pathlib import Path

import numpy as np
import torch
import yaml

from echostream.audio.errors import AudioError
from echostream.audio.input import open_audio
from echostream.checkpoints.model_store import SETTINGS_NAME, read_settings
from echostream.constants import DEFAULT_SEGMENT_MS
from echostream.decoding.confidence import Confidence
from echostream.evaluation.quality import normalise
from echostream.streaming import StreamingTranslator
from echostream.text import text_lines
from scripts.command_line import require
from scripts.files import write_text
from scripts.release.export_model import renew_digest

BINS = 10
LEAST_WORDS = 50
Words = list[tuple[float, bool]]  # mean log-probability, and whether the reference has it


def words_of(translator: StreamingTranslator, recording: Path, reference: str) -> Words:
    """The words that the model writes for a recording."""
    try:
        with open_audio(recording) as stream:
            samples = np.concatenate([np.zeros(0, np.float32), *stream])
    except AudioError as error:
        raise SystemExit(f"error: {error}") from error
    output = translator.step(samples, translator.init_state(), is_last=True)
    left = Counter(normalise(reference).split())
    found: Words = []
    for word in output.words:
        for spelt in normalise(word.text).split():
            found.append((math.log(max(word.confidence, 1e-30)), left[spelt] > 0))
            left[spelt] -= 1
    return found


def fit(words: Words) -> Confidence:
    """Slope and offset with the greatest likelihood."""
    x = torch.tensor([log_prob for log_prob, _ in words], dtype=torch.float64)
    y = torch.tensor([float(right) for _, right in words], dtype=torch.float64)
    parameters = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([parameters], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        # A little weight decay keeps both finite where the two kinds don't overlap.
        loss = torch.nn.functional.binary_cross_entropy_with_logits(parameters[0] * x + parameters[1], y)
        loss = loss + 1e-4 * parameters.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    slope, offset = parameters.tolist()
    return Confidence(slope, offset)


def calibration_error(words: Words, confidence: Confidence) -> float:
    """Mean distance between what is said and what is, over bins of what is said."""
    bins: list[list[tuple[float, bool]]] = [[] for _ in range(BINS)]
    for log_prob, right in words:
        said = confidence.of([log_prob])
        bins[min(BINS - 1, int(said * BINS))].append((said, right))
    return sum(abs(sum(said for said, _ in b) - sum(right for _, right in b)) for b in bins) / len(words)


def discrimination(words: Words) -> float:
    """The chance that a word that is right has the higher probability than one that is wrong (area under the ROC)."""
    ranked = sorted(words)
    wrong_before = below = 0.0
    right = sum(is_right for _, is_right in words)
    start = 0
    while start < len(ranked):
        end = start
        while end < len(ranked) and ranked[end][0] == ranked[start][0]:
            end += 1
        rights = sum(is_right for _, is_right in ranked[start:end])
        wrongs = end - start - rights
        below += rights * (wrong_before + wrongs / 2)
        wrong_before += wrongs
        start = end
    return below / max(1, right * (len(words) - right))


def report(words: Words, confidence: Confidence) -> str:
    """Words and their share that is right, by what the model says."""
    lines = ["says      words   right"]
    for low in range(0, 100, 100 // BINS):
        among = [right for log_prob, right in words if low <= 100 * confidence.of([log_prob]) < low + 100 // BINS]
        if among:
            lines.append(f"{low:3d} to {low + 100 // BINS:3d} {len(among):6d}  {100 * sum(among) / len(among):5.1f} %")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="Fit a model's confidence in its words on a development set.")
    parser.add_argument("--model", type=Path, required=True, help="folder with model.yaml")
    parser.add_argument(
        "--set", dest="sets", action="append", required=True, metavar="SOURCE=TARGET", help="two lists, as SimulEval's"
    )
    parser.add_argument("--segment-ms", type=int, default=DEFAULT_SEGMENT_MS, help="(default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="(default: %(default)s)")
    parser.add_argument("--write", action="store_true", help="put what was found into model.yaml")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    if not (args.model / SETTINGS_NAME).is_file():
        raise SystemExit(f"error: no {SETTINGS_NAME} in {args.model} (--model)")
    pairs: list[tuple[str, str]] = []
    for text in args.sets:
        lists = [Path(part) for part in text.partition("=")[::2]]
        if missing := [path for path in lists if not path.is_file()]:
            raise SystemExit(f"error: no list {missing[0]} (--set SOURCE=TARGET)")
        sources, targets = (text_lines(path) for path in lists)
        if len(sources) != len(targets):
            raise SystemExit(f"error: {lists[0]} has {len(sources)} lines, {lists[1]} has {len(targets)}")
        pairs += zip(sources, targets, strict=True)
    try:
        translator = StreamingTranslator.from_checkpoint(
            args.model, task="s2tt", segment_ms=args.segment_ms, least_language=0.0, least_confidence=0.0
        )
    except ValueError as error:
        raise SystemExit(f"error: {error}") from error
    translator.writer.confidence = Confidence()
    halves: list[Words] = [[], []]
    for number, (recording, reference) in enumerate(require("tqdm").tqdm(pairs, desc="translating", unit="utt")):
        halves[number % 2] += words_of(translator, Path(recording), reference)
    words = halves[0] + halves[1]
    if len(words) < LEAST_WORDS or not all(halves):
        raise SystemExit(f"error: {len(words)} words were written, {LEAST_WORDS} are needed: give more recordings")
    found = fit(words)
    print(f"{len(words)} words of {len(pairs)} recordings, {100 * sum(r for _, r in words) / len(words):.1f} % right")
    print(f"told apart: {100 * discrimination(words):.1f} % of the pairs of a right and a wrong word")
    own, fitted = (
        sum(calibration_error(half, chosen) * len(half) for half, chosen in zip(halves, both, strict=True)) / len(words)
        for both in ([Confidence()] * 2, [fit(halves[1]), fit(halves[0])])
    )
    print(f"calibration error: {100 * own:.1f} % as the decoder says, {100 * fitted:.1f} % fitted on the other half")
    print(report(words, found))
    values = {"confidence_slope": round(found.slope or 0, 4), "confidence_offset": round(found.offset or 0, 4)}
    print(yaml.safe_dump(values, sort_keys=False).strip())
    if args.write:
        file = args.model / SETTINGS_NAME
        write_text(file, yaml.safe_dump({**read_settings(file), **values}, sort_keys=False))
        renew_digest(args.model, SETTINGS_NAME)


if __name__ == "__main__":
    main()
