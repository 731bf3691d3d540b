"""Translation of encoded utterances as a stream would have made it: prefix to prefix, under the policy.

Validation encodes whole batches, and what the encoder and the CTC heads say of a segment there is what they say in a
stream. Only the text decoder has to go through the utterance segment by segment, with the runtime's own parts.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from fairseq.data import Dictionary
from torch import Tensor

from echostream.decoding.policy import UNLIMITED, Policy
from echostream.decoding.word_boundary import WordBoundaryDetector
from echostream.modules.ctc import CTCReader
from echostream.streaming.source_span import Heard
from echostream.streaming.word_level_translator import TargetWord, WordLevelTranslator


@torch.no_grad()
def translate_as_streamed(
    model: Any, encoded: dict[str, Tensor], segment: int, source: Dictionary, target: Dictionary, policy: Policy
) -> list[str]:
    """One translation an utterance, each taken as one sentence.

    Args:
        model: in evaluation mode.
        encoded: what it answered with ``segment``: ``encoder_out (B, T, D)``, ``asr_logits`` and ``st_logits (B, T,
            ...)``, ``frame_lengths (B,)``.
        segment: in 40 ms frames; 0: the whole utterance.
        source, target: dictionaries.
        policy: says when to write and how much.
    """
    writer = WordLevelTranslator(model, target.symbols)
    writer.overdue_tokens = math.inf
    detector = WordBoundaryDetector(source.symbols)
    heard_classes, target_classes = (encoded[name].argmax(-1).tolist() for name in ("asr_logits", "st_logits"))
    texts = []
    for row, length in enumerate(encoded["frame_lengths"].tolist()):
        sentence, heard, reader = writer.init_state(), detector.init_state(), CTCReader()
        words: list[TargetWord] = []
        step = segment or length
        for start in range(0, length, step):
            end = min(length, start + step)
            finished = detector.read(heard_classes[row][start:end], heard, is_last=end == length)
            read = [start + frame for frame, _ in reader.read(target_classes[row][start:end])]
            frames = encoded["encoder_out"][row : row + 1, start:end]
            writer.listen(Heard(frames, end, [word.frames for word in finished], heard.tokens, read), sentence)
            budget = writer.decide(policy, sentence)
            if budget is not None or end == length:
                words += writer.write(budget or UNLIMITED, sentence, is_last=end == length, with_units=False)
        texts.append("".join(word.text if word.joined else f" {word.text}" for word in words if word.text).strip())
    return texts
