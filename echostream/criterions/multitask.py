"""The multi-task loss: L = w_asr L_asr + w_st L_st + w_mt L_mt + w_unit L_unit (+ w_phone L_phone).

The ASR, ST and unit losses are CTC. The MT loss is label-smoothed cross entropy, where every target token attends only
to the frames that the policy would have made visible. All sums are divided by the number of units in the batch (with
``--sentence-avg``, of utterances), so that the gradient over several ranks or accumulated batches is that of one large
batch. Each loss is logged in nats per token of its own kind.

A text or unit sequence that is longer than its frames has no CTC path. It is left out of its loss and of the tokens of
that loss; where it is the units, the utterance is left out of the divisor as well.

What belongs to a loss of weight 0 is not computed in training: an encoder alone (``--st-weight 0 --mt-weight 0
--unit-weight 0``) learns from two to three times as much speech in the same time.

The phone loss is off by default. It is the cross entropy of the phone of each encoder frame. With only a few hours of
speech, the CTC heads can stay for a long time at a plateau where they have learned the frequency of the subwords only;
an encoder that is trained on the position of each phone leaves it early. The linear layer of this loss belongs to the
criterion, so that the model is the same with and without it.
"""

import logging
import math
from argparse import ArgumentTypeError
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Optional

import torch
from fairseq import utils
from fairseq.criterions import FairseqCriterion, register_criterion
from fairseq.dataclass import ChoiceEnum, FairseqDataclass
from fairseq.logging import metrics
from omegaconf import II
from torch import Tensor

from echostream.checkpoints.errors import CheckpointError
from echostream.constants import DEFAULT_POLICY
from echostream.criterions.distillation import EncoderDistillation, load_teacher
from echostream.criterions.losses import cross_entropy_sum, ctc_sum, frame_cross_entropy_sum, symmetric_kl_sum
from echostream.criterions.targets import UNKNOWN_PHONE, word_starts
from echostream.decoding.policy import AlignAttPolicy, Policy, build_policy, visible_frames_from_policy
from echostream.decoding.policy_arguments import POLICY_HELP, option_argument, options_of
from echostream.models.echostream_model import PARTS
from echostream.plugins import names_code

logger = logging.getLogger(__name__)

CTC_PARTS = ("asr", "st", "unit")
DEFAULT_WEIGHTS = {"asr": 4.0, "st": 4.0, "mt": 8.0, "unit": 1.0}
DEFAULT_LABEL_SMOOTHING = 0.1
TEACHER_PIECES, TEACHER_BATCH = 96, 8  # from which its position means are learned
YAML_ENTRIES = {"asr": "source_unigram", "st": "ctc_target_unigram", "mt": "target_unigram"}


def _weight_field(part: str, loss_name: str) -> Any:
    source = f"the multitask YAML's loss_weight of {YAML_ENTRIES[part]}, else " if part in YAML_ENTRIES else ""
    return field(default=None, metadata={"help": f"weight of {loss_name} (default: {source}{DEFAULT_WEIGHTS[part]:g})"})


@dataclass
class EchoStreamMultiTaskCriterionConfig(FairseqDataclass):
    """Weights of the losses, and the policy that training simulates."""

    asr_weight: Optional[float] = _weight_field("asr", "the source CTC loss")  # noqa: UP045
    st_weight: Optional[float] = _weight_field("st", "the target CTC loss")  # noqa: UP045
    mt_weight: Optional[float] = _weight_field("mt", "the text decoder's cross entropy")  # noqa: UP045
    unit_weight: Optional[float] = _weight_field("unit", "the unit CTC loss")  # noqa: UP045
    label_smoothing: Optional[float] = field(  # noqa: UP045
        default=None,
        metadata={
            "help": "probability spread over all pieces in the text decoder's loss, 0 to below 1 (default: the "
            f"multitask YAML's, else {DEFAULT_LABEL_SMOOTHING:g})"
        },
    )
    rdrop_alpha: Optional[float] = field(  # noqa: UP045
        default=None,
        metadata={
            "help": "weight of R-Drop on the text decoder (the CTC heads have none), which doubles the batch; 0: off "
            "(default: the multitask YAML's, else 0)"
        },
    )
    phone_weight: float = field(
        default=0.0,
        metadata={"help": "weight of the source phones' cross entropy, which needs --source-phones; 0: off"},
    )
    encoder_teacher: Optional[str] = field(  # noqa: UP045
        default=None,
        metadata={
            "help": "Whisper's weights (CTranslate2's model.bin, OpenAI's .pt or .safetensors), whose unmasked encoder "
            "the speech encoder learns from, on the pieces of --unlabelled-audio"
        },
    )
    encoder_teacher_weight: float = field(
        default=1.0,
        metadata={
            "help": "weight of the distance from the teacher, a mean over frames; the other losses are per unit of the "
            "batch, or per utterance with --sentence-avg"
        },
    )
    mt_alignment: ChoiceEnum(["policy", "none"]) = field(  # type: ignore[valid-type]  # made at run time
        default="policy",
        metadata={
            "help": "frames that a target token attends to in training: 'policy': those there when the policy, run on "
            "the model's own CTC paths, writes its word; 'none': the whole utterance"
        },
    )
    policy: str = field(
        default=DEFAULT_POLICY,
        metadata={"help": f"the policy of inference, which training simulates; {POLICY_HELP}"},
    )
    stride_n: Optional[int] = field(  # noqa: UP045
        default=None,
        metadata={
            "help": "target tokens that the ST CTC must have read since the last WRITE, at least 1 (default: the "
            "policy's own, 1)"
        },
    )
    lag_k: Optional[int] = field(  # noqa: UP045
        default=None,
        metadata={
            "help": "target tokens that the hypothesis stays behind the ST CTC, at least 0 (default: the policy's own)"
        },
    )
    policy_options: Optional[str] = field(  # noqa: UP045
        default=None,
        metadata={"help": "other options of the policy by name, such as 'token_frames=12', separated by commas"},
    )
    # fairseq's own option
    sentence_avg: bool = II("optimization.sentence_avg")


@register_criterion("echostream_multitask", dataclass=EchoStreamMultiTaskCriterionConfig)
class EchoStreamMultiTaskCriterion(FairseqCriterion):
    """Weighted sum of the losses.

    R-Drop (Liang et al. 2021), off by default, runs each utterance twice with different dropout. All losses become
    means over the two passes, and ``rdrop_alpha`` times the symmetric divergence between the two predictions of each
    token is added to the loss of the text decoder. No divergence is added for the CTC heads: two passes that emit the
    same symbols one frame apart agree, but a divergence per frame would penalise the difference.

    Raises:
        ValueError: an option out of range.
    """

    def __init__(self, cfg: EchoStreamMultiTaskCriterionConfig, task: Any) -> None:
        super().__init__(task)
        texts = getattr(task, "texts", {})

        def option(name: str, part: str, yaml_name: str, default: float) -> float:
            value = getattr(cfg, name)
            if value is None and YAML_ENTRIES.get(part) in texts:
                value = getattr(texts[YAML_ENTRIES[part]], yaml_name)
            value = default if value is None else float(value)
            if value < 0:
                raise ValueError(f"--{name.replace('_', '-')} is {value:g}; it must not be negative")
            return value

        self.weights = {p: option(f"{p}_weight", p, "loss_weight", DEFAULT_WEIGHTS[p]) for p in PARTS}
        self.label_smoothing = option("label_smoothing", "mt", "label_smoothing", DEFAULT_LABEL_SMOOTHING)
        if self.label_smoothing >= 1:
            raise ValueError(f"--label-smoothing is {self.label_smoothing:g}; it must be below 1")
        self.rdrop_alpha = option("rdrop_alpha", "mt", "rdrop_alpha", 0.0)
        self.phone_weight = cfg.phone_weight
        if self.phone_weight < 0:
            raise ValueError(f"--phone-weight is {self.phone_weight:g}; it must not be negative")
        if self.phone_weight:
            if not task.phone_inventory:
                raise ValueError("--phone-weight needs a table of the source's phones; name it with --source-phones")
            self.phone_head = torch.nn.Linear(task.model_cfg.encoder_dim, len(task.phone_inventory))
        self.teacher_weight = cfg.encoder_teacher_weight
        if self.teacher_weight < 0:
            raise ValueError(f"--encoder-teacher-weight is {self.teacher_weight:g}; it must not be negative")
        self.distillation = _teacher(cfg, task)
        if not any(self.weights.values()) and not self.phone_weight and not (self.distillation and self.teacher_weight):
            raise ValueError("all weights are 0: there is nothing to learn from; give one of --asr-weight ... a weight")
        self.align_by_policy = str(cfg.mt_alignment) == "policy"
        self.policy = _policy(cfg, task)
        if self.align_by_policy and isinstance(self.policy, AlignAttPolicy):
            raise ValueError(
                "--policy alignatt looks at the decoder, so that training can't tell beforehand which frames a token "
                "sees: choose --mt-alignment none"
            )
        self.sentence_avg = cfg.sentence_avg is True  # outside of a training it is a reference to fairseq's option
        self._named: set[tuple[str, str]] = set()  # losses and utterances of which it was said that there is no path
        self.pad = task.target_text_dictionary.pad()
        self.source_word_starts = word_starts(task.source_dictionary)

    def forward(self, model: Any, sample: dict[str, Any], reduce: bool = True) -> tuple[Tensor, int, dict]:
        """Loss of a batch.

        Args:
            model: the model, or fairseq's distributed wrapper around it; it is called once.
            sample: batch of the data set, with ``segment`` (25 Hz frames, 0: whole utterance).
            reduce: ignored; part of fairseq's interface. The loss is always a sum.

        Returns:
            The loss, its denominator (units in the batch, or utterances), and sums to log.
        """
        return self.compute(model, sample)[:3]

    def compute(self, model: Any, sample: dict[str, Any]) -> tuple[Tensor, int, dict[str, Any], dict[str, Tensor]]:
        """Return what :meth:`forward` returns, followed by the output of the model."""
        rdrop = self.rdrop_alpha > 0 and self.training
        labelled = {name: value for name, value in sample.items() if not name.startswith("unlabelled")}
        batch = _repeat_batch(labelled) if rdrop else labelled
        teaches = self.training and self.distillation is not None and "unlabelled" in sample
        segment = sample.get("segment", 0)
        optional = ("right_context", "unlabelled") if teaches else ("right_context",)
        output = model(
            **batch["net_input"],
            target_text_tokens=batch["target_text"],
            word_ids=batch["word_ids"],
            segment=segment,
            align=self._alignment(batch, segment),
            **{name: sample[name] for name in optional if name in sample},
            **self._parts(),
        )
        log, infeasible = self._losses(output, batch)
        infeasible = infeasible[:, : sample["nsentences"]]
        if bool(infeasible.any()):
            self._name(infeasible, sample.get("ids", ()))
        asr, st, unit = (~infeasible).long()
        if rdrop:
            log = {name: value / 2 for name, value in log.items()}
            if "mt_logits" in output:
                log["mt_kl"] = symmetric_kl_sum(output["mt_logits"], sample["target_text"], self.pad)
                log["mt_loss"] = log["mt_loss"] + self.rdrop_alpha * log["mt_kl"]
        loss = torch.zeros((), device=output["frame_lengths"].device)
        for part in PARTS:
            if f"{part}_loss" in log:
                loss = loss + self.weights[part] * log[f"{part}_loss"]
        if self.phone_weight:
            loss = loss + self.phone_weight * log["phone_loss"]
        logged: dict[str, Any] = {name: value.detach() for name, value in log.items()}
        unit_tokens = int((unit * sample["unit_lengths"]).sum())
        # A batch in which nothing is said has no units, and is divided by nothing.
        sample_size = int(unit.sum()) if self.sentence_avg else max(1, unit_tokens)
        if teaches:
            distance, frames = self._distance(output["unlabelled_layers"], sample["unlabelled_whole"])
            loss = loss + self.teacher_weight * sample_size * distance / frames
            logged |= {"teacher_loss": distance.detach(), "teacher_frames": frames}
        logged |= {
            "loss": loss.detach(),
            "asr_tokens": int((asr * sample["source_text_lengths"]).sum()),
            "st_tokens": int((st * (sample["target_text_lengths"] - 1)).sum()),
            "mt_tokens": int(sample["target_text_lengths"].sum()),
            "unit_tokens": unit_tokens,
            "ntokens": sample["ntokens"],
            "nsentences": sample["nsentences"],
            "sample_size": sample_size,
        }
        return loss, sample_size, logged, output

    def _parts(self) -> dict[str, list[str]]:
        """What the model is to compute, if that isn't all: in training nothing of weight 0."""
        parts = [part for part in PARTS if self.weights[part]]
        return {"parts": parts} if self.training and len(parts) < len(PARTS) else {}

    def _distance(self, layers: Tensor, features: Tensor) -> tuple[Tensor, int]:
        """Distance of the layers ``(layers, P, T', D)`` from the teacher's, summed over frames, and their number."""
        assert self.distillation is not None
        if self.distillation.positions is None:
            self.distillation.to(features.device)
            logger.info(f"learning what the teacher's frames owe to their positions, from {TEACHER_PIECES} pieces")
            batches = self.task.unlabelled_speech().batches(TEACHER_PIECES // TEACHER_BATCH, TEACHER_BATCH, "positions")
            self.distillation.learn_positions(batch.to(features.device) for batch in batches)
        lengths = torch.full((features.size(0),), features.size(1), device=features.device)
        return self.distillation.loss_sum(list(layers), features, lengths)

    def _name(self, infeasible: Tensor, ids: Sequence[str]) -> None:
        """Log, once for each, the utterances that have no CTC path; ``infeasible`` is bool ``(3, B)``."""
        for part, row in zip(CTC_PARTS, infeasible.tolist(), strict=True):
            names = [name for name, wrong in zip(ids, row, strict=False) if wrong and (part, name) not in self._named]
            if names:
                self._named.update((part, name) for name in names)
                logger.warning(f"more symbols than frames, left out of the {part} loss: {', '.join(names)}")

    def _alignment(self, sample: dict[str, Any], segment: int) -> Any:
        """Function from the encoder's output to the visible frames of each token, ``(B, N)``; None: all visible."""
        if not self.align_by_policy:
            return None

        @torch.no_grad()
        def align(encoded: dict[str, Tensor]) -> Tensor:
            return visible_frames_from_policy(
                encoded["asr_logits"].argmax(-1),
                encoded["st_logits"].argmax(-1),
                encoded["frame_lengths"],
                segment,
                sample["target_text_lengths"],
                sample["word_ids"],
                self.source_word_starts,
                self.policy,
                self.task.frame_ms,
            )

        return align

    def _losses(self, output: dict[str, Tensor], sample: dict[str, Any]) -> tuple[dict[str, Tensor], Tensor]:
        """Sums ``{part}_loss``, and ``{part}_inf``, the number of utterances excluded because they have no CTC path.

        Also which ones these are, bool ``(3, B)`` in the order of ``CTC_PARTS``.
        """
        log: dict[str, Tensor] = {}
        frame_lengths = output["frame_lengths"]
        infeasible = torch.zeros(len(CTC_PARTS), frame_lengths.size(0), dtype=torch.bool, device=frame_lengths.device)
        targets = {
            "asr": ("frame_lengths", sample["source_text"], sample["source_text_lengths"]),
            "st": ("frame_lengths", sample["target_text"], sample["target_text_lengths"] - 1),  # without EOS
            "unit": ("unit_lengths", sample["units"] + 1, sample["unit_lengths"]),
        }
        for row, part in enumerate(CTC_PARTS):
            if f"{part}_logits" in output:
                lengths, symbols, symbol_lengths = targets[part]
                log[f"{part}_loss"], infeasible[row] = ctc_sum(
                    output[f"{part}_logits"], output[lengths], symbols, symbol_lengths
                )
        if "mt_logits" in output:
            log["mt_loss"], log["mt_nll"] = cross_entropy_sum(
                output["mt_logits"], sample["target_text"], self.pad, self.label_smoothing
            )
        if self.phone_weight:
            logits = self.phone_head(output["encoder_out"])
            log["phone_loss"], log["phone_frames"], log["phone_correct"] = frame_cross_entropy_sum(
                logits, sample["phones"], UNKNOWN_PHONE
            )
        for part, row in zip(CTC_PARTS, infeasible, strict=True):
            log[f"{part}_inf"] = row.sum()
        return log, infeasible

    @classmethod
    def reduce_metrics(cls, logging_outputs: list[dict[str, Any]]) -> None:
        """Log ``loss`` (per unit), each loss in nats per token, and the number of utterances with infinite CTC loss.

        ``ppl`` is the perplexity of the text decoder, as fairseq's own criterions log it.
        """

        def total(name: str) -> float:
            return float(sum(log.get(name, 0) for log in logging_outputs))

        size = total("sample_size")
        metrics.log_scalar("loss", total("loss") / max(size, 1), size, round=3)
        for part in PARTS:
            if any(f"{part}_loss" in log for log in logging_outputs):
                tokens = total(f"{part}_tokens")
                metrics.log_scalar(part, total(f"{part}_loss") / max(tokens, 1), tokens, round=3)
        tokens = total("mt_tokens")
        if any("mt_nll" in log for log in logging_outputs):
            metrics.log_scalar("mt_nll", total("mt_nll") / max(tokens, 1), tokens, round=3)
            metrics.log_derived("ppl", lambda meters: utils.get_perplexity(meters["mt_nll"].avg, base=math.e))
        if total("teacher_frames"):
            frames = total("teacher_frames")
            metrics.log_scalar("teacher", total("teacher_loss") / frames, frames, round=3)
        if total("phone_frames"):
            metrics.log_scalar("phone", total("phone_loss") / total("phone_frames"), total("phone_frames"), round=3)
            accuracy = 100 * total("phone_correct") / total("phone_frames")
            metrics.log_scalar("phone_acc", accuracy, total("phone_frames"), round=1)
        if any("mt_kl" in log for log in logging_outputs):
            metrics.log_scalar("mt_kl", total("mt_kl") / max(tokens, 1), tokens, round=3)
        for part in CTC_PARTS:
            metrics.log_scalar_sum(f"{part}_inf", total(f"{part}_inf"), round=1)

    @staticmethod
    def logging_outputs_can_be_summed() -> bool:
        """True: all entries are sums over utterances."""
        return True


def _teacher(cfg: EchoStreamMultiTaskCriterionConfig, task: Any) -> EncoderDistillation | None:
    """The teacher that the options name; None without one, and where a checkpoint's options do: only training needs it.

    Raises:
        ValueError: it can't be read, hears other features, or there is no speech to learn from.
    """
    if not cfg.encoder_teacher or getattr(task, "from_checkpoint", False):
        return None
    if not task.cfg.unlabelled_audio:
        raise ValueError("--encoder-teacher needs speech to learn from: name a table with --unlabelled-audio")
    if task.front_end != "whisper":
        raise ValueError(
            f"--encoder-teacher hears the features of the front end whisper, the model's are {task.front_end}: choose "
            "--arch echostream_whisper_base or one of its kind"
        )
    try:
        distillation = EncoderDistillation(load_teacher(cfg.encoder_teacher), task.model_cfg.encoder_layers)
    except CheckpointError as error:
        raise ValueError(f"--encoder-teacher: {error}") from error
    if task.model_cfg.encoder_layer_drop:
        raise ValueError("--encoder-teacher compares all layers: set --encoder-layer-drop 0")
    if task.model_cfg.encoder_dim != distillation.dim:
        raise ValueError(
            f"--encoder-teacher {cfg.encoder_teacher} has frames of size {distillation.dim}, the model's encoder of "
            f"{task.model_cfg.encoder_dim}"
        )
    return distillation


def _policy(cfg: EchoStreamMultiTaskCriterionConfig, task: Any) -> Policy:
    """The policy that training simulates.

    Raises:
        ValueError: an unknown policy or option, or one of the user's own that a checkpoint names: the code that a file
            names is not run.
    """
    if names_code(cfg.policy) and getattr(task, "from_checkpoint", False):
        raise ValueError(
            f"the checkpoint was trained under the policy '{cfg.policy}', and code that a file names is not run: "
            "choose another policy, such as --model-overrides \"{'policy': 'alignment', 'policy_options': None}\""
        )
    try:
        options = options_of(option_argument(pair) for pair in (cfg.policy_options or "").split(",") if pair.strip())
    except ArgumentTypeError as error:
        raise ValueError(f"--policy-options: {error}") from error
    return build_policy(cfg.policy, **{**(options or {}), "stride_n": cfg.stride_n, "lag_k": cfg.lag_k})


def _repeat_batch(sample: dict[str, Any]) -> dict[str, Any]:
    """The batch followed by itself, so that each utterance is computed with two dropout masks."""
    return {
        name: _repeat_batch(value)
        if isinstance(value, dict)
        else torch.cat([value, value])
        if isinstance(value, Tensor)
        else value
        for name, value in sample.items()
    }
