"""Every option of the model, with one default each, and the named architectures."""

from dataclasses import dataclass, field
from typing import Any

ACTIVATIONS = ("relu", "gelu", "silu")
POSITIONS = ("rotary", "cyclic", "relative", "fading", "none")
NORMS = ("closing", "final")
TOKEN_POSITIONS = ("rotary", "learned")
# Options that have one of a few values; front ends can be added, see models/front_ends.py.
CHOICES = {
    "encoder_activation": ACTIVATIONS,
    "encoder_positions": POSITIONS,
    "encoder_norm": NORMS,
    "mt_activation": ACTIVATIONS,
    "mt_positions": TOKEN_POSITIONS,
}


@dataclass
class EchoStreamConfig:
    """Sizes of EchoStream; the defaults are those published for StreamSpeech (Zhang et al. 2024, appendix)."""

    subsampler_hidden_dim: int = field(
        default=1024, metadata={"help": "channels of the first subsampling convolution before its GLU"}
    )
    subsampler_kernel: int = field(default=5, metadata={"help": "width of the subsampling convolutions (input frames)"})
    front_end: str = field(
        default="fbank", metadata={"help": "from samples to encoder frames: fbank (40 ms) or whisper (20 ms)"}
    )
    encoder_stack: int = field(
        default=1, metadata={"help": "frames joined to one after the encoder's layers, for the heads and decoders"}
    )
    encoder_dim: int = field(default=256, metadata={"help": "size of an encoder frame"})
    encoder_layers: int = field(default=12, metadata={"help": "number of Emformer layers"})
    encoder_heads: int = field(default=4, metadata={"help": "attention heads of the encoder"})
    encoder_ffn_dim: int = field(default=2048, metadata={"help": "hidden size of the encoder's feed-forward"})
    encoder_conv_kernel: int = field(
        default=15,
        metadata={"help": "width of the causal convolution in each encoder layer (frames); 0: none"},
    )
    encoder_activation: str = field(
        default="silu", metadata={"help": f"activation of the encoder's feed-forward: {', '.join(ACTIVATIONS)}"}
    )
    encoder_positions: str = field(
        default="rotary",
        metadata={
            "help": "rotary; cyclic: absolute ones that return every 1500 frames, as Whisper's weights need; relative: "
            "a learned bias by distance, from zero; fading: cyclic ones that training takes away, and the bias; none"
        },
    )
    encoder_fade_updates: int = field(
        default=1000, metadata={"help": "fading positions: updates of training after which nothing of them is left"}
    )
    encoder_norm: str = field(
        default="closing",
        metadata={"help": "closing: each encoder layer ends with a norm, as the Emformer's; final: only the last does"},
    )
    left_context_frames: int = field(default=48, metadata={"help": "left context of the encoder (frames)"})
    memory_slots: int = field(default=16, metadata={"help": "slots of the memory bank; 0: no memory"})
    memory_block_frames: int = field(default=16, metadata={"help": "frames averaged into one memory slot (frames)"})
    right_context_frames: int = field(default=1, metadata={"help": "right context of each encoder segment (frames)"})
    asr_layers: int = field(default=0, metadata={"help": "causal transformer layers of the ASR-CTC head"})
    st_layers: int = field(default=2, metadata={"help": "causal transformer layers of the ST-CTC head"})
    st_window_frames: int = field(
        default=96, metadata={"help": "frames that the layers of the CTC heads look back (40 ms frames)"}
    )
    mt_dim: int = field(default=512, metadata={"help": "size of the MT decoder"})
    mt_layers: int = field(default=4, metadata={"help": "layers of the MT decoder"})
    mt_heads: int = field(default=8, metadata={"help": "attention heads of the MT decoder"})
    mt_ffn_dim: int = field(default=2048, metadata={"help": "hidden size of the MT decoder's feed-forward"})
    mt_activation: str = field(
        default="relu", metadata={"help": f"activation of its feed-forward: {', '.join(ACTIVATIONS)}"}
    )
    mt_positions: str = field(
        default="rotary",
        metadata={"help": "rotary, or learned: a table of 448 places in a sentence, as Whisper's weights need"},
    )
    mt_prompt_tokens: int = field(
        default=0,
        metadata={"help": "learned inputs before a sentence's start symbol; Whisper's weights need three"},
    )
    mt_places: int = field(
        default=0,
        metadata={
            "help": "places of a sentence that the MT decoder tells apart in what it hears, with silence behind the "
            "last frame; Whisper's weights need 30 s of them (40 ms frames)"
        },
    )
    mt_languages: int = field(
        default=0,
        metadata={"help": "languages that the MT decoder can tell by what it hears; Whisper's weights know 99"},
    )
    mt_further_tokens: int = field(
        default=0,
        metadata={
            "help": "subwords at the end of the target dictionary that the MT decoder alone can write: "
            "scripts/training/add_subwords.py gives a trained model more of Whisper's"
        },
    )
    mt_alignment_heads: str = field(
        default="",
        metadata={
            "help": "heads of the MT decoder whose attention tells where in the source a token is, for the policy "
            "alignatt, as layer.head,layer.head; none: all of the upper half of its layers"
        },
    )
    mt_scale_embedding: bool = field(
        default=True, metadata={"help": "multiply what it reads by the root of its size; Whisper's weights don't"}
    )
    mt_window_tokens: int = field(default=64, metadata={"help": "target subwords that the MT decoder looks back"})
    mt_window_frames: int = field(
        default=512, metadata={"help": "encoder frames that the MT decoder attends to (40 ms frames)"}
    )
    unit_dim: int = field(default=512, metadata={"help": "size of the unit decoder"})
    unit_text_layers: int = field(
        default=0, metadata={"help": "layers of the unit decoder before upsampling (StreamSpeech: 2)"}
    )
    unit_layers: int = field(
        default=6, metadata={"help": "layers of the unit decoder after upsampling (StreamSpeech: 2)"}
    )
    unit_heads: int = field(default=8, metadata={"help": "attention heads of the unit decoder"})
    unit_ffn_dim: int = field(default=2048, metadata={"help": "hidden size of the unit decoder's feed-forward"})
    unit_upsample: int = field(
        default=5, metadata={"help": "positions of the unit decoder per subword (StreamSpeech: 25)"}
    )
    unit_frames_per_position: int = field(
        default=5, metadata={"help": "CTC frames that one position predicts (StreamSpeech: 1)"}
    )
    unit_window_tokens: int = field(default=8, metadata={"help": "earlier subwords that the unit decoder looks back"})
    unit_normalise_text: bool = field(
        default=False,
        metadata={
            "help": "normalise the MT decoder's states and the subwords, each, before the unit decoder reads their "
            "sum; with Whisper's weights the states are 40 times as large"
        },
    )
    dropout: float = field(default=0.1, metadata={"help": "dropout probability everywhere"})
    encoder_layer_drop: float = field(
        default=0.0, metadata={"help": "probability of skipping an encoder layer in training"}
    )


# Whisper base's encoder under the Emformer's masks: 320 ms of right context and 3.2 s of left context, no memory bank;
# and its text decoder.
WHISPER_BASE: dict[str, Any] = {
    "front_end": "whisper",
    "encoder_dim": 512,
    "encoder_layers": 6,
    "encoder_heads": 8,
    "encoder_ffn_dim": 2048,
    "encoder_conv_kernel": 0,
    "encoder_activation": "gelu",
    "encoder_positions": "cyclic",
    "encoder_norm": "final",
    "left_context_frames": 160,
    "right_context_frames": 16,
    "memory_slots": 0,
    "mt_dim": 512,
    "mt_layers": 6,
    "mt_heads": 8,
    "mt_ffn_dim": 2048,
    "mt_activation": "gelu",
    "mt_positions": "learned",
    "mt_prompt_tokens": 3,
    "mt_places": 750,  # 30 s
    "mt_window_frames": 750,
    "mt_languages": 99,
    "mt_alignment_heads": "3.1,4.2,4.3,4.7,5.1,5.2,5.4,5.6",  # those that Whisper takes its words' times from
    "mt_scale_embedding": False,
    "unit_normalise_text": True,
    "dropout": 0.0,
}

# What differs from the defaults above.
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "echostream": {},
    # An encoder of as many parameters as the published Conformer, whose layers have two feed-forwards: 33.4 M.
    "echostream_conformer_size": {"encoder_ffn_dim": 4240},
    "echostream_streamspeech_units": {
        "unit_text_layers": 2,
        "unit_layers": 2,
        "unit_upsample": 25,
        "unit_frames_per_position": 1,
    },
    "echostream_small": {
        "subsampler_hidden_dim": 512,
        "encoder_layers": 8,
        "encoder_ffn_dim": 1024,
        "mt_dim": 256,
        "mt_layers": 3,
        "mt_heads": 4,
        "mt_ffn_dim": 1024,
        "unit_dim": 256,
        "unit_layers": 4,
        "unit_heads": 4,
        "unit_ffn_dim": 1024,
    },
    "echostream_mini": {
        "subsampler_hidden_dim": 256,
        "encoder_dim": 192,
        "encoder_layers": 8,
        "encoder_ffn_dim": 768,
        "mt_dim": 192,
        "mt_layers": 3,
        "mt_heads": 4,
        "mt_ffn_dim": 768,
        "unit_dim": 192,
        "unit_layers": 3,
        "unit_heads": 4,
        "unit_ffn_dim": 768,
    },
    "echostream_tiny": {
        "subsampler_hidden_dim": 256,
        "encoder_dim": 144,
        "encoder_layers": 6,
        "encoder_ffn_dim": 576,
        "st_layers": 1,
        "mt_dim": 144,
        "mt_layers": 2,
        "mt_heads": 4,
        "mt_ffn_dim": 576,
        "unit_dim": 144,
        "unit_layers": 2,
        "unit_heads": 4,
        "unit_ffn_dim": 576,
        "dropout": 0.05,
    },
    "echostream_whisper_base": WHISPER_BASE,
    # Every second layer of it.
    "echostream_whisper_small": {**WHISPER_BASE, "encoder_layers": 3},
}


def parse_heads(text: str) -> list[tuple[int, int]]:
    """Parse a list of attention heads such as ``"3.1,4.2"``: pairs of a layer and a head, counted from 0.

    Raises:
        ValueError: ``text`` is not such a list.
    """
    heads = []
    for part in filter(None, text.split(",")):
        layer, dot, head = part.partition(".")
        if not (dot and layer.isdecimal() and head.isdecimal()):
            raise ValueError(f"mt_alignment_heads is {text!r}; it must be pairs of a layer and a head, as '3.1,4.2'")
        heads.append((int(layer), int(head)))
    return heads


def architecture_config(arch: str) -> EchoStreamConfig:
    """The configuration called ``arch``.

    Raises:
        ValueError: an unknown name.
    """
    if arch not in ARCHITECTURES:
        raise ValueError(f"unknown architecture '{arch}': choose one of {', '.join(ARCHITECTURES)}")
    return EchoStreamConfig(**ARCHITECTURES[arch])
