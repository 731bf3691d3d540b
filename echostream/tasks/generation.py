"""``fairseq-generate`` with this task: batches with the right texts, and a generator for each kind of output.

What fairseq prints comes from the batch (``S-`` and ``T-`` lines) and from the generator (``H-``, ``D-`` and ``P-``):
for ``asr`` source text by CTC, for ``s2tt`` the MT decoder's translation, for ``s2ut`` the units of that translation,
which are also written to ``generate-SUBSET.unit`` in the order of the manifest. Utterances are decoded as whole
sentences (:mod:`echostream.decoding.offline`).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from fairseq.data import BaseWrapperDataset, Dictionary, data_utils
from fairseq.dataclass.configs import GenerationConfig
from fairseq.scoring import SCORER_REGISTRY, BaseScorer

from echostream.checkpoints.arpa_files import load_arpa
from echostream.decoding import offline
from echostream.decoding.beam_search import Hypothesis
from echostream.decoding.ngram import no_language_model
from echostream.decoding.prefix_beam_search import SourceTranscriber
from echostream.decoding.target_tokens import token_limit
from echostream.text import WORD_MARK, word_errors

logger = logging.getLogger(__name__)

OUTPUTS = ("asr", "s2tt", "s2ut")
# fairseq's options of other searches. One that was dropped silently would give results other than asked for.
UNSUPPORTED = (
    "constraints", "decoding_format", "diverse_beam_groups", "diversity_rate", "lm_path", "match_source_len", "min_len",
    "no_repeat_ngram_size", "prefix_size", "print_alignment", "print_step", "replace_unk", "retain_dropout",
    "retain_iter_history", "sampling", "score_reference", "temperature", "unkpen",
)  # fmt: skip


class GenerationError(ValueError):
    """Options of ``fairseq-generate`` that this task doesn't have, or that don't go together."""


def unit_dictionary(num_units: int) -> Dictionary:
    """The units ``0`` to ``num_units - 1`` behind fairseq's four special symbols, as in fairseq's S2UT."""
    dictionary = Dictionary()
    for unit in range(num_units):
        dictionary.add_symbol(str(unit))
    return dictionary


class PieceJoiner:
    """What fairseq calls a BPE: turns ``S-``, ``T-`` and ``D-`` lines of SentencePiece subwords into text.

    Args:
        with_units: some lines hold units, which stay apart.
    """

    def __init__(self, with_units: bool = False) -> None:
        self.with_units = with_units

    def decode(self, pieces: str) -> str:
        """Subwords separated by spaces as words separated by spaces."""
        joined = pieces.replace(" ", "")
        if self.with_units and joined.isdecimal():
            return pieces
        return " ".join(joined.replace(WORD_MARK, " ").split())


class GenerationDataset(BaseWrapperDataset):
    """A data set whose batches have what ``fairseq-generate`` prints where it looks for it.

    Args:
        dataset: a :class:`~echostream.tasks.dataset.SpeechTranslationDataset`.
        output: one of :data:`OUTPUTS`.
        units: dictionary of the units.
    """

    def __init__(self, dataset: Any, output: str, units: Dictionary) -> None:
        super().__init__(dataset)
        self.output, self.units = output, units

    def collater(self, samples: list[Any]) -> dict[str, Any]:
        """The batch of the data set, changed in these entries.

        Returns:
            ``features (B, T, 80)`` and ``feature_lengths (B,)``, ``net_input`` with the source text as ``src_tokens
            (B, S)``, and the reference as ``target (B, N)``: source text, target text or units.
        """
        batch = self.dataset.collater(samples)
        if not batch:
            return batch
        source = batch["net_input"]
        targets = {"asr": batch["source_text"], "s2tt": batch["target_text"]}
        if self.output == "s2ut":
            units = [sample.units + self.units.nspecial for sample in samples]
            targets["s2ut"] = data_utils.collate_tokens(units, self.units.pad())
        return {
            **batch,
            "features": source["src_tokens"],
            "feature_lengths": source["src_lengths"],
            "net_input": {"src_tokens": batch["source_text"]},
            "target": targets[self.output],
        }

    def num_tokens_vec(self, indices: Any) -> Any:
        """Log-mel frames of several utterances."""
        return self.dataset.num_tokens_vec(indices)


class UnitFile:
    """``generate-SUBSET.unit``: the units of each utterance, a line each, in the order of the manifest.

    fairseq decodes the longest utterances first, so the lines are written when the last one is there.

    Args:
        path: of the file; an old one is removed.
        num_utterances: how many there will be.
    """

    def __init__(self, path: Path, num_utterances: int) -> None:
        self.path, self.num_utterances = path, num_utterances
        self.lines: dict[int, str] = {}
        path.unlink(missing_ok=True)

    def add(self, ids: Sequence[int], units: Sequence[Sequence[int]]) -> None:
        """Add the units of the utterances of a batch, which are known by their rows of the manifest."""
        for row, spoken in zip(ids, units, strict=True):
            self.lines[row] = " ".join(map(str, spoken))
        if len(self.lines) == self.num_utterances:
            self.path.write_text("".join(f"{self.lines[row]}\n" for row in sorted(self.lines)), encoding="utf-8")
            logger.info(f"units of {len(self.lines)} utterances: {self.path}")


class OfflineGenerator:
    """Decodes batches of :class:`GenerationDataset` for ``fairseq-generate``.

    Args:
        models: the model, alone in a list.
        options: fairseq's options of generation: ``beam``, ``lenpen``, ``unnormalized``, ``max_len_a``, ``max_len_b``,
            ``nbest``; with ``beam_mt``, its relatives ``lenpen_mt``, ``max_len_a_mt`` and ``max_len_b_mt`` hold for the
            MT decoder.
        output: one of :data:`OUTPUTS`.
        source, target, units: dictionaries.
        source_lm, lm_weight, lm_bonus: ARPA file and weights of the prefix beam search.
        unit_file: gets the units, for ``s2ut``.

    Raises:
        GenerationError: an option of another search than these, or several models.
        NGramError: a language model that can't be used.
    """

    def __init__(
        self,
        models: Sequence[Any],
        options: GenerationConfig,
        output: str,
        source: Dictionary,
        target: Dictionary,
        units: Dictionary,
        source_lm: str | None = None,
        lm_weight: float = 0.0,
        lm_bonus: float = 0.0,
        unit_file: UnitFile | None = None,
    ) -> None:
        if len(models) != 1:
            raise GenerationError(
                f"--path names {len(models)} checkpoints, and there are no ensembles: give one, or average them "
                "(scripts/average_checkpoints.sh)"
            )
        for name in UNSUPPORTED:
            if getattr(options, name, None) != getattr(GenerationConfig, name):
                raise GenerationError(f"--{name.replace('_', '-')} is not supported by this task: leave it out")
        if options.beam < 1:
            raise GenerationError(f"--beam is {options.beam}, not at least 1")
        self.model = models[0]
        self.model.eval()  # which answers None once fairseq has prepared the model for inference
        self.output, self.units, self.unit_file = output, units, unit_file
        first_pass = "_mt" if options.beam_mt > 0 else ""
        self.beam = options.beam if output == "asr" else getattr(options, f"beam{first_pass}")
        self.length_penalty = 0.0 if options.unnormalized else getattr(options, f"lenpen{first_pass}")
        self.max_len = [getattr(options, f"max_len_{name}{first_pass}") for name in "ab"]
        self.dictionaries = source.symbols, target.symbols
        self.starts_word = [symbol.startswith(WORD_MARK) for symbol in target.symbols]
        self.symbols_to_strip_from_output = {source.pad(), source.eos()}
        self.transcriber: SourceTranscriber | None = None
        if output == "asr" and (self.beam > 1 or source_lm):
            begin, end = source.bos(), source.eos()
            model = load_arpa(source_lm, source.symbols) if source_lm else no_language_model(begin, end)
            weight, bonus = (lm_weight, lm_bonus) if source_lm else (0.0, 0.0)
            self.transcriber = SourceTranscriber(source.symbols, model, weight, bonus, self.beam, self.model.frame_ms)

    @torch.no_grad()
    def generate(self, models: Sequence[Any], sample: dict[str, Any], **_: Any) -> list[list[dict[str, Any]]]:
        """Hypotheses of each utterance of a batch, the best one first.

        Args:
            models: not used: the model is known already.
            sample: from :class:`GenerationDataset`.

        Returns:
            fairseq's dictionaries with ``tokens (N,)``, ``score`` and ``positional_scores (N,)`` (nats) and
            ``alignment``.
        """
        features = sample["features"].to(next(self.model.parameters()).dtype)
        encoded = self.model.encode(features, sample["feature_lengths"])
        if self.output == "asr":
            read = offline.read_ctc(encoded["asr_logits"], encoded["frame_lengths"], self.transcriber)
            return [[_result(tokens, scores)] for tokens, scores in read]
        max_len_a, max_len_b = self.max_len
        source_frames = sample["features"].size(1)  # fairseq's source length is that of the padded batch
        limits = [
            max(1, min(token_limit(length, self.model.frame_ms), int(max_len_a * source_frames + max_len_b)))
            for length in encoded["frame_lengths"].tolist()
        ]
        found = offline.translate(self.model, encoded, *self.dictionaries, self.beam, self.length_penalty, limits)
        if self.output == "s2tt":
            return [[self._text_result(hypothesis) for hypothesis in hypotheses] for hypotheses in found]
        spoken = offline.speak(self.model, encoded, [hypotheses[0].tokens for hypotheses in found], self.starts_word)
        if self.unit_file is not None:
            self.unit_file.add(sample["id"].tolist(), [units for units, _ in spoken])
        return [[_result([unit + self.units.nspecial for unit in units], scores)] for units, scores in spoken]

    def _text_result(self, hypothesis: Hypothesis) -> dict[str, Any]:
        return _result(hypothesis.tokens, hypothesis.token_scores, hypothesis.normalised_score(self.length_penalty))


def _result(tokens: Sequence[int], scores: Sequence[float], score: float | None = None) -> dict[str, Any]:
    mean: float = sum(scores) / max(1, len(scores)) if score is None else score
    return {
        "tokens": torch.tensor(tokens, dtype=torch.int64),
        "score": mean,
        "positional_scores": torch.tensor(scores, dtype=torch.float32),
        "alignment": None,
    }


class WordErrorRateScorer(BaseScorer):
    """fairseq's scorer ``wer`` without the package editdistance, which it needs for one function."""

    def __init__(self, cfg: Any) -> None:
        from fairseq.scoring.tokenizer import EvaluationTokenizer

        super().__init__(cfg)
        self.tokenizer = EvaluationTokenizer(
            cfg.wer_tokenizer, cfg.wer_lowercase, cfg.wer_remove_punct, cfg.wer_char_level
        )

    def score(self) -> float:
        """Word errors in percent of the words of the references."""
        errors, words = word_errors(*(map(self.tokenizer.tokenize, side) for side in (self.pred, self.ref)))
        return 100 * errors / max(1, words)

    def result_string(self) -> str:
        """As fairseq's scorer prints it."""
        return f"WER: {self.score():.2f}"


def install_scorer() -> None:
    """Make ``--scoring wer`` work without the package editdistance; it gives the same figures."""
    SCORER_REGISTRY["wer"] = WordErrorRateScorer
