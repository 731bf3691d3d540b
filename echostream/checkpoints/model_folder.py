"""A folder with a model that is ready to use: ``model.yaml`` names its files and says how it is meant to be played.

    checkpoint: model.safetensors
    vocoder: vocoder
    source_lang: fr
    target_lang: en
    description: Knows one voice and everyday topics.
    lag_k: 2

Wherever a checkpoint is asked for, such a folder may be given instead; an option given by hand wins over the file.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from echostream.checkpoints.errors import CheckpointError
from echostream.checkpoints.model_store import SETTINGS_NAME, read_settings
from echostream.constants import DEFAULT_POLICY, DEFAULT_SEGMENT_MS, LM_BONUS, LM_WEIGHT
from echostream.plugins import names_code

FILES = ("checkpoint", "vocoder", "source_lm")
ABOUT = ("source_lang", "target_lang", "description")  # for people; they change nothing of what is played
KINDS: dict[str, tuple[Any, str]] = {
    "int": (int, "a whole number"),
    "float": (int | float, "a number"),
    "bool": (bool, "true or false"),
    "dict": (dict, "a mapping, such as {token_frames: 12}"),
}
# They are chosen for one policy and mean nothing to another.
POLICY_OPTIONS = {"stride_n": None, "lag_k": None, "policy_options": None}


@dataclass(frozen=True)
class ModelSettings:
    """Files of a model and the options of :class:`StreamingTranslator` that it is meant to be used with.

    Attributes:
        checkpoint: weights of a released model, or a checkpoint as training writes it.
        vocoder: None stands for the folder ``vocoder`` beside the checkpoint, if there is one.
        source_lang, target_lang: language tags such as ``fr``; empty if nobody said.
        description: whom and what it understands, in a sentence or two for whoever is about to speak to it.
        segment_ms, right_context_frames, policy, stride_n, lag_k, beam, source_lm, lm_weight, lm_bonus, policy_options,
            confidence_slope, confidence_offset, least_language, least_confidence, max_tempo, vad: see
            :class:`StreamingTranslator`.
    """

    checkpoint: Path
    vocoder: Path | None = None
    source_lang: str = ""
    target_lang: str = ""
    description: str = ""
    segment_ms: int = DEFAULT_SEGMENT_MS
    right_context_frames: int | None = None
    policy: str = DEFAULT_POLICY
    stride_n: int | None = None
    lag_k: int | None = None
    beam: int = 1
    source_lm: Path | None = None
    lm_weight: float = LM_WEIGHT
    lm_bonus: float = LM_BONUS
    policy_options: dict[str, Any] | None = None
    confidence_slope: float | None = None
    confidence_offset: float | None = None
    least_language: float = 0.0
    least_confidence: float = 0.0
    max_tempo: float = 1.0
    vad: bool = False

    @classmethod
    def of(cls, path: str | os.PathLike[str]) -> ModelSettings:
        """Settings of a folder with ``model.yaml``, or of a checkpoint.

        A checkpoint that the ``model.yaml`` beside it names has the settings of its folder, others have the defaults.

        Raises:
            CheckpointError: a folder without that file, or one that can't be understood.
        """
        path = Path(path)
        if not path.is_dir():
            return cls.of(path.parent) if _is_named_beside(path) else cls(path)
        file = path / SETTINGS_NAME
        if not file.is_file():
            raise CheckpointError(
                f"no checkpoint at {path}, a folder without {SETTINGS_NAME}: "
                "give the path of a checkpoint_*.pt of scripts/train.sh"
            )
        values = read_settings(file)
        _check(file, values)
        files = {name: path / values[name] for name in FILES if values.get(name) is not None}
        return cls(**{name: value for name, value in values.items() if value is not None} | files)

    def with_options(self, **given: Any) -> ModelSettings:
        """These settings, but for what is given and not None; another policy doesn't inherit this one's options."""
        given = {name: value for name, value in given.items() if value is not None}
        if given.get("policy", self.policy) != self.policy:
            given = POLICY_OPTIONS | given
        return replace(self, **given)

    @property
    def options(self) -> dict[str, Any]:
        """Keyword arguments of :class:`StreamingTranslator`."""
        names = [field.name for field in fields(self)]
        return {name: getattr(self, name) for name in names if name not in ("checkpoint", "vocoder", *ABOUT)}


def _is_named_beside(checkpoint: Path) -> bool:
    """Whether a ``model.yaml`` in its folder is about this checkpoint."""
    file = checkpoint.parent / SETTINGS_NAME
    if not checkpoint.is_file() or not file.is_file():
        return False
    values = read_settings(file)
    named = values.get("checkpoint") if isinstance(values, dict) else None
    return isinstance(named, str) and (checkpoint.parent / named).resolve() == checkpoint.resolve()


def _check(file: Path, values: Any) -> None:
    """Refuse what isn't a mapping of known names to values of their types."""
    if not isinstance(values, dict) or not values.get("checkpoint"):
        raise CheckpointError(f"{file} must say 'checkpoint: FILE', the file in its folder that holds the model")
    known = {field.name: str(field.type) for field in fields(ModelSettings)}
    for name, value in values.items():
        if name not in known:
            raise CheckpointError(
                f"{file} has an unknown entry {str(name)[:80]!r}: known are {', '.join(sorted(known))}"
            )
        if value is None:
            continue
        kinds, article = next(
            (found for start, found in KINDS.items() if known[name].startswith(start)),
            (str, "text, in quotes if need be"),
        )
        if not isinstance(value, kinds) or (isinstance(value, bool) and kinds is not bool):
            raise CheckpointError(f"{file}: {name} must be {article}, not {value!r}")
        if isinstance(value, str) and not value.isprintable():
            raise CheckpointError(f"{file}: {name} must be text that can be printed, not {value[:80]!r}")
        if name in FILES and not value.strip():
            raise CheckpointError(f"{file}: {name} names no file: leave the entry out")
    if names_code(values.get("policy") or ""):
        raise CheckpointError(
            f"{file}: the policy '{values['policy']}' is code, which a model's folder must not choose: take it out of "
            "there, and name it with --policy if you trust it"
        )
    if unnamed := [name for name in values.get("policy_options") or {} if not isinstance(name, str)]:
        raise CheckpointError(f"{file}: policy_options must have names, not {unnamed[0]!r}")
