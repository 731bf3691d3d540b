"""The parts of a data set that its model needs later: texts' dictionaries, normalisation, configs, unit centroids."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

from echostream.checkpoints import text_files
from echostream.checkpoints.errors import UnsafeFileError
from echostream.text import text_lines

CONFIG, MULTITASK = "config_gcmvn.yaml", "config_multitask.yaml"
FRAMES_PER_HOUR = 360_000  # of 10 ms
SYMBOLS = {"source_unigram": "source_symbols", "target_unigram": "target_symbols"}  # in a checkpoint's task_state
SPECIALS = 4  # <s>, <pad>, </s>, <unk>: in every fairseq dictionary, not in its file


def copy_data(data: Path, folder: Path, task_state: dict[str, Any], config_name: str = CONFIG) -> None:
    """Copy dictionaries, SentencePiece models, normalisation and configs, with paths relative to ``folder``.

    Args:
        data: the data set.
        folder: of the release.
        task_state: of the checkpoint.
        config_name: of the data set's YAML file of features, with which the model was trained.

    Raises:
        ValueError: something is missing, or the dictionaries aren't those in ``task_state``.
    """
    config, multitask = (read_yaml(data / name) for name in (config_name, MULTITASK))
    texts = {name: (data / name).read_text(encoding="utf-8") for name in (config_name, MULTITASK)}
    if normalisation := config.get("global_cmvn"):  # Whisper's features have none
        statistics = Path(normalisation.get("stats_npz_path") or "gcmvn.npz")
        copy(data / statistics, folder / statistics.name)
        texts[config_name] = texts[config_name].replace(str(statistics), statistics.name)
    models: set[bytes] = set()
    for name, task in multitask.items():
        dictionary = Path(task["dict"])
        check_dictionary(data / dictionary, task_state.get(SYMBOLS.get(name, "")))
        copy(data / dictionary, folder / name / dictionary.name)
        texts[MULTITASK] = texts[MULTITASK].replace(str(dictionary), f"{name}/{dictionary.name}")
        for model in sorted((data / dictionary).parent.glob("*.model")):
            if (content := model.read_bytes()) not in models:  # both tasks of the target language have the same
                copy(model, folder / name / model.name)
            models.add(content)
    for name, text in texts.items():
        if path := next((line for line in text.splitlines() if ": /" in line), None):
            raise ValueError(f"{data / name} has a path that holds on this machine only: {path.strip()!r}")
        (folder / name).write_text(text, encoding="utf-8")
    if (data / "kmeans.npz").is_file():
        copy(data / "kmeans.npz", folder / "kmeans.npz")


def copy(source: Path, target: Path) -> None:
    """Copy a file that has to be there."""
    if not source.is_file():
        raise ValueError(f"there is no {source}")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML mapping."""
    if not path.is_file():
        raise ValueError(f"the data set lacks {path}")
    try:
        content = text_files.read_yaml(path)
    except UnsafeFileError as error:
        raise ValueError(f"{path}: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} is no YAML mapping")
    return content


def check_dictionary(path: Path, symbols: list[str] | None) -> None:
    """Raises ValueError if the dictionary isn't the one that the model was trained with."""
    if not path.is_file():
        raise ValueError(f"the data set lacks {path}")
    known = [line.rsplit(" ", 1)[0] for line in text_lines(path)]
    if symbols is not None and list(symbols[SPECIALS:])[: len(known)] != known:
        raise ValueError(f"{path} is not the dictionary of the checkpoint: give the data set that it was trained on")


def corpus_size(data: Path) -> dict[str, float]:
    """Recordings and hours of French speech in the training set."""
    table = data / "train.tsv"
    if not table.is_file():
        raise ValueError(f"the data set lacks {table}")
    with table.open(encoding="utf-8", newline="") as file:
        frames = [int(row["src_n_frames"]) for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)]
    return {"recordings": len(frames), "source_hours": round(sum(frames) / FRAMES_PER_HOUR, 2)}
