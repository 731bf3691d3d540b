"""How a vocoder sounds on recordings that it was not trained on: distance of the mel spectra, and what an ASR reads.

    python evaluate_vocoder.py --vocoder DIR --table held_out.tsv --audio-root DIR --out evaluation.json

The mel distance is taken where the units last as long as in the recording, so that both have the same time axis. What
the ASR reads has the vocoder's own durations, as translations will have them.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import soundfile
import torch
from torch import Tensor
from torchaudio.functional import resample

from echostream.checkpoints.vocoder_files import load_vocoder
from echostream.constants import SAMPLE_RATE
from echostream.text import word_errors
from echostream.vocoders.interface import UnitVocoder, VocoderError, deduplicate
from echostream.vocoders.spectral_loss import SpectralLoss
from scripts.vocoder.unit_corpus import parse_units, read_audio, read_table

if TYPE_CHECKING:
    from echostream.evaluation.asr import Transcriber

from scripts.files import atomic_path, write_text
from scripts.speech.text_normalization import normalize_text

# Flushed so often, a stream is about as one of words.
UNITS_PER_FLUSH = 10
TRANSCRIPTS = "transcripts.jsonl"


@dataclass(frozen=True)
class HeldOut:
    """A recording: samples float32 ``(n,)``, units without repeats and their durations ``(T,)``, and its text."""

    id: str
    text: str
    wave: Tensor
    units: Tensor
    durations: Tensor


def read_held_out(table: Path, audio_root: Path, vocoder: UnitVocoder, limit: int | None = None) -> list[HeldOut]:
    """Rows of a table with the columns id, audio, units and, where texts are known, text.

    Raises:
        VocoderError: naming the line or file that does not fit, or an empty table.
    """
    recordings = []
    for row in read_table(table)[:limit]:
        units, durations = deduplicate(parse_units(row, vocoder.num_units))
        wave = torch.from_numpy(read_audio(audio_root / row["audio"], vocoder.sample_rate)).float() / 32768
        if len(units):
            recordings.append(HeldOut(row["id"], row.get("text") or "", wave, units, durations))
    if not recordings:
        raise VocoderError(f"{table} lists no recordings to evaluate on")
    return recordings


def find_transcriber(model: str | None, language: str, cache: Path) -> Transcriber | None:
    """The speech recogniser; None, and a line that says so, if none was asked for and none is there.

    Raises:
        VocoderError: the one that was asked for is not there.
    """
    # Imported here: SimulEval, which comes along, takes seconds that a training without evaluation need not wait.
    from echostream.evaluation.asr import Transcriber, find_model
    from echostream.evaluation.spoken_form import spoken_form

    try:
        spoken_form(language)
        return Transcriber(find_model(model, language), language, cache)
    except ValueError as error:
        if model is not None:
            raise VocoderError(str(error)) from error
        print(f"word error rates are left out: {error}", flush=True)
        return None


class Evaluation:
    """What there is to compare with, ready for any number of vocoders.

    Args:
        recordings: held-out ones.
        sample_rate: theirs and the vocoders', Hz.
        transcriber: None leaves word error rates out, as do recordings without texts.
    """

    def __init__(self, recordings: list[HeldOut], sample_rate: int, transcriber: Transcriber | None) -> None:
        self.recordings, self.sample_rate = recordings, sample_rate
        self.loss = SpectralLoss(sample_rate)
        self.transcriber = transcriber if any(recording.text for recording in recordings) else None

    @torch.no_grad()
    def quick(self, vocoder: UnitVocoder) -> dict[str, float | None]:
        """Mel distance (dB), error of the durations (frames), tempo, word error rate (%) of whole utterances."""
        distances, waves, wanted, got = [], [], [], []
        for recording in self.recordings:
            made, _ = vocoder(recording.units[None], recording.durations[None])
            samples = min(made.size(1), len(recording.wave))
            distances.append(self.loss.mel_distance_db(made[0, :samples], recording.wave[:samples]))
            spoken, durations = vocoder(recording.units[None])
            waves.append(spoken[0])
            wanted.append(recording.durations)
            got.append(durations[0])
        durations, predicted = torch.cat(wanted).double(), torch.cat(got).double()
        return {
            "mel_distance_db": sum(distances) / len(distances),
            "duration_error_frames": (predicted - durations).abs().mean().item(),
            "tempo": (durations.sum() / predicted.sum()).item(),
            "wer": self.word_error_rate(waves),
        }

    @torch.no_grad()
    def full(self, vocoder: UnitVocoder, samples: Path | None = None) -> dict[str, float | None]:
        """:meth:`quick`, and the word error rates of what bounds it: streams, true durations and the recordings.

        ``samples``: folder for the streamed speech, ``<id>.wav``.
        """
        scores = self.quick(vocoder)
        streams = [self._stream(vocoder, recording.units) for recording in self.recordings]
        true = [vocoder(r.units[None], r.durations[None])[0][0] for r in self.recordings]
        if samples is not None:
            for recording, wave in zip(self.recordings, streams, strict=True):
                with atomic_path(samples / f"{recording.id}.wav") as path:
                    soundfile.write(path, wave.clamp(-1, 1).numpy(), self.sample_rate)
        return scores | {
            "wer_streamed": self.word_error_rate(streams),
            "wer_true_durations": self.word_error_rate(true),
            "wer_recordings": self.word_error_rate([recording.wave for recording in self.recordings]),
        }

    def _stream(self, vocoder: UnitVocoder, units: Tensor) -> Tensor:
        state = vocoder.init_state()
        samples = []
        for piece in units.split(UNITS_PER_FLUSH):
            output, state = vocoder.step(piece, state, flush=True)
            samples.append(output.samples)
        output, _ = vocoder.step(units[:0], state, is_last=True)
        return torch.cat([*samples, output.samples])

    def word_error_rate(self, waves: list[Tensor]) -> float | None:
        """Word errors in percent of the words of the texts; None without texts or recogniser."""
        if self.transcriber is None:
            return None
        from echostream.evaluation.spoken_form import spoken_form

        write = spoken_form(self.transcriber.language)
        heard, said = [], []
        for recording, wave in zip(self.recordings, waves, strict=True):
            if recording.text:
                samples = resample(wave, self.sample_rate, SAMPLE_RATE).numpy()
                heard.append(normalize_text(write(self.transcriber(samples))))
                said.append(normalize_text(write(recording.text)))
        errors, words = word_errors(heard, said)
        return 100 * errors / words if words else None


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Evaluate a unit vocoder on recordings it was not trained on.")
    parser.add_argument("--vocoder", type=Path, required=True, help="folder with config.json and weights")
    parser.add_argument("--table", type=Path, required=True, help="TSV: id, audio, units (with repeats), text")
    parser.add_argument("--audio-root", type=Path, required=True, help="folder that the audio paths start from")
    parser.add_argument("--language", default="en", help="two-letter code of the speech (default: %(default)s)")
    parser.add_argument("--asr-model", help="base, tiny.en or a CTranslate2 Whisper folder (default: best installed)")
    parser.add_argument("--out", type=Path, required=True, help="JSON file for the scores")
    parser.add_argument("--samples", type=Path, help="folder for the streamed speech")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    try:
        vocoder = load_vocoder(args.vocoder)
        args.out.parent.mkdir(parents=True, exist_ok=True)
        transcriber = find_transcriber(args.asr_model, args.language, args.out.parent / TRANSCRIPTS)
        recordings = read_held_out(args.table, args.audio_root, vocoder)
        evaluation = Evaluation(recordings, vocoder.sample_rate, transcriber)
        scores: dict[str, object] = {"recordings": len(evaluation.recordings)}
        scores |= {"asr": evaluation.transcriber.name if evaluation.transcriber else None}
        scores |= evaluation.full(vocoder, args.samples)
    except VocoderError as error:
        raise SystemExit(f"error: {error}") from error
    write_text(args.out, json.dumps(scores, indent=1) + "\n")
    for name, value in scores.items():
        print(f"{name:24}{f'{value:.3f}' if isinstance(value, float) else value}", flush=True)


if __name__ == "__main__":
    main()
