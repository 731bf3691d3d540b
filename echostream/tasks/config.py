"""Options of the task ``echostream``."""

from dataclasses import dataclass, field
from typing import Optional

from fairseq.dataclass import ChoiceEnum, FairseqDataclass
from omegaconf import II, MISSING

from echostream.constants import FULL_PRECISION, LM_BONUS, LM_WEIGHT


@dataclass
class EchoStreamTaskConfig(FairseqDataclass):
    """Data, segment sizes and validation of the task ``echostream``."""

    data: str = field(default=MISSING, metadata={"help": "folder with the manifests {split}.tsv and the YAML configs"})
    config_yaml: str = field(
        default="config_gcmvn.yaml",
        metadata={"help": "feature config (YAML), a path or a file name in the data folder"},
    )
    multitask_config_yaml: str = field(
        default="config_multitask.yaml",
        metadata={
            "help": "YAML with the texts source_unigram, ctc_target_unigram and target_unigram, a path or a file name "
            "in the data folder"
        },
    )
    num_units: int = field(
        default=0,
        metadata={
            "help": "number of target units (clusters), specials not counted; 0: num_units of the feature config, or "
            "else the largest unit in the training manifest plus one. It has to be the vocoder's, e.g. 1000"
        },
    )
    max_source_positions: int = field(
        default=6000, metadata={"help": "longest source for training, log-mel frames of 10 ms"}
    )
    max_target_positions: int = field(default=1024, metadata={"help": "longest target text for training, pieces"})
    segment_sizes: str = field(
        default="1,2,4,8,16,32,0",
        metadata={
            "help": "segment sizes drawn for training batches, frames of 40 ms, 0 for the whole utterance; or "
            "'uniform' for 1 up to the longest utterance of the batch"
        },
    )
    right_contexts: Optional[str] = field(  # noqa: UP045
        default=None,
        metadata={
            "help": "right contexts drawn for training batches, encoder frames, such as '0,4,8,16', so that any "
            "of them can be chosen at inference (default: the model's right_context_frames alone)"
        },
    )
    segment_warmup_updates: int = field(
        default=0,
        metadata={
            "help": "updates over which the larger segment sizes join in, smallest first; 0: all sizes from the start. "
            "CTC heads that start with the whole utterance learn to emit symbols before they are heard"
        },
    )
    valid_segment_sizes: str = field(
        default="1,8,0",
        metadata={"help": "segment sizes that validation reports at, frames of 40 ms, 0 for the whole utterance"},
    )
    eval_mt_bleu: bool = field(
        default=False,
        metadata={
            "help": "in validation, translate greedily with the text decoder and report BLEU, with the whole utterance "
            "in sight and, at segment sizes below that, streamed under the criterion's policy (slower: a decoder pass "
            "per piece)"
        },
    )
    source_phones: Optional[str] = field(  # noqa: UP045
        default=None,
        metadata={
            "help": "table with the columns id and phones (one phone for each 20 ms of the source, separated by "
            "spaces), a path or a file name in the data folder, for the criterion's --phone-weight"
        },
    )
    unlabelled_audio: Optional[str] = field(  # noqa: UP045
        default=None,
        metadata={
            "help": "table with the columns id and audio of speech in any language, a path or a file name in the data "
            "folder, for the criterion's --encoder-teacher: pieces of it stand beside every training batch"
        },
    )
    unlabelled_pieces: int = field(default=1, metadata={"help": "pieces beside every batch, at least 1"})
    unlabelled_piece_s: float = field(default=10.0, metadata={"help": "length of each piece, at most 30 s"})
    unlabelled_telephone_share: float = field(
        default=0.0,
        metadata={"help": "share of the pieces that the model hears as over a telephone, and the teacher as they are"},
    )
    unlabelled_speeds: str = field(
        default="1",
        metadata={"help": "speeds, as '0.9,1,1.1', of which one is drawn for each recording in a piece: other voices"},
    )
    feature_cache_mb: int = field(
        default=256, metadata={"help": "memory for log-mel features kept between epochs, MiB per data loader"}
    )
    on_length_mismatch: ChoiceEnum(["stop", "skip"]) = field(  # type: ignore[valid-type]  # made at run time
        default="stop",
        metadata={
            "help": "what to do with a recording whose length is not src_n_frames of its row (by more than 20 % and "
            "0.5 s), which is found before it is decoded: 'stop' the training, or 'skip' the row with a warning"
        },
    )
    init_encoder_from: Optional[str] = field(  # noqa: UP045
        default=None,
        metadata={
            "help": "fairseq checkpoint, EchoStream's or StreamSpeech's, that the speech encoder starts from; not used "
            "when a run is resumed. What doesn't fit is listed"
        },
    )
    init_encoder_from_whisper: Optional[str] = field(  # noqa: UP045
        default=None,
        metadata={
            "help": "Whisper's weights that the speech encoder starts from: CTranslate2's model.bin, OpenAI's .pt, or "
            ".safetensors with the names of transformers; for architectures such as echostream_whisper_base"
        },
    )
    init_mt_decoder_from_whisper: Optional[str] = field(  # noqa: UP045
        default=None,
        metadata={
            "help": "Whisper's weights that the text decoder starts from, in the same formats, with tokenizer.json "
            "beside them; of its tokens those of the target dictionary are taken"
        },
    )
    whisper_language: str = field(
        default="fr",
        metadata={"help": "language of the source as Whisper's tokens name it, for that decoder's prompt"},
    )
    pretrained_lr_scale: float = field(
        default=1.0,
        metadata={
            "help": "share of the learning rate for the encoder and the text decoder if they start from Whisper's "
            "weights; needs --optimizer echostream_adamw"
        },
    )
    autocast: ChoiceEnum([FULL_PRECISION, "bfloat16"]) = field(  # type: ignore[valid-type]  # made at run time
        default=FULL_PRECISION,
        metadata={
            "help": "precision of products of matrices in training; weights, sums, losses and the optimizer stay in "
            "float32. bfloat16 is for processors with AVX512-BF16 or AMX; on a GPU there is --amp"
        },
    )
    freeze: str = field(
        default="",
        metadata={
            "help": "parts of the model that stay as they are, separated by commas: encoder, asr_head, st_head, "
            "mt_decoder, unit_decoder, or parts of these such as encoder.subsampler and encoder.emformer.layers.0. "
            "With the encoder among them a training hears about three times as much in a second, and fits the decoders "
            "to it alone"
        },
    )
    init_decoders_from: Optional[str] = field(  # noqa: UP045
        default=None,
        metadata={
            "help": "fairseq checkpoint that the CTC heads, the text decoder and the unit decoder start from, "
            "likewise. Vocabularies of equal size are taken to be the same where the checkpoint doesn't hold them"
        },
    )
    generate: str = field(
        default="none",
        metadata={
            "help": "what fairseq-generate prints and scores: asr (source text by CTC; --beam above 1: prefix beam "
            "search), s2tt (translation by the text decoder) or s2ut (its units, also as generate-SUBSET.unit in "
            "--results-path); not used in training"
        },
    )
    source_lm: Optional[str] = field(  # noqa: UP045
        default=None,
        metadata={"help": "ARPA language model of the source's subwords, a path, for --generate asr"},
    )
    source_lm_weight: float = field(default=LM_WEIGHT, metadata={"help": "weight of its log-probabilities"})
    source_lm_bonus: float = field(default=LM_BONUS, metadata={"help": "nats for each subword that it scores"})
    # shared with fairseq's own option groups
    seed: int = II("common.seed")
    train_subset: str = II("dataset.train_subset")
    save_dir: str = II("checkpoint.save_dir")
    restore_file: str = II("checkpoint.restore_file")
    finetune_from_model: Optional[str] = II("checkpoint.finetune_from_model")  # noqa: UP045
    continue_once: Optional[str] = II("checkpoint.continue_once")  # noqa: UP045
    checkpoint_suffix: str = II("checkpoint.checkpoint_suffix")
    gen_subset: str = II("dataset.gen_subset")
    results_path: Optional[str] = II("common_eval.results_path")  # noqa: UP045
