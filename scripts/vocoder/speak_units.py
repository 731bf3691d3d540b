"""Speak units: `python scripts/vocoder/speak_units.py --units generate-test.unit --vocoder DIR --output wavs`.

The last step of offline speech-to-speech translation: line N of the file, as `fairseq-generate --generate s2ut` writes
it, becomes `wavs/N_pred.wav`, counted from 0 as SimulEval's and fairseq's are. Units that follow each other are merged,
and the vocoder gives each its duration.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path

import soundfile
import torch

from echostream.checkpoints.vocoder_files import load_vocoder
from echostream.text import text_lines
from echostream.vocoders.interface import UnitVocoder, VocoderError


def read_units(path: Path, num_units: int) -> list[list[int]]:
    """The units of each line, repeats merged.

    Raises:
        ValueError: a line holds something else than the numbers of units.
    """
    lines = []
    for number, line in enumerate(text_lines(path), start=1):
        wrong = next((word for word in line.split() if not word.isdecimal() or int(word) >= num_units), None)
        if wrong is not None:
            raise ValueError(f"{path}: line {number}: {wrong!r} is not a unit of the vocoder, 0 to {num_units - 1}")
        lines.append([unit for unit, _ in itertools.groupby(map(int, line.split()))])
    return lines


def speak(vocoder: UnitVocoder, units: list[int]) -> torch.Tensor:
    """Samples ``(n,)`` of one line of units; none for an empty one."""
    output, _ = vocoder.step(torch.tensor(units, dtype=torch.int64), vocoder.init_state(), is_last=True)
    return output.samples


def main(arguments: list[str] | None = None) -> None:
    """The command line.

    Raises:
        SystemExit: files that are missing or don't fit each other.
    """
    parser = argparse.ArgumentParser(description="Speak a file of units, a recording for each line.")
    # The other spellings are those of fairseq's generate_waveform_from_code.py: its command lines go on working.
    parser.add_argument("--units", "--in-code-file", type=Path, required=True, help="units separated by spaces")
    parser.add_argument("--vocoder", type=Path, required=True, help="directory or checkpoint, config.json beside it")
    parser.add_argument("--output", "--results-path", type=Path, required=True, help="folder for the recordings")
    parser.add_argument("--vocoder-cfg", type=Path, help="its config.json, if that lies elsewhere")
    parser.add_argument("--dur-prediction", action="store_true", help="durations are always predicted: no effect")
    parser.add_argument("--device", default="cpu", help="cpu (default), cuda, ...")
    args = parser.parse_args(arguments)
    try:
        vocoder = load_vocoder(args.vocoder, args.device, config=args.vocoder_cfg)
        lines = read_units(args.units, vocoder.num_units)
        args.output.mkdir(parents=True, exist_ok=True)
        for number, units in enumerate(lines):
            samples = speak(vocoder, units).cpu().numpy()
            soundfile.write(args.output / f"{number}_pred.wav", samples, vocoder.sample_rate)
    except (VocoderError, ValueError, OSError) as error:
        raise SystemExit(f"error: {error}") from error
    print(f"{len(lines)} recordings in {args.output}")


if __name__ == "__main__":
    main()
