"""fairseq's own task speech_to_text trains its Transformer with the speech encoder, and translates with it."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PIECES = ("▁a", "▁b", "c", "▁d", "e", ".")
TASK = ["--user-dir", "echostream", "--task", "speech_to_text", "--cpu", "--num-workers", "0"]
# fairseq takes nothing of a last batch whose size is no multiple of 8.
TASK += ["--max-tokens", "4000", "--required-batch-size-multiple", "1"]
MODEL = ["--arch", "echostream_s2t_transformer", "--echostream-arch", "echostream_tiny", "--echostream-segment", "4"]
MODEL += ["--decoder-layers", "1", "--decoder-ffn-embed-dim", "32", "--decoder-attention-heads", "2"]
TRAINING = ["--criterion", "label_smoothed_cross_entropy", "--label-smoothing", "0.1", "--max-update", "2"]
TRAINING += ["--optimizer", "adam", "--lr", "1e-3", "--valid-subset", "dev", "--no-progress-bar"]
BOTH = """\
import sys
import fairseq_cli.generate, fairseq_cli.train
sys.argv = {train}
fairseq_cli.train.cli_main()
sys.argv = {generate}
fairseq_cli.generate.cli_main()
"""


@pytest.fixture
def manifests(tmp_path: Path) -> Path:
    """A data set in the form of fairseq's speech_to_text: stored features and subwords, 6 and 3 utterances."""
    random = np.random.default_rng(0)
    for split, size in (("train", 6), ("dev", 3)):
        rows = ["id\taudio\tn_frames\ttgt_text"]
        for index in range(size):
            frames = int(random.integers(40, 100))
            name = f"{split}_{index}"
            np.save(tmp_path / f"{name}.npy", random.normal(size=(frames, 80)).astype("float32"))
            rows.append(f"{name}\t{name}.npy\t{frames}\t{' '.join(random.choice(PIECES, 3))}")
        (tmp_path / f"{split}.tsv").write_text("\n".join([*rows, ""]), encoding="utf-8")
    (tmp_path / "dict.txt").write_text("".join(f"{piece} 1\n" for piece in PIECES), encoding="utf-8")
    config = f"audio_root: {tmp_path}\ninput_feat_per_channel: 80\n"
    (tmp_path / "config.yaml").write_text(config, encoding="utf-8")
    return tmp_path


def test_fairseq_trains_and_generates_with_the_speech_encoder(manifests):
    """Both commands in one process of their own, which imports fairseq once."""
    save = manifests / "save"
    train = ["fairseq-train", str(manifests), *TASK, *MODEL, *TRAINING, "--save-dir", str(save)]
    generate = ["fairseq-generate", str(manifests), *TASK, "--path", str(save / "checkpoint_last.pt")]
    generate += ["--gen-subset", "dev", "--max-len-b", "5"]
    command = [sys.executable, "-c", BOTH.format(train=train, generate=generate)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert "(encoder): EchoStreamFairseqSpeechEncoder(" in said
    assert "num_updates: 2 >= max_update: 2" in said and "valid on 'dev' subset" in said
    assert "Translated 3 sentences" in said
