"""A tiny corpus in StreamSpeech's format, with noise instead of speech."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile

import echostream.tasks  # noqa: F401  (registers with fairseq, whichever test runs first)

SOURCE = ("▁bon", "jour", "▁le", "▁monde", "▁mer", "ci", "▁à", "▁tous")
TARGET = ("▁hello", "▁wor", "ld", "▁thank", "s", "▁to", "▁all", ".")
NUM_UNITS = 20

GCMVN = """\
audio_root: {audio_root}
global_cmvn:
  stats_npz_path: gcmvn.npz
input_channels: 1
input_feat_per_channel: 80
specaugment:
  freq_mask_F: 27
  freq_mask_N: 1
  time_mask_N: 1
  time_mask_T: 10
  time_mask_p: 1.0
  time_wrap_W: 0
transforms:
  '*':
  - global_cmvn
  _train:
  - global_cmvn
  - specaugment
vocoder:
  type: code_hifigan
"""

MULTITASK = """\
target_unigram:
  decoder_type: transformer
  dict: target.txt
  data: target
  loss_weight: 8.0
  rdrop_alpha: 0.0
  label_smoothing: 0.1
  decoder_args:
    decoder_layers: 4
source_unigram:
  decoder_type: ctc
  dict: source.txt
  data: source
  loss_weight: 4.0
ctc_target_unigram:
  decoder_type: ctc
  dict: target.txt
  data: target
  loss_weight: 4.0
"""


@dataclass
class Corpus:
    """A data folder; ``edit`` rewrites one of its text files."""

    folder: Path

    def edit(self, name: str, change: Callable[[str], str]) -> None:
        path = self.folder / name
        path.write_text(change(path.read_text(encoding="utf-8")), encoding="utf-8")

    def replace(self, name: str, old: str, new: str) -> None:
        def change(text: str) -> str:
            assert old in text
            return text.replace(old, new, 1)

        self.edit(name, change)


def write_split(folder: Path, split: str, size: int, rng: np.random.Generator) -> None:
    """``size`` utterances of 0.4 to 1 s with random texts and units."""
    speech, source, target = [], [], []
    for i in range(size):
        samples = int(16000 * rng.uniform(0.4, 1.0))
        name = f"{split}_{i}"
        soundfile.write(folder / "audio" / f"{name}.wav", rng.normal(0, 0.1, samples).astype("float32"), 16000)
        frames = 1 + (samples - 400) // 160
        units = " ".join(map(str, rng.integers(0, NUM_UNITS, rng.integers(5, 12))))
        speech.append(f"{name}\t{name}.wav\t{frames}\t{units}\t{len(units.split())}")
        source.append(f"{name}\t{' '.join(rng.choice(SOURCE, rng.integers(2, 5)))}")
        target.append(f"{name}\t{' '.join(rng.choice(TARGET, rng.integers(2, 5)))}")
    header = "id\tsrc_audio\tsrc_n_frames\ttgt_audio\ttgt_n_frames"
    (folder / f"{split}.tsv").write_text("\n".join([header, *speech, ""]), encoding="utf-8")
    for side, lines in (("source", source), ("target", target)):
        (folder / side / f"{split}.tsv").write_text("\n".join(["id\ttgt_text", *lines, ""]), encoding="utf-8")


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    """Six training utterances and three validation utterances."""
    folder = tmp_path / "data"
    for name in ("audio", "source", "target"):
        (folder / name).mkdir(parents=True)
    rng = np.random.default_rng(0)
    write_split(folder, "train", 6, rng)
    write_split(folder, "dev", 3, rng)
    np.savez(folder / "gcmvn.npz", mean=np.full(80, 10.0, "float32"), std=np.full(80, 2.0, "float32"))
    for side, pieces in (("source", SOURCE), ("target", TARGET)):
        (folder / f"{side}.txt").write_text("".join(f"{p} 1\n" for p in pieces), encoding="utf-8")
    (folder / "config_gcmvn.yaml").write_text(GCMVN.format(audio_root="audio"), encoding="utf-8")
    (folder / "config_multitask.yaml").write_text(MULTITASK, encoding="utf-8")
    return Corpus(folder)
