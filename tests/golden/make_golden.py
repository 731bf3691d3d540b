"""What the tiny model gives, to compare versions with: ``python tests/golden/make_golden.py --write`` makes it anew.

Weights and audio are made of Philox's raw output (tests/tiny_translator.py), so that only what is computed from them is
stored. Write anew only where a change of the numbers is meant, and say in the commit why.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch

FOLDER = Path(__file__).parent
sys.path.insert(0, str(FOLDER.parent))  # as pytest has it

from tiny_translator import VOCODERS, make_model, make_translator, make_vocoder, noise  # noqa: E402

NUMBERS, WORDS = FOLDER / "numbers.npz", FOLDER / "words.json"
SECONDS = 1.5
PUSH_SAMPLES = 3_001
POLICIES = {"alignment": {}, "stride": {"stride_n": 2}, "wait-k": {"lag_k": 2}, "fixed-rate": {}}
UNITS = [3, 17, 4, 4, 29, 0, 11]


@torch.inference_mode()
def numbers(features: torch.Tensor | None = None) -> dict[str, np.ndarray]:
    """float32 arrays: features, both CTC heads, decoder states of a given text, and both vocoders.

    The model reads ``features`` if they are given: an FFT rounds relative to a frame's loudest band, so that the log of
    a quiet one is another on another processor, and all that is computed from it.
    """
    model = make_model()
    made = {"features": model.fbank(torch.from_numpy(noise(SECONDS)))[0]}
    features = (made["features"] if features is None else features)[None]
    for segment in (1, 8, 0):
        frames = model.encoder(features, segment=segment, right_context=1)[0]
        made[f"asr_logits_{segment}"] = model.asr_head(frames)[0][0, ::4]
        made[f"st_logits_{segment}"] = model.st_head(frames)[0][0, ::4]
    tokens = torch.tensor([[2, 7, 10, 30, 51]])
    hidden, logits, _ = model.mt_decoder(
        tokens,
        frames,
        model.mt_decoder.frame_mask(torch.tensor([frames.size(1)]), frames.size(1), torch.tensor([[4, 9, 9, 20, 30]])),
    )
    made["mt_logits"] = logits[0]
    made["unit_logits"] = model.unit_decoder(hidden, torch.tensor([[0, 1, 1, 2, 3]]))[0][0, ::3]
    for kind in VOCODERS:
        wave, durations = make_vocoder(kind)(torch.tensor([UNITS[:3] + UNITS[4:]]))
        made[f"{kind}_wave"], made[f"{kind}_durations"] = wave[0, ::7], durations[0].float()
    return {name: array.float().numpy() for name, array in made.items()}


def words() -> dict[str, list]:
    """Recognised and written words with their times, for each policy and segment size."""
    translator, made = make_translator("istft"), {}
    wave = noise(SECONDS, seed=1)
    for segment_ms in (40, 320, 0):
        for policy, options in POLICIES.items():
            view = translator.view(segment_ms=segment_ms, policy=policy, **options)
            state, heard, said, samples = view.init_state(), [], [], 0
            for at in range(0, wave.size, PUSH_SAMPLES):
                out = view.step(wave[at : at + PUSH_SAMPLES], state, is_last=at + PUSH_SAMPLES >= wave.size)
                heard += [[word.text, round(word.start_s, 3), round(word.end_s, 3)] for word in out.source_words]
                said += [[word.text, round(word.source_time_s, 3), round(word.end_s, 3)] for word in out.words]
                samples += out.samples.size
            made[f"{policy} {segment_ms}"] = [heard, said, samples]
    return made


def main() -> None:
    """Write the files, or print what has changed and by how much."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="replace the golden files by what is computed now")
    torch.set_num_threads(1)
    if parser.parse_args().write:
        np.savez_compressed(NUMBERS, **numbers())
        lines = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in words().items()]
        WORDS.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
        return
    with np.load(NUMBERS) as golden:
        for name, array in numbers(torch.from_numpy(golden["features"])).items():
            same = array.shape == golden[name].shape
            print(f"{name}: moved by {np.abs(array - golden[name]).max():.2g}" if same else f"{name}: another shape")
    golden_words = json.loads(WORDS.read_text(encoding="utf-8"))
    print(*(f"{name}: other words" for name, value in words().items() if value != golden_words.get(name)), sep="\n")


if __name__ == "__main__":
    main()
