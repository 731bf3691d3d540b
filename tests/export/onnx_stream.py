"""A stream through the files of an export, and the same stream through torch: what each gives at every step."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import torch

from echostream.constants import SAMPLE_RATE
from echostream.decoding.target_tokens import END
from echostream.models import EchoStreamModel
from echostream.vocoders.interface import remaining_frames
from echostream.vocoders.istft import ISTFTVocoder

CLOSE = 1e-4  # of the largest value of its kind
EVERY = 8  # steps, after which some words are written and spoken
LONGEST_WORD = 4
Arrays = dict[str, np.ndarray]


class Files:
    """The graphs of a folder; a call takes states by name and gives the outputs, and writes the next states."""

    def __init__(self, folder: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.add_session_config_entry("session.disable_quant_qdq", "1")
        self.about = json.loads((folder / "echostream.json").read_text(encoding="utf-8"))
        self.sessions = {
            path.stem: onnxruntime.InferenceSession(str(path), options) for path in sorted(folder.glob("*.onnx"))
        }

    def call(self, name: str, states: Arrays, **given: np.ndarray) -> Arrays:
        session = self.sessions[name]
        feed = {value.name: (states | given)[value.name] for value in session.get_inputs()}
        found = dict(zip([value.name for value in session.get_outputs()], session.run(None, feed), strict=True))
        states |= {name.removeprefix("next."): value for name, value in found.items() if name.startswith("next.")}
        return {name: value for name, value in found.items() if not name.startswith("next.")}


def by_files(folder: Path, samples: np.ndarray, tokens: list[list[int]]) -> Iterator[Arrays]:
    """What the files give, step by step; ``tokens`` are the words written, each after ``EVERY`` steps."""
    files = Files(folder)
    about = files.about
    states = files.call("start", {})
    part, size, sentence, step, previous, carry = "encoder_start", about["first_samples"], [], 0, END, 0.0
    words = iter(tokens)
    while len(samples) >= size:
        (frames,) = files.call(part, states, samples=samples[:size]).values()
        samples, part, size, step = samples[size:], "encoder", about["step_samples"], step + 1
        found = {"frames": frames}
        for head in ("asr_head", "st_head"):
            found |= files.call(head, states, frames=frames)
        sentence.append(frames)
        if step % EVERY == 0 and (word := next(words, None)) is not None:
            seen = np.concatenate(sentence, axis=1)[:, -about["mt_window_frames"] :]
            logits, hidden = [], []
            for token in word:
                read = files.call("mt_decoder", states, token=np.array([[previous]]), frames=seen)
                logits.append(read["mt_logits"])
                hidden.append(read["hidden"])
                previous = token
            text = np.concatenate(hidden, axis=1)
            found |= {"mt_logits": np.concatenate(logits, axis=1), "hidden": text}
            found |= files.call("unit_decoder", states, tokens=np.array([word]), hidden=text)
            if "vocoder" in about:
                samples_of, durations, carry = _speak(files, states, np.array(units_of(word)), carry)
                found |= {"samples": samples_of, "durations": durations}
        yield found


def _speak(files: Files, states: Arrays, units: np.ndarray, carry: float) -> tuple[np.ndarray, np.ndarray, float]:
    """Samples of one word, the durations of its units, and the rounding error for the next word."""
    about, durations = files.about["vocoder"], []
    for frames in files.call("vocoder_durations", states, units=units)["durations"].tolist():
        whole = min(max(round(frames + carry), 1), about["max_unit_frames"])
        if about["carries_rounding"]:
            carry = min(max(frames + carry - whole, -0.5), 0.5)
        durations.append(whole)
    remaining = np.minimum(remaining_frames(torch.tensor(durations)).numpy(), about["max_remaining"])
    (wave,) = files.call("vocoder", states, units=np.repeat(units, durations), remaining=remaining).values()
    return wave, np.array(durations), carry


def units_of(word: list[int]) -> list[int]:
    """Units to be spoken for a word: any do, without repeats, and another number of them for other words."""
    return [(3 * token + 7 * index) % 29 for index, token in enumerate(word)] if len(word) > 1 else [word[0] % 29]


@torch.inference_mode()
def by_torch(
    model: EchoStreamModel,
    vocoder: ISTFTVocoder | None,
    samples: np.ndarray,
    tokens: list[list[int]],
    segment: int,
    ahead: int | None = None,
) -> Iterator[Arrays]:
    """The same by the modules of the runtime."""
    features, encoder = model.fbank, model.encoder
    right_context = model.cfg.right_context_frames if ahead is None else ahead
    of_features, of_encoder = features.init_state(), encoder.init_state()
    asr, st = model.asr_head.init_state(), model.st_head.init_state()
    mt, unit = model.mt_decoder.init_state(), model.unit_decoder.init_state()
    voice = vocoder.init_state() if vocoder is not None else None
    sentence, step, previous, words = [], 0, END, iter(tokens)
    while True:
        size = features.missing_samples(encoder.missing_features(segment, right_context, of_encoder), of_features)
        if len(samples) < size:
            return
        vectors, of_features = features(torch.from_numpy(samples[:size]), of_features)
        frames, _, of_encoder = encoder(
            vectors[None], state=of_encoder, segment=segment, right_context=right_context, is_last=False
        )
        samples, step = samples[size:], step + 1
        asr_logits, asr = model.asr_head(frames, asr)
        st_logits, st = model.st_head(frames, st)
        found = {"frames": frames, "asr_logits": asr_logits, "st_logits": st_logits}
        sentence.append(frames)
        if step % EVERY == 0 and (word := next(words, None)) is not None:
            seen = torch.cat(sentence, dim=1)[:, -model.mt_decoder.window_frames :]
            before = torch.tensor([[previous, *word[:-1]]])
            there = torch.tensor([seen.size(1)])
            memory, mask = model.mt_decoder.attended(seen, there, there.expand(1, len(word)))
            hidden, mt_logits, mt = model.mt_decoder(before, memory, mask, mt)
            text = model.text_states(hidden, torch.tensor([word]))
            unit_logits, unit = model.unit_decoder(text, torch.zeros(1, len(word), dtype=torch.int64), unit)
            previous = word[-1]
            found |= {"mt_logits": mt_logits, "hidden": hidden, "unit_logits": unit_logits}
            if vocoder is not None and voice is not None:
                spoken, voice = vocoder.step(torch.tensor(units_of(word)), voice, flush=True)
                found |= {"samples": spoken.samples, "durations": spoken.durations}
        yield {name: value.numpy() for name, value in found.items()}


def words_for(seconds: float, step_s: float, vocabulary: int) -> list[list[int]]:
    """Words for a stream: one of each length in turn, of other tokens each time."""
    count = int(seconds / step_s) // EVERY
    numbers = np.random.default_rng(1).integers(4, vocabulary, (count, LONGEST_WORD)).tolist()
    return [row[: 1 + index % LONGEST_WORD] for index, row in enumerate(numbers)]


def compare(
    folder: Path,
    model: EchoStreamModel,
    vocoder: ISTFTVocoder | None,
    samples: np.ndarray,
    ahead: int | None = None,
) -> dict[str, int]:
    """Assert that files and torch give the same throughout; how often each kind of output was compared.

    ``ahead`` is the look-ahead of the files in encoder frames; None: the trained one.
    """
    about = Files(folder).about
    segment = about["step_samples"] * 1000 // SAMPLE_RATE // model.frame_ms
    words = words_for(len(samples) / SAMPLE_RATE, about["step_samples"] / SAMPLE_RATE, len(about["target_symbols"]))
    expected = list(by_torch(model, vocoder, samples, words, segment, ahead))
    found = list(by_files(folder, samples, words))
    assert len(found) == len(expected)
    counts: dict[str, int] = {}
    for name in expected[-1] | next(step for step in expected if "mt_logits" in step):
        largest = max(np.abs(step[name]).max() for step in expected if name in step)
        assert largest > 0, f"{name} is nothing but zeros"
        for number, (ours, theirs) in enumerate(zip(found, expected, strict=True)):
            assert (name in ours) == (name in theirs)
            if name in ours:
                assert ours[name].shape == theirs[name].shape, f"{name} of step {number}"
                distance = np.abs(ours[name].astype(np.float64) - theirs[name]).max()
                assert distance <= CLOSE * largest, f"{name} of step {number} differs by {distance / largest:.1e}"
                counts[name] = counts.get(name, 0) + 1
    return counts
