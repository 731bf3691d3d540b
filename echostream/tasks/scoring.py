"""Validation scores: counts that are summed over batches and ranks, and turned into rates when they are logged.

- ASR: word error rate of the greedy CTC path.
- ST: BLEU, unigram precision and unigram recall of the greedy CTC path. Recall is the most important one, because the
  policy writes nothing without evidence from this head.
- MT: accuracy of the next token given the reference before it and, optionally, BLEU of greedy decoding: offline, with
  the whole utterance visible, and streamed under the policy.
- Units: error rate of the greedy CTC path.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import sacrebleu
from fairseq.data import Dictionary
from fairseq.logging import metrics
from torch import Tensor

from echostream.decoding import offline
from echostream.decoding.target_tokens import END
from echostream.modules.ctc import greedy_collapse
from echostream.text import WORD_MARK, edit_distance, word_errors

BLEU_ORDER = 4


def key(name: str, field: str) -> str:
    """Key in the logging outputs for the sum ``field`` at the segment size with the label ``name``."""
    return f"_{field}@{name}"


def detokenise(tokens: Sequence[int], dictionary: Dictionary) -> str:
    """Join subwords to words separated by spaces; special symbols other than ``<unk>`` are dropped."""
    skip = {dictionary.bos(), dictionary.pad(), dictionary.eos()}
    pieces = (dictionary[token] for token in tokens if token not in skip)
    return "".join(pieces).replace(WORD_MARK, " ").strip()


def _rows(tokens: Tensor, lengths: Tensor) -> list[list[int]]:
    return [row[:length] for row, length in zip(tokens.tolist(), lengths.tolist(), strict=True)]


def references(sample: dict[str, Any], target: Dictionary) -> list[str]:
    """The target texts of a batch."""
    return [detokenise(t, target) for t in _rows(sample["target_text"], sample["target_text_lengths"])]


def bleu_counts(prefix: str, hypotheses: list[str], references: list[str]) -> dict[str, float]:
    """N-gram counts and lengths from which BLEU is computed; they can be summed over batches."""
    bleu = sacrebleu.corpus_bleu(hypotheses, [references])
    counts: dict[str, float] = {f"{prefix}_bleu_sys": bleu.sys_len, f"{prefix}_bleu_ref": bleu.ref_len}
    for order in range(BLEU_ORDER):
        counts[f"{prefix}_bleu_match{order}"] = bleu.counts[order]
        counts[f"{prefix}_bleu_total{order}"] = bleu.totals[order]
    return counts


def _unigram_counts(hypotheses: list[str], references: list[str]) -> dict[str, float]:
    matched = hypothesis_words = reference_words = 0
    for hypothesis, reference in zip(hypotheses, references, strict=True):
        left, right = Counter(hypothesis.split()), Counter(reference.split())
        matched += (left & right).total()
        hypothesis_words += left.total()
        reference_words += right.total()
    return {
        "st_matched": matched,
        "st_hypothesis_words": hypothesis_words,
        "st_reference_words": reference_words,
    }


def count(
    output: dict[str, Tensor],
    sample: dict[str, Any],
    source: Dictionary,
    target: Dictionary,
    model: Any,
    mt_bleu: bool = False,
) -> dict[str, float]:
    """Counts for one batch.

    Args:
        output: output of the model (``asr_logits``, ``st_logits``, ``frame_lengths``, ``mt_logits``, ``unit_logits``,
            ``unit_lengths``; with ``mt_bleu`` also ``encoder_out``).
        sample: the batch.
        source, target: dictionaries of the two texts.
        model: its text decoder is used if ``mt_bleu``.
        mt_bleu: also translate greedily and count for BLEU.
    """
    frames = output["frame_lengths"]
    asr = [detokenise(t, source) for t in greedy_collapse(output["asr_logits"].argmax(-1), frames)]
    asr_refs = [detokenise(t, source) for t in _rows(sample["source_text"], sample["source_text_lengths"])]
    st = [detokenise(t, target) for t in greedy_collapse(output["st_logits"].argmax(-1), frames)]
    target_refs = references(sample, target)
    units = greedy_collapse(output["unit_logits"].argmax(-1), output["unit_lengths"])
    unit_refs = _rows(sample["units"], sample["unit_lengths"])

    is_token = sample["target_text"] != target.pad()
    correct = (output["mt_logits"].argmax(-1) == sample["target_text"]) & is_token
    asr_errors, asr_words = word_errors(asr, asr_refs)
    counts = {
        "asr_errors": asr_errors,
        "asr_words": asr_words,
        "unit_errors": sum(edit_distance([u - 1 for u in h], r) for h, r in zip(units, unit_refs, strict=True)),
        "unit_references": sum(map(len, unit_refs)),
        "mt_correct": int(correct.sum()),
        "mt_tokens": int(is_token.sum()),
        **_unigram_counts(st, target_refs),
        **bleu_counts("st", st, target_refs),
    }
    if mt_bleu:
        limit = 2 * sample["target_text"].size(1) + 10
        found = offline.translate(model, output, source.symbols, target.symbols, limits=[limit] * len(target_refs))
        translated = [[token for token in best.tokens if token != END] for best, *_ in found]
        counts |= bleu_counts("mt", [detokenise(t, target) for t in translated], target_refs)
    return counts


def _log_ratio(name: str, totals: dict[str, float], numerator: str, denominator: str) -> None:
    if totals.get(denominator, 0) > 0:
        metrics.log_scalar(name, 100 * totals[numerator] / totals[denominator], totals[denominator], round=2)


def _log_bleu(name: str, totals: dict[str, float], prefix: str) -> None:
    """Log BLEU over all batches: the counts are summed, and the score is computed from the sums when it is read."""
    fields = ["sys", "ref"] + [f"{kind}{n}" for kind in ("match", "total") for n in range(BLEU_ORDER)]
    for field in fields:
        metrics.log_scalar_sum(f"_{name}_{field}", totals[f"{prefix}_bleu_{field}"])

    def score(meters: Any) -> float:
        value = {field: int(meters[f"_{name}_{field}"].sum) for field in fields}
        bleu = sacrebleu.BLEU.compute_bleu(
            correct=[value[f"match{n}"] for n in range(BLEU_ORDER)],
            total=[value[f"total{n}"] for n in range(BLEU_ORDER)],
            sys_len=value["sys"],
            ref_len=value["ref"],
            smooth_method="exp",
        )
        return round(bleu.score, 2)

    metrics.log_derived(name, score)


def log_scores(logging_outputs: list[dict[str, Any]], name: str) -> None:
    """Log the scores at the segment size with the label ``name``, in percent; no effect on training outputs."""
    totals: dict[str, float] = {}
    marker = key(name, "")[1:]
    for log in logging_outputs:
        for field, value in log.items():
            if field.endswith(marker):
                field = field[1 : -len(marker)]
                totals[field] = totals.get(field, 0.0) + float(value)
    if not totals:
        return
    metrics.log_scalar(f"loss_{name}", totals["loss"] / max(totals["sample_size"], 1), totals["sample_size"], round=3)
    _log_ratio(f"asr_wer_{name}", totals, "asr_errors", "asr_words")
    _log_ratio(f"st_precision_{name}", totals, "st_matched", "st_hypothesis_words")
    _log_ratio(f"st_recall_{name}", totals, "st_matched", "st_reference_words")
    _log_ratio(f"mt_accuracy_{name}", totals, "mt_correct", "mt_tokens")
    _log_ratio(f"unit_error_{name}", totals, "unit_errors", "unit_references")
    _log_bleu(f"st_bleu_{name}", totals, "st")
    for prefix in ("mt", "mt_streamed"):
        if f"{prefix}_bleu_sys" in totals:
            _log_bleu(f"{prefix}_bleu_{name}", totals, prefix)
