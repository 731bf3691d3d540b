"""The multi-chunk speech-to-speech translation task: data, dictionaries, segment sizes, validation scores."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fairseq.data import Dictionary
from fairseq.tasks import FairseqTask, register_task
from omegaconf.errors import OmegaConfBaseException

from echostream.constants import FRAME_MS, FULL_PRECISION
from echostream.tasks import scoring
from echostream.tasks.batches import ErrorReportingBatchIterator
from echostream.tasks.checkpoint_files import check_resumed
from echostream.tasks.columns import Ragged
from echostream.tasks.config import EchoStreamTaskConfig
from echostream.tasks.data_config import TextConfig, load_multitask_config, load_speech_config
from echostream.tasks.dataset import SpeechTranslationDataset
from echostream.tasks.features import FeatureReader
from echostream.tasks.generation import (
    OUTPUTS,
    GenerationDataset,
    OfflineGenerator,
    PieceJoiner,
    UnitFile,
    unit_dictionary,
)
from echostream.tasks.initial_weights import freeze_parts, load_initial_weights
from echostream.tasks.manifests import (
    Manifest,
    ManifestError,
    check_same_texts,
    check_units,
    exit_with_message,
    read_utterances,
)
from echostream.tasks.optimizer import ScaledAdamW, scale_learning_rate
from echostream.tasks.phones import SourcePhones, read_source_phones
from echostream.tasks.segments import MultiChunkSampler, parse_right_contexts, parse_segment_sizes, segment_name
from echostream.tasks.streamed_translation import translate_as_streamed
from echostream.tasks.texts import dictionary_from_symbols, encode_texts, warn_about_ctc_length
from echostream.tasks.unlabelled import UnlabelledSpeech, parse_speeds

logger = logging.getLogger(__name__)


@register_task("echostream", dataclass=EchoStreamTaskConfig)
class EchoStreamTask(FairseqTask):
    """Speech-to-speech translation with source and target text, for one model that runs with any segment size.

    The model reads ``source_dictionary``, ``target_text_dictionary``, ``num_units`` and ``cmvn`` (mean and standard
    deviation, float32 ``(80,)`` each, or None). The first three are stored in the checkpoint's ``task_state`` as plain
    lists and numbers, so that a checkpoint can be used without the training data.

    Attributes:
        from_checkpoint: the options are those in a checkpoint, which must not choose code.
    """

    def __init__(self, cfg: EchoStreamTaskConfig):
        super().__init__(cfg)
        self.segment_sizes = parse_segment_sizes(cfg.segment_sizes, allow_uniform=True)
        self.valid_segment_sizes = parse_segment_sizes(cfg.valid_segment_sizes)
        self.right_contexts = parse_right_contexts(cfg.right_contexts)
        if cfg.generate not in ("none", *OUTPUTS):
            raise ValueError(f"--generate is {cfg.generate!r}, not one of {', '.join(OUTPUTS)}")
        self.generates = cfg.generate != "none"
        self.texts: dict[str, TextConfig] = {}
        self.cmvn: tuple[np.ndarray, np.ndarray] | None = None
        self.phone_inventory: list[str] = []
        self.source_phones: SourcePhones | None = None
        self._manifests: dict[str, Manifest] = {}  # read, but not yet made into a data set
        self.from_checkpoint = False
        self.front_end, self.frame_ms = "fbank", FRAME_MS  # until a model says otherwise
        self._num_to_generate = 0
        self._sampler = MultiChunkSampler(self.segment_sizes, cfg.seed, cfg.segment_warmup_updates)
        self._draws = (-1, -1)  # update, and batch within the update, for which a segment size was last drawn

    @classmethod
    def setup_task(cls, cfg: EchoStreamTaskConfig, from_checkpoint: bool = False) -> EchoStreamTask:
        """Read the configs and the training manifest.

        Args:
            cfg: options.
            from_checkpoint: read no files; the dictionaries are loaded later from the checkpoint's task state.

        Raises:
            SystemExit: with a one-line message that names the file, line or option to correct.
        """
        with exit_with_message(ValueError):
            task = cls(cfg)
            task.from_checkpoint = from_checkpoint
            if not from_checkpoint:
                task.read_configs()
        return task

    def read_configs(self) -> None:
        """Load the YAML configs, dictionaries and CMVN.

        Raises:
            ManifestError: a file is missing or not valid, or does not fit the checkpoint.
        """
        folder = Path(self.cfg.data)
        if not folder.is_dir():
            raise ManifestError(f"{folder}: no such data folder")
        self.speech_config = load_speech_config(folder / self.cfg.config_yaml)
        self.texts = load_multitask_config(folder / self.cfg.multitask_config_yaml)
        self.cmvn = self.speech_config.cmvn
        if self.cfg.source_phones:
            self.phone_inventory, self.source_phones = read_source_phones(
                folder / self.cfg.source_phones, self.frame_ms
            )
        source, target = self.texts["source_unigram"], self.texts["target_unigram"]
        if self.state.state_dict:  # the task of a checkpoint, for which data is loaded now
            self._check_symbols(self.state.state_dict, source, target)
        else:
            self.state.merge_state_dict(
                {
                    "source_symbols": list(source.dictionary.symbols),
                    "target_symbols": list(target.dictionary.symbols),
                    "num_units": self.cfg.num_units or self.speech_config.num_units or self._largest_unit() + 1,
                }
            )
        self._set_dictionaries()
        logger.info(
            f"{len(self.source_dictionary)} source pieces, {len(self.target_text_dictionary)} target pieces, "
            f"{self.num_units} units; the multitask YAML's decoder_args are not used, --arch sets the layers"
        )

    @staticmethod
    def _check_symbols(state: dict[str, Any], source: TextConfig, target: TextConfig) -> None:
        for key, text in (("source_symbols", source), ("target_symbols", target)):
            if state[key] != text.dictionary.symbols:
                raise ManifestError(
                    f"{text.dictionary_path} is not the dictionary that the checkpoint was trained with "
                    f"({len(text.dictionary)} and {len(state[key])} symbols)"
                )

    def get_checkpoint_dict(self) -> dict[str, Any]:
        """Task state that fairseq passes to :meth:`set_checkpoint_dict` when a run is resumed."""
        return {type(self).__name__: dict(self.state.state_dict)}

    def set_checkpoint_dict(self, state: dict[str, Any]) -> None:
        """Refuse to resume with other dictionaries, which may have the same size but different symbols.

        Raises:
            SystemExit: the dictionaries differ.
        """
        with exit_with_message(ManifestError):
            self._check_symbols(state, self.texts["source_unigram"], self.texts["target_unigram"])

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take dictionaries and unit count from a checkpoint's ``task_state``.

        Raises:
            SystemExit: the data that was read before has other dictionaries.
        """
        if self.texts:
            self.set_checkpoint_dict(state_dict)
        super().load_state_dict(state_dict)
        self._set_dictionaries()

    def _set_dictionaries(self) -> None:
        self._source_dictionary = dictionary_from_symbols(self.state.source_symbols)
        self._target_dictionary = dictionary_from_symbols(self.state.target_symbols)
        self._unit_dictionary = unit_dictionary(self.state.num_units)

    @property
    def source_dictionary(self) -> Dictionary:
        """Pieces of the source text; index 0 is the CTC blank."""
        return self._source_dictionary

    @property
    def target_text_dictionary(self) -> Dictionary:
        """Pieces of the target text; index 0 is the CTC blank."""
        return self._target_dictionary

    @property
    def target_dictionary(self) -> Dictionary:
        """The dictionary of what is generated or scored, under fairseq's name: that of the target text by default."""
        if self.cfg.generate == "asr":
            return self._source_dictionary
        return self._unit_dictionary if self.cfg.generate == "s2ut" else self._target_dictionary

    @property
    def num_units(self) -> int:
        """Size of the unit inventory, specials not counted."""
        return self.state.num_units

    def max_positions(self) -> tuple[int, int] | None:
        """Longest source (10 ms frames) and longest target text (subwords) for training; None: no limit to generate."""
        if self.generates:
            return None
        return self.cfg.max_source_positions, self.cfg.max_target_positions

    def _manifest(self, split: str) -> Manifest:
        if split not in self._manifests:
            path = Path(self.cfg.data) / f"{split}.tsv"
            self._manifests[split] = read_utterances(
                path, self.speech_config.audio_root or path.parent, self.speech_config.allow_empty
            )
        return self._manifests[split]

    def _largest_unit(self) -> int:
        splits = self.cfg.train_subset.split(",")
        return max(int(self._manifest(split).units.values.max(initial=0)) for split in splits)

    def load_dataset(self, split: str, combine: bool = False, **kwargs: Any) -> None:
        """Load and check one split, or several separated by commas.

        Raises:
            SystemExit: with a one-line message that names the file and line to correct.
        """
        with exit_with_message(ManifestError):
            if not self.texts:
                self.read_configs()
            dataset = self._build_dataset(split)
            if self.generates:
                dataset = GenerationDataset(dataset, self.cfg.generate, self._unit_dictionary)
            self.datasets[split] = dataset

    def _build_dataset(self, split: str) -> SpeechTranslationDataset:
        is_train = split in (self.cfg.train_subset, *self.cfg.train_subset.split(","))
        allow_empty = self.speech_config.allow_empty
        manifests: list[Manifest] = []
        texts: tuple[list[Ragged], list[Ragged]] = ([], [])
        for part in split.split(","):
            rows = self._manifest(part)
            path = Path(self.cfg.data) / f"{part}.tsv"
            check_units(path, rows, self.num_units)
            check_same_texts(
                self.texts["target_unigram"].data, self.texts["ctc_target_unigram"].data, part, allow_empty
            )
            manifests.append(rows)
            for encoded, name in zip(texts, ("source_unigram", "target_unigram"), strict=True):
                encoded.append(encode_texts(path, rows, part, self.texts[name], allow_empty))
            del self._manifests[part]
        utterances = Manifest.join(manifests)
        sources, targets = map(Ragged.join, texts)
        minutes = utterances.n_frames.sum(dtype=np.int64) / 6000
        logger.info(f"{split}: {len(utterances)} utterances, {minutes:.1f} min of source")
        warn_about_ctc_length(split, utterances, sources, targets, self.frame_ms)
        cache_bytes = self.cfg.feature_cache_mb * 2**20
        reader = FeatureReader(self.speech_config, split, is_train, cache_bytes, self.front_end)
        return SpeechTranslationDataset(
            utterances,
            sources,
            targets,
            reader,
            self.source_dictionary,
            self.target_text_dictionary,
            self.cfg.seed,
            self.source_phones,
            str(self.cfg.on_length_mismatch) == "skip",
            self.unlabelled_speech() if is_train else None,
            self.cfg.unlabelled_pieces,
        )

    def unlabelled_speech(self) -> UnlabelledSpeech | None:
        """The speech of ``--unlabelled-audio``; None without that option.

        Raises:
            ManifestError: its table can't be used, or fewer than one piece a batch.
        """
        if not self.cfg.unlabelled_audio:
            return None
        if self.cfg.unlabelled_pieces < 1:
            raise ManifestError(f"--unlabelled-pieces is {self.cfg.unlabelled_pieces}; it must be at least 1")
        path = Path(self.cfg.data) / self.cfg.unlabelled_audio
        speeds = parse_speeds(self.cfg.unlabelled_speeds)
        share = self.cfg.unlabelled_telephone_share
        return UnlabelledSpeech(path, self._plain_reader(), self.cfg.unlabelled_piece_s, share, speeds)

    def _plain_reader(self) -> FeatureReader:
        """Features without augmentation."""
        return FeatureReader(self.speech_config, self.cfg.train_subset, False, 0, self.front_end)

    def _any_speech(self) -> UnlabelledSpeech:
        """The speech of ``--unlabelled-audio``, without that option that of the training data."""
        if (speech := self.unlabelled_speech()) is not None:
            return speech
        path = Path(self.cfg.data) / f"{self.cfg.train_subset.split(',')[0]}.tsv"
        root = self.speech_config.audio_root
        return UnlabelledSpeech(
            path, self._plain_reader(), self.cfg.unlabelled_piece_s, column="src_audio", root=root or path.parent
        )

    def get_batch_iterator(self, dataset: SpeechTranslationDataset, **kwargs: Any) -> Any:
        """fairseq's iterator with new workers for every epoch and readable errors, see :mod:`echostream.tasks.batches`.

        Workers that are kept alive between epochs have a copy of the data set of the first epoch and would repeat its
        augmentation in every epoch.
        """
        iterator = super().get_batch_iterator(dataset, **kwargs)
        iterator.reuse_dataloader = False
        iterator.persistent_workers = False
        iterator.__class__ = ErrorReportingBatchIterator
        self._num_to_generate = sum(map(len, iterator.frozen_batches)) if self.generates else 0
        return iterator

    def build_bpe(self, args: Any) -> Any:
        """fairseq's, or else one that joins subwords when text is generated."""
        bpe = super().build_bpe(args)
        return PieceJoiner(self.cfg.generate == "s2ut") if bpe is None and self.generates else bpe

    def build_generator(self, models: Any, args: Any, *_: Any, **__: Any) -> OfflineGenerator:
        """The generator of ``fairseq-generate``, see :mod:`echostream.tasks.generation`.

        Raises:
            SystemExit: with a one-line message: ``--generate`` is missing, an option that this generator doesn't have,
                or a language model that can't be used.
        """
        with exit_with_message(ValueError, OSError):
            if not self.generates:
                raise ValueError(f"fairseq-generate needs --generate with one of {', '.join(OUTPUTS)}")
            unit_file = None
            if self.cfg.generate == "s2ut" and self.cfg.results_path:
                path = Path(self.cfg.results_path) / f"generate-{self.cfg.gen_subset}.unit"
                unit_file = UnitFile(path, self._num_to_generate)
            return OfflineGenerator(
                models,
                args,
                self.cfg.generate,
                self.source_dictionary,
                self.target_text_dictionary,
                self._unit_dictionary,
                self.cfg.source_lm,
                self.cfg.source_lm_weight,
                self.cfg.source_lm_bonus,
                unit_file,
            )

    def build_model(self, cfg: Any, from_checkpoint: bool = False) -> Any:
        """Build the model, with the weights that the options ``--init-...`` name.

        Raises:
            SystemExit: with a one-line message, if one of these files or the checkpoint to resume from can't be used.
        """
        with exit_with_message(ValueError, OmegaConfBaseException):  # inconsistent sizes, unknown options
            model = super().build_model(cfg, from_checkpoint)
        self.front_end = model.cfg.front_end  # whose features speech without transcripts has, from which weights start
        if not from_checkpoint:
            if model.cfg.mt_further_tokens:
                raise SystemExit(
                    "echostream: --mt-further-tokens is not for training: scripts/training/add_subwords.py adds them "
                    "to what was trained"
                )
            starts = self.cfg.init_encoder_from_whisper or self.cfg.init_mt_decoder_from_whisper
            if self.cfg.pretrained_lr_scale != 1 and not starts:
                raise SystemExit(
                    f"echostream: --pretrained-lr-scale {self.cfg.pretrained_lr_scale:g} is for what starts from "
                    "Whisper: name its file with --init-encoder-from-whisper and --init-mt-decoder-from-whisper, also "
                    "where --finetune-from-model takes their place, or give --pretrained-lr-scale 1"
                )
            with exit_with_message(ManifestError):
                check_resumed(self.cfg, self.state.state_dict, self.cmvn, model)
            load_initial_weights(model, self.cfg, self.state.state_dict, self._any_speech)
            if self.cfg.init_encoder_from_whisper:
                # With the layer that joins frames: it starts as their mean, and all that was learned goes through it.
                scale_learning_rate(model.encoder, self.cfg.pretrained_lr_scale)
            if self.cfg.init_mt_decoder_from_whisper:
                scale_learning_rate(model.mt_decoder, self.cfg.pretrained_lr_scale)
            with exit_with_message(ValueError):
                freeze_parts(model, self.cfg.freeze)
        self.model_cfg = model.cfg
        if self.phone_inventory and model.frame_ms != self.frame_ms:
            raise SystemExit(
                f"echostream: --source-phones are one for {self.frame_ms} ms, the front end {model.cfg.front_end} has "
                f"frames of {model.frame_ms} ms: leave them out"
            )
        self.frame_ms = model.frame_ms
        return model

    def build_criterion(self, cfg: Any, from_checkpoint: bool = False) -> Any:
        """Build the criterion.

        Raises:
            SystemExit: with a one-line message, if an option is out of range.
        """
        with exit_with_message(ValueError):
            return super().build_criterion(cfg, from_checkpoint)

    def draw_segment(self, sample: dict[str, Any], update_num: int) -> int:
        """Segment size (25 Hz frames, 0: whole utterance) for the next batch of update ``update_num``."""
        update, micro_batch = self._draws
        self._draws = (update_num, micro_batch + 1 if update == update_num else 0)
        return self._sampler.sample_segment_length(*self._draws, self._longest_frames(sample))

    def _longest_frames(self, sample: dict[str, Any]) -> int:
        """Encoder frames of the longest utterance over all ranks; 0 unless segment sizes are sampled uniformly.

        Only uniform sampling needs the length, so that all other trainings avoid the synchronisation of the ranks.
        """
        if self.segment_sizes is not None:
            return 0
        longest = (sample["net_input"]["src_lengths"].max() + 3) // 4
        if torch.distributed.is_initialized():
            torch.distributed.all_reduce(longest, op=torch.distributed.ReduceOp.MAX)
        return int(longest)

    def train_step(
        self,
        sample: dict[str, Any],
        model: Any,
        criterion: Any,
        optimizer: Any,
        update_num: int,
        ignore_grad: bool = False,
    ) -> tuple:
        """fairseq's training step, with a segment size and right context drawn for the batch."""
        if self.cfg.pretrained_lr_scale != 1 and not isinstance(optimizer, ScaledAdamW):
            raise SystemExit("echostream: --pretrained-lr-scale needs --optimizer echostream_adamw, in fp32 or --amp")
        sample = {**sample, "segment": self.draw_segment(sample, update_num)}
        if self.right_contexts is not None:
            sample["right_context"] = self._sampler.sample_right_context(*self._draws, self.right_contexts)
        if str(self.cfg.autocast) == FULL_PRECISION:
            return super().train_step(sample, model, criterion, optimizer, update_num, ignore_grad)

        def rounded(model: Any, sample: dict[str, Any]) -> tuple:
            # The forward pass alone: the backward pass takes its precisions from it.
            with torch.autocast(sample["net_input"]["src_tokens"].device.type, torch.bfloat16):
                return criterion(model, sample)

        return super().train_step(sample, model, rounded, optimizer, update_num, ignore_grad)

    def valid_step(self, sample: dict[str, Any], model: Any, criterion: Any) -> tuple:
        """Losses and scores at each validation segment size; the losses are summed over the sizes."""
        model.eval()
        total: dict[str, Any] = {}
        losses = []
        for size in self.valid_segment_sizes or ():
            with torch.no_grad():
                loss, sample_size, log, output = criterion.compute(model, {**sample, "segment": size})
                counts = scoring.count(
                    output,
                    sample,
                    self.source_dictionary,
                    self.target_text_dictionary,
                    model,
                    self.cfg.eval_mt_bleu,
                )
                if self.cfg.eval_mt_bleu and size:
                    streamed = translate_as_streamed(
                        model, output, size, self.source_dictionary, self.target_text_dictionary, criterion.policy
                    )
                    references = scoring.references(sample, self.target_text_dictionary)
                    counts |= scoring.bleu_counts("mt_streamed", streamed, references)
            losses.append(loss)
            for key, value in log.items():
                total[key] = total.get(key, 0) + value
            name = segment_name(size, self.frame_ms)
            counts |= {"loss": log["loss"], "sample_size": log["sample_size"]}
            total.update({scoring.key(name, key): value for key, value in counts.items()})
        total["nsentences"], total["ntokens"] = log["nsentences"], log["ntokens"]
        return sum(losses), sample_size * len(losses), total

    def reduce_metrics(self, logging_outputs: list[dict[str, Any]], criterion: Any) -> None:
        """Log the criterion's meters and, in validation, the scores at each segment size."""
        super().reduce_metrics(logging_outputs, criterion)
        for size in self.valid_segment_sizes or ():
            scoring.log_scores(logging_outputs, segment_name(size, self.frame_ms))
