"""Registration of the model with fairseq: one architecture for each named configuration."""

from __future__ import annotations

import dataclasses
import importlib.util
from dataclasses import field
from typing import Any

import torch
from fairseq.dataclass import ChoiceEnum, FairseqDataclass
from fairseq.models import (
    ARCH_CONFIG_REGISTRY,
    BaseFairseqModel,
    FairseqEncoder,
    register_model,
    register_model_architecture,
)
from fairseq.models.speech_to_text.s2t_transformer import S2TTransformerModel, base_architecture
from fairseq.tasks import FairseqTask
from torch import Tensor

from echostream.models.config import ACTIVATIONS, ARCHITECTURES, EchoStreamConfig, architecture_config
from echostream.models.echostream_model import EchoStreamModel
from echostream.models.speech_encoder import EchoStreamSpeechEncoder


class EchoStreamFairseqModel(EchoStreamModel, BaseFairseqModel):
    """:class:`EchoStreamModel` with the interface that fairseq's trainer needs."""

    @classmethod
    def build_model(cls, cfg: EchoStreamConfig, task: FairseqTask) -> EchoStreamFairseqModel:
        """Build a model with the task's dictionary sizes, number of units and CMVN."""
        model = cls(cfg, len(task.source_dictionary), len(task.target_text_dictionary), task.num_units)
        if task.cmvn is not None:
            mean, std = (torch.as_tensor(value, dtype=torch.float32) for value in task.cmvn)
            model.fbank.set_cmvn(mean, std)
        return model

    def max_positions(self) -> None:
        """None: the model has no maximum length, because all attention has a limited window."""
        return


class EchoStreamFairseqSpeechEncoder(FairseqEncoder):
    """The speech encoder with fairseq's interface, for use in other fairseq models.

    Args:
        cfg: sizes.
        segment: in 40 ms frames, where a call doesn't say; 0: the whole utterance.
    """

    def __init__(self, cfg: EchoStreamConfig, segment: int = 0) -> None:
        super().__init__(None)
        self.encoder, self.segment = EchoStreamSpeechEncoder(cfg), segment

    def forward(
        self, src_tokens: Tensor, src_lengths: Tensor, segment: int | None = None, **_: Any
    ) -> dict[str, list[Tensor]]:
        """Encode whole utterances.

        Args:
            src_tokens: ``(B, T, 80)`` normalised features @100 Hz.
            src_lengths: ``(B,)``.
            segment: encoder segment in 40 ms frames; 0: the whole utterance; None: that of the encoder.

        Returns:
            fairseq's dictionary: ``encoder_out`` holds ``(T', B, D)`` and ``encoder_padding_mask`` ``(B, T')``.
        """
        frames, lengths, _ = self.encoder(src_tokens, src_lengths, segment=self.segment if segment is None else segment)
        padding = torch.arange(frames.size(1), device=frames.device) >= lengths[:, None]
        return {
            "encoder_out": [frames.transpose(0, 1)],
            "encoder_padding_mask": [padding],
            "encoder_embedding": [],
            "encoder_states": [],
            "src_tokens": [],
            "src_lengths": [],
        }

    def reorder_encoder_out(self, encoder_out: dict[str, list[Tensor]], new_order: Tensor) -> dict[str, list[Tensor]]:
        """Reorder the rows of the batch, as fairseq's beam search requires."""
        return encoder_out | {
            "encoder_out": [frames.index_select(1, new_order) for frames in encoder_out["encoder_out"]],
            "encoder_padding_mask": [mask.index_select(0, new_order) for mask in encoder_out["encoder_padding_mask"]],
        }

    def max_positions(self) -> None:
        """None: there is no maximum length."""
        return


FBANK_ARCHITECTURES = [arch for arch in ARCHITECTURES if architecture_config(arch).front_end == "fbank"]


@register_model("echostream_s2t_transformer")
class EchoStreamS2TTransformerModel(S2TTransformerModel):
    """fairseq's speech-to-text Transformer with the speech encoder of EchoStream, for fairseq's task speech_to_text.

    fairseq's options of the encoder have no effect; ``--echostream-arch`` gives its sizes.
    """

    @staticmethod
    def add_args(parser: Any) -> None:
        """fairseq's options, and those of the encoder."""
        S2TTransformerModel.add_args(parser)
        parser.add_argument(
            "--echostream-arch", choices=FBANK_ARCHITECTURES, help="whose speech encoder it has (echostream)"
        )
        parser.add_argument(
            "--echostream-segment", type=int, metavar="FRAMES", help="its segment, 40 ms frames; 0: whole (8)"
        )

    @classmethod
    def build_encoder(cls, args: Any) -> EchoStreamFairseqSpeechEncoder:
        """The speech encoder, with fairseq's interface."""
        return EchoStreamFairseqSpeechEncoder(architecture_config(args.echostream_arch), args.echostream_segment)


@register_model_architecture("echostream_s2t_transformer", "echostream_s2t_transformer")
def s2t_transformer_architecture(args: Any) -> None:
    """fairseq's base sizes, the encoder's apart."""
    args.echostream_arch = getattr(args, "echostream_arch", None) or "echostream"
    segment = getattr(args, "echostream_segment", None)
    args.echostream_segment = 8 if segment is None else segment
    args.encoder_embed_dim = architecture_config(args.echostream_arch).encoder_dim
    base_architecture(args)


def _fairseq_config(arch: str) -> type:
    """A configuration class whose defaults are those of ``arch``; fairseq and Hydra take defaults from the class."""
    values = ARCHITECTURES[arch]
    fields: list[tuple[str, Any, Any]] = []
    for known in dataclasses.fields(EchoStreamConfig):
        kind = ChoiceEnum(ACTIVATIONS) if known.name == "encoder_activation" else type(known.default)
        default = values.get(known.name, known.default)
        fields.append((known.name, kind, field(default=default, metadata=known.metadata)))
    name = "".join(word.capitalize() for word in arch.split("_")).replace("Echostream", "EchoStream") + "FairseqConfig"
    config = dataclasses.make_dataclass(name, fields, bases=(EchoStreamConfig, FairseqDataclass))
    config.__module__ = __name__
    return config


def check_precision(args: Any) -> None:
    """Let ``--bf16`` train on other devices than a TPU, and refuse ``--fp16`` where it can't.

    With ``--bf16`` fairseq assumes a TPU and fails without torch_xla, although bfloat16 needs neither. With ``--fp16``
    it joins all parameters on the current GPU. fairseq calls this hook of ``--arch`` after parsing the command line,
    before anything is started.

    Raises:
        SystemExit: half precision on a CPU.
    """
    if getattr(args, "bf16", False) and importlib.util.find_spec("torch_xla") is None:
        args.tpu = False
    on_gpu = torch.cuda.is_available() and not getattr(args, "cpu", False)
    joins = not (getattr(args, "fp16_no_flatten_grads", False) or getattr(args, "memory_efficient_fp16", False))
    if getattr(args, "fp16", False) and joins and not on_gpu:
        raise SystemExit("echostream: --fp16 needs a GPU; on a CPU train with --bf16, --amp or neither")


CONFIGS = {arch: _fairseq_config(arch) for arch in ARCHITECTURES}
# Processes spawned by fairseq unpickle the configurations and look up their classes in this module.
globals().update({config.__name__: config for config in CONFIGS.values()})

for _arch, _config in CONFIGS.items():
    # One class per architecture, because fairseq stores the options of a model in its class.
    _name = _config.__name__.replace("FairseqConfig", "FairseqModel")
    _base = EchoStreamFairseqModel
    register_model(_arch, dataclass=_config)(
        _base if _arch == "echostream" else type(_name, (_base,), {"__module__": __name__})
    )
    ARCH_CONFIG_REGISTRY[_arch] = check_precision
