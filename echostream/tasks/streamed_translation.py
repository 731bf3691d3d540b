"""Simulated streaming translation of encoded utterances: prefix to prefix, under the policy.

Validation encodes whole batches at once. With the same segment size, the encoder and the CTC heads compute exactly what
they would in a stream, so only the text decoder has to process the utterances segment by segment. It uses the
components of the streaming translator. The utterances write at times of their own, but read their next tokens in one
batch.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from fairseq.data import Dictionary
from torch import Tensor

from echostream.constants import SAMPLE_RATE, UNIT_SAMPLES
from echostream.decoding.joint_search import Search, decoder_passes, search_together
from echostream.decoding.policy import Policy
from echostream.decoding.word_boundary import WordBoundaryDetector
from echostream.streaming.recogniser import Recogniser
from echostream.streaming.recomposer import SentenceRecomposer
from echostream.streaming.sentence_stage import SentenceStage
from echostream.streaming.state import join_words
from echostream.streaming.word_level_translator import WordLevelTranslator


@torch.no_grad()
def translate_as_streamed(
    model: Any, encoded: dict[str, Tensor], segment: int, source: Dictionary, target: Dictionary, policy: Policy
) -> list[str]:
    """Translate each utterance as one sentence.

    Args:
        model: the model in evaluation mode.
        encoded: output of the model with ``segment``: ``encoder_out (B, T, D)``, ``asr_logits`` and ``st_logits (B, T,
            classes)``, ``frame_lengths (B,)``.
        segment: segment size in frames; 0: the whole utterance.
        source, target: dictionaries.
        policy: decides when to write, and how much.
    """
    # Each utterance is one sentence: neither an overdue end nor a pause parts it.
    writer = WordLevelTranslator(model, target.symbols, overdue_tokens=math.inf)
    recomposer = SentenceRecomposer(SAMPLE_RATE, hop_samples=UNIT_SAMPLES, end_silence_ms=math.inf)
    detector = WordBoundaryDetector(source.symbols, model.frame_ms)
    recogniser = Recogniser(model.asr_head, model.st_head, target.symbols, detector)
    stage = SentenceStage(writer, recomposer)
    source_classes = encoded["asr_logits"].argmax(-1).tolist()

    def translating(row: int, length: int) -> Search[str]:
        recogniser_state, stage_state = recogniser.init_state(), stage.init_state(with_speech=False)
        text = ""
        step = segment or length
        for start in range(0, length, step):
            end = min(length, start + step)
            is_last = end == length
            ((recognition, recogniser_state),) = recogniser.read_greedily(
                [source_classes[row][start:end]],
                encoded["st_logits"][row : row + 1, start:end],
                [recogniser_state],
                is_last,
            )
            frames = encoded["encoder_out"][row : row + 1, start:end]
            writings, stage_state = yield from stage.writing(frames, recognition, policy, stage_state, is_last)
            text += join_words([word for writing in writings for word in writing.words if word.text])
        return text.strip()

    searches = [translating(row, length) for row, length in enumerate(encoded["frame_lengths"].tolist())]
    return search_together(searches, decoder_passes(model))
