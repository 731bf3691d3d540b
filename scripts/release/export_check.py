"""Whether an exported model still is the model: its logits, its translations, its speech."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch

from echostream.constants import DEFAULT_SEGMENT_MS
from echostream.evaluation.quality import bleu
from echostream.streaming import StreamingTranslator
from echostream.text import text_lines

SEGMENT_MS = DEFAULT_SEGMENT_MS
# Rounding to bytes moves logits by 1 % of their size, in root mean square, and single ones by ten times that; a tensor
# gone wrong moves most of them by their size.
LARGEST_SHARE = 0.05


def compare(original: Path, vocoder: Path, exported: Path, lists: Path, sentences: int) -> dict[str, Any]:
    """Compare two checkpoints of one model on the first ``sentences`` of a folder of lists.

    ``vocoder`` is the original's, ``exported`` the folder of the other, which says how both are played.

    Returns:
        ``logit_difference``: the largest of both CTC heads, ``logit_size``: the largest logit itself, ``logit_error``:
        root mean square of the differences over that of the logits, ``same``: translations that are word for word the
        same at 320 ms segments, and BLEU of either.

    Raises:
        ValueError: a model that can't be loaded, or logits that differ by more than rounding explains.
    """
    files = [lists / name for name in ("source.txt", "target.txt")]
    if missing := [path for path in files if not path.is_file()]:
        raise ValueError(f"nothing to check the export with: {missing[0]} is missing (--check-set)")
    sources, references = (text_lines(path)[:sentences] for path in files)
    second = StreamingTranslator.from_checkpoint(exported, segment_ms=SEGMENT_MS)
    ahead = second.right_context_frames
    options = {"segment_ms": SEGMENT_MS, "beam": second.writer.beam, "right_context_frames": ahead}
    first = StreamingTranslator.from_checkpoint(original, vocoder=vocoder, **options)
    first.set_policy(second.policy)
    models = [first, second]
    difference = size = squares = all_squares = 0.0
    texts: list[list[str]] = [[], []]
    for source in sources:
        samples, _ = soundfile.read(source, dtype="float32")
        left, right = (logits(model, samples) for model in models)
        difference = max(difference, float((left - right).abs().max()))
        size = max(size, float(left.abs().max()))
        squares += float((left - right).square().sum())
        all_squares += float(left.square().sum())
        for model, said in zip(models, texts, strict=True):
            said.append(model.step(samples, model.init_state(), is_last=True).text.strip())
    error = (squares / max(all_squares, 1e-30)) ** 0.5
    if not error <= LARGEST_SHARE:
        raise ValueError(f"the exported model is another: its logits differ from the original's by {100 * error:.0f} %")
    return {
        "sentences": len(sources),
        "segment_ms": SEGMENT_MS,
        "logit_difference": round(difference, 6),
        "logit_size": round(size, 3),
        "logit_error": round(error, 6),
        "same": sum(a == b for a, b in zip(*texts, strict=True)),
        "bleu_original": round(bleu(texts[0], references), 2),
        "bleu_exported": round(bleu(texts[1], references), 2),
    }


@torch.inference_mode()
def logits(translator: StreamingTranslator, samples: np.ndarray) -> torch.Tensor:
    """Logits of both CTC heads for one recording, ``(T, source vocabulary + target vocabulary)``."""
    features, _ = translator.model.fbank(torch.from_numpy(samples), translator.model.fbank.init_state())
    lengths = torch.tensor([len(features)])
    encoded = translator.model.encode(features[None], lengths, segment=SEGMENT_MS // translator.model.frame_ms)
    return torch.cat([encoded["asr_logits"][0], encoded["st_logits"][0]], dim=-1)
