"""The two YAML files of a data folder: features (``config_gcmvn.yaml``) and texts (multitask).

The formats are those of fairseq's speech-to-unit recipes, as StreamSpeech (Zhang et al., ACL 2024) uses them. Paths are
absolute or relative to the folder of the YAML file. An unknown key is an error: ignoring a misspelt one would train
with other settings than intended.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from fairseq.data import Dictionary

from echostream.checkpoints.errors import UnsafeFileError
from echostream.checkpoints.safe_loading import load_arrays
from echostream.checkpoints.text_files import read_yaml
from echostream.constants import SAMPLE_RATE
from echostream.modules.fbank import NUM_MELS
from echostream.tasks.manifests import ManifestError

SPEECH_KEYS = {
    "allow_empty_targets", "audio_root", "feature_transforms", "global_cmvn", "hub", "input_channels",
    "input_feat_per_channel", "num_units", "output_sample_rate", "sample_rate", "shuffle", "specaugment", "transforms",
    "vocab_filename", "vocoder",
}  # fmt: skip
# Both spellings of the time warp occur: fairseq's preparation script writes one, and its transform reads the other.
SPECAUGMENT_KEYS = {
    "freq_mask_F", "freq_mask_N", "mask_value", "time_mask_N", "time_mask_T", "time_mask_p", "time_warp_W",
    "time_wrap_W",
}  # fmt: skip
STREAMABLE_TRANSFORMS = {"global_cmvn", "specaugment"}
TEXT_KEYS = {
    "bpe_tokenizer", "data", "decoder_args", "decoder_type", "dict", "label_smoothing", "loss_weight",
    "pre_tokenizer", "rdrop_alpha",
}  # fmt: skip
MAX_CMVN_BYTES = 1_000_000
TEXT_ENTRIES = {"source_unigram": "ctc", "ctc_target_unigram": "ctc", "target_unigram": "transformer"}


def _load_yaml(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ManifestError(f"{path}: no such config")
    try:
        config = read_yaml(path)
    except OSError as error:
        raise ManifestError(f"{path}: {error.strerror or error}") from None
    except UnsafeFileError as error:
        raise ManifestError(f"{path}: not valid YAML: {error}") from None
    if not isinstance(config, dict):
        raise ManifestError(f"{path}: expected a mapping of keys to values")
    return config


def _check_keys(path: Path, section: str, config: Any, known: set[str]) -> None:
    if not isinstance(config, dict):
        raise ManifestError(f"{path}: {section} must be a mapping of keys to values")
    for key in config:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(sorted(known))}"
            raise ManifestError(f"{path}: unknown key {key!r}{f' in {section}' if section else ''}; {hint}")


def _resolve(path: Path, key: str, value: Any) -> Path:
    if not isinstance(value, str) or not value:
        raise ManifestError(f"{path}: {key} must be a path, not {value!r}")
    resolved = path.parent / Path(value).expanduser()
    if not resolved.exists():
        raise ManifestError(f"{path}: {key}: {resolved} does not exist")
    return resolved


def _number(path: Path, section: str, key: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        raise ManifestError(f"{path}: {section}: {key} is {value!r}, not a number >= 0")
    return float(value)


@dataclass(frozen=True)
class SpeechDataConfig:
    """Content of ``config_gcmvn.yaml`` with resolved paths.

    Attributes:
        audio_root: folder of relative audio paths; None: the folder of the manifest.
        cmvn: global mean and standard deviation, float32 ``(80,)`` each; None: features are not normalised.
        num_units: size of the unit inventory; 0 if the config doesn't give it.
        allow_empty: an utterance may have no text and no units, where its right answer is nothing.
        options: mapping from which fairseq's transforms are built.
    """

    audio_root: Path | None
    cmvn: tuple[np.ndarray, np.ndarray] | None
    num_units: int
    allow_empty: bool
    options: dict[str, Any]

    def transform_options(self, split: str, is_train: bool) -> dict[str, Any]:
        """Mapping from which fairseq's ``CompositeAudioFeatureTransform`` builds the transforms of ``split``."""
        return {**self.options, "feature_transforms": _transform_names(self.options, split, is_train) or None}


def _transform_names(options: dict[str, Any], split: str, is_train: bool) -> list[str]:
    names: list[str] = []
    for key in ("transforms", "feature_transforms"):
        table = options.get(key) or {}
        for wildcard in (split, "_train" if is_train else "_eval", "*"):
            if wildcard in table:
                names += table[wildcard] or []
                break
    return names


def load_speech_config(path: Path) -> SpeechDataConfig:
    """Read and check ``config_gcmvn.yaml``.

    Raises:
        ManifestError: an unknown key, a missing file, features that the streaming front end cannot compute, or
            statistics of the wrong shape.
    """
    options = _load_yaml(path)
    _check_keys(path, "", options, SPEECH_KEYS)
    _check_keys(path, "specaugment", options.get("specaugment", {}), SPECAUGMENT_KEYS)
    _check_keys(path, "global_cmvn", options.get("global_cmvn", {}), {"stats_npz_path"})
    for key, value in (
        ("input_channels", 1),
        ("input_feat_per_channel", NUM_MELS),
        ("sample_rate", SAMPLE_RATE),
    ):
        if options.get(key, value) != value:
            raise ManifestError(f"{path}: {key} is {options[key]!r}; EchoStream needs {value}")
    for key in ("transforms", "feature_transforms"):
        for split, names in _table(path, key, options).items():
            for name in names:
                if not isinstance(name, str) or name not in STREAMABLE_TRANSFORMS:
                    raise ManifestError(
                        f"{path}: {key} of {split!r}: {name!r} is not supported; a stream can use "
                        f"{' and '.join(sorted(STREAMABLE_TRANSFORMS))}"
                    )
    root = options.get("audio_root")
    audio_root = _resolve(path, "audio_root", root) if root else None
    normalised = {"global_cmvn" in _transform_names(options, "", is_train) for is_train in (True, False)}
    if len(normalised) == 2:
        raise ManifestError(f"{path}: global_cmvn must be in the transforms of both '_train' and '*', or of neither")
    cmvn = None
    if normalised == {True}:
        stats = _resolve(path, "global_cmvn.stats_npz_path", options.get("global_cmvn", {}).get("stats_npz_path"))
        options = {**options, "global_cmvn": {"stats_npz_path": str(stats)}}
        cmvn = _load_cmvn(stats)
    num_units = _number(path, "units", "num_units", options.get("num_units", 0))
    if num_units != int(num_units):
        raise ManifestError(f"{path}: num_units is {num_units}, not a whole number")
    allow_empty = options.get("allow_empty_targets", False)
    if not isinstance(allow_empty, bool):
        raise ManifestError(f"{path}: allow_empty_targets is {allow_empty!r}, neither true nor false")
    return SpeechDataConfig(audio_root, cmvn, int(num_units), allow_empty, options)


def _table(path: Path, key: str, options: dict[str, Any]) -> dict[str, list[str]]:
    table = options.get(key) or {}
    if not isinstance(table, dict) or not all(isinstance(v, list | None) for v in table.values()):
        raise ManifestError(f"{path}: {key} must map a split, '_train', '_eval' or '*' to a list of transforms")
    return {split: names or [] for split, names in table.items()}


def _load_cmvn(path: Path) -> tuple[np.ndarray, np.ndarray]:
    try:
        stats = load_arrays(path, MAX_CMVN_BYTES)
        mean, std = (np.asarray(stats[name], dtype=np.float32) for name in ("mean", "std"))
    except (UnsafeFileError, KeyError, ValueError, TypeError, OSError) as error:
        raise ManifestError(f"{path}: not an .npz with 'mean' and 'std' ({error})") from None
    if mean.shape != (NUM_MELS,) or std.shape != (NUM_MELS,):
        raise ManifestError(f"{path}: mean {mean.shape} and std {std.shape} must both be ({NUM_MELS},)")
    if not (np.isfinite(mean).all() and np.isfinite(std).all() and (std > 0).all()):
        raise ManifestError(f"{path}: mean and std must be finite and std positive in every mel bin")
    return mean, std


@dataclass(frozen=True)
class TextConfig:
    """One entry of the multitask YAML: a text with its dictionary.

    Attributes:
        name: key of the entry.
        dictionary_path, dictionary: fairseq dictionary of the text.
        data: folder of the ``{split}.tsv`` files.
        loss_weight, label_smoothing, rdrop_alpha: settings of the criterion; None if the file doesn't give them.
        tokenizers: fairseq's ``bpe_tokenizer`` and ``pre_tokenizer`` mappings, for texts that are not yet split into
            subwords.
    """

    name: str
    dictionary_path: Path
    dictionary: Dictionary
    data: Path
    loss_weight: float | None
    label_smoothing: float | None
    rdrop_alpha: float | None
    tokenizers: dict[str, dict[str, Any]]


def load_multitask_config(path: Path) -> dict[str, TextConfig]:
    """Read and check the multitask YAML; returns the three entries by name.

    ``ctc_target_unigram`` and ``target_unigram`` describe the same text and must have dictionaries with equal symbols.

    Raises:
        ManifestError: a missing or unknown entry or key, a missing file, or dictionaries that differ.
    """
    config = _load_yaml(path)
    _check_keys(path, "", config, set(TEXT_ENTRIES))
    entries = {}
    for name, decoder_type in TEXT_ENTRIES.items():
        if name not in config:
            raise ManifestError(f"{path}: entry {name!r} is missing; it needs {', '.join(TEXT_ENTRIES)}")
        entries[name] = _load_entry(path, name, decoder_type, config[name])
    one, other = entries["target_unigram"], entries["ctc_target_unigram"]
    if one.dictionary.symbols != other.dictionary.symbols:
        raise ManifestError(
            f"{path}: target_unigram and ctc_target_unigram must share their symbols, but {one.dictionary_path} "
            f"({len(one.dictionary)}) and {other.dictionary_path} ({len(other.dictionary)}) differ"
        )
    return entries


def _load_entry(path: Path, name: str, decoder_type: str, entry: Any) -> TextConfig:
    _check_keys(path, name, entry, TEXT_KEYS)
    for key in ("dict", "data"):
        if key not in entry:
            raise ManifestError(f"{path}: {name}: key {key!r} is missing")
    if entry.get("decoder_type", "transformer") != decoder_type:
        raise ManifestError(
            f"{path}: {name}: decoder_type is {entry.get('decoder_type', 'transformer')!r}, not {decoder_type!r}"
        )
    dictionary_path = _resolve(path, f"{name}.dict", entry["dict"])
    try:
        dictionary = Dictionary.load(str(dictionary_path))
    except Exception as error:  # fairseq raises several kinds for a malformed line
        reason = " ".join(str(error).split())
        raise ManifestError(f"{dictionary_path}: not a fairseq dictionary ({reason})") from None
    data = _resolve(path, f"{name}.data", entry["data"])
    numbers = {
        key: _number(path, name, key, entry[key]) if key in entry else None
        for key in ("loss_weight", "label_smoothing", "rdrop_alpha")
    }
    tokenizers = {}
    for key in ("pre_tokenizer", "bpe_tokenizer"):
        if entry.get(key):
            if not isinstance(entry[key], dict):
                raise ManifestError(f"{path}: {name}.{key} must be a mapping of keys to values, not {entry[key]!r}")
            tokenizers[key] = {
                k: str(_resolve(path, f"{name}.{key}.{k}", v)) if k.endswith(("_model", "_path")) else v
                for k, v in entry[key].items()
            }
    return TextConfig(name, dictionary_path, dictionary, data, **numbers, tokenizers=tokenizers)
