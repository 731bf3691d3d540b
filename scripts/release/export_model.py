"""A trained model as it is given away: small weights, no training state, no paths, all that belongs to it.

    python scripts/release/export_model.py --checkpoint runs/mine/checkpoint_average.pt --data runs/mine_data \\
        --output models/mine

The folder gets model.safetensors (and more of them, of at most 45 MB each) and model.json, vocoder/, the dictionaries
and SentencePiece models, the normalisation, the configs, model.yaml, which says how it is meant to be played, and
release.json, which says what it was made of and with. It is self-contained, can be moved, and
`StreamingTranslator.from_checkpoint("models/mine")` loads it. What else is in the folder, such as samples/, stays and
counts against --max-mb. Nothing changes there before everything has been checked: the exported model must load and
give the logits of the original but for rounding, and its translations are compared.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

import echostream
from echostream.checkpoints.model_classes import find_model_class
from echostream.checkpoints.model_files import (
    DESCRIPTION_NAME,
    MORE_WEIGHTS,
    WEIGHTS_NAME,
    ModelContent,
    known_options,
    save_released,
)
from echostream.checkpoints.model_store import SETTINGS_NAME
from echostream.checkpoints.packing import pack
from echostream.checkpoints.vocoder_files import (
    CONFIG_NAME,
    find_checkpoint,
    load_vocoder,
    read_vocoder_weights,
    save_released_vocoder,
)
from echostream.decoding.policy import POLICIES
from echostream.plugins import import_user_dir
from scripts.files import scratch_folder, write_text
from scripts.release.export_check import compare
from scripts.release.export_data import CONFIG, copy, copy_data, corpus_size
from scripts.training.average_checkpoints import load

PRECISIONS = {"int8": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
OF_DURATIONS = ("dict.", "dur_predictor.")  # weights of a vocoder
MEGABYTE = 1_000_000
RELEASE = "release.json"
PLAYED = ("source_lang", "target_lang", "description")
PLAYED += ("segment_ms", "right_context_frames", "policy", "stride_n", "lag_k", "beam", "lm_weight", "least_language")
SECTIONS = ("model", "task", "criterion", "optimizer", "lr_scheduler", "optimization")


def narrow(weights: dict[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """Matrices in ``dtype``; vectors (biases, norms, feature statistics) stay, since they cost next to nothing.

    Tensors that share memory, as tied embeddings do, share it afterwards too.

    Raises:
        ValueError: a weight that ``dtype`` can't hold.
    """
    known: dict[tuple, Tensor] = {}
    narrowed = {}
    for name, weight in weights.items():
        place = (weight.data_ptr(), weight.shape, weight.stride())
        if place not in known or not weight.numel():
            is_matrix = weight.is_floating_point() and weight.dim() > 1
            known[place] = weight.to(dtype if is_matrix else weight.dtype).contiguous().clone()
        narrowed[name] = known[place]
        if not torch.isfinite(narrowed[name]).all():
            raise ValueError(f"the weight {name} is not finite as {dtype}: take another --precision")
    return narrowed


def without_paths(value: Any) -> Any:
    """Options with every path blanked: it would say where the model was trained, and mean nothing elsewhere."""
    if isinstance(value, dict):
        return {key: without_paths(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_paths(item) for item in value]
    return "" if isinstance(value, str) and ("/" in value or "\\" in value) else value


def release(path: Path, state: dict[str, Any], precision: str, folder: Path) -> None:
    """Write what inference needs of a fairseq checkpoint, which was read from ``path``."""
    task, options = state["task_state"], state["cfg"]["model"]
    _, config_class = find_model_class(path, options["_name"])
    content = ModelContent(
        known_options(options, config_class),
        narrow(state["model"], PRECISIONS[precision]),
        list(task["source_symbols"]),
        list(task["target_symbols"]),
        int(task["num_units"]),
        options["_name"],
    )
    save_released(content, folder, echostream.__version__, packed=precision == "int8")


def export_vocoder(source: Path, target: Path, precision: str) -> int:
    """Write a vocoder and return its number of parameters.

    Of int8 are only the matrices that make sound. What durations are predicted from has half precision: rounded to
    bytes it moves words by 20 ms.

    Raises:
        ValueError: it can't be loaded, before or after.
    """
    load_vocoder(source)
    directory = source if source.is_dir() else source.parent
    checkpoint = find_checkpoint(source) if source.is_dir() else source
    weights = narrow(read_vocoder_weights(checkpoint), PRECISIONS[precision])
    if precision == "int8":
        sound = {name: value for name, value in weights.items() if not name.startswith(OF_DURATIONS)}
        weights = {name: value.half() for name, value in weights.items() if name not in sound} | pack(sound)
    save_released_vocoder(weights, directory / CONFIG_NAME, target)
    return sum(parameter.numel() for parameter in load_vocoder(target).parameters())


def release_facts(state: dict[str, Any], args: argparse.Namespace) -> dict[str, Any]:
    """What the model is and how it was trained, from its checkpoint and its corpus."""
    cfg = without_paths(state["cfg"])
    return {
        "architecture": cfg["model"]["_name"],
        "parameters": sum(weight.numel() for name, weight in state["model"].items() if not name.startswith("fbank.")),
        "precision": args.precision,
        "updates": state["optimizer_history"][-1]["num_updates"],
        # of several processes, fairseq gives their mean as a tensor
        "training_hours": round(float(state["extra_state"].get("previous_training_time", 0)) / 3600, 2),
        "seed": cfg["common"]["seed"],
        "corpus": corpus_size(args.data),
        "notes": dict(note.split("=", 1) for note in args.note),
        "options": {section: cfg[section] for section in SECTIONS if cfg.get(section)},
        "versions": {"python": sys.version.split()[0], "torch": torch.__version__},
    }


def files_below(folder: Path) -> list[Path]:
    """All files, hidden ones left out, as paths relative to ``folder``."""
    found = (path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file())
    return [path for path in found if not any(part.startswith(".") for part in path.parts)]


def build(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Make the release in an empty ``folder``.

    Raises:
        ValueError: parts that are missing, damaged or don't belong together, or an export that differs too much.
    """
    state = load(args.checkpoint)
    copy_data(args.data, folder, state["task_state"], Path(state["cfg"]["task"].get("config_yaml") or CONFIG).name)
    release(args.checkpoint, state, args.precision, folder)
    facts = release_facts(state, args)
    facts["vocoder_parameters"] = export_vocoder(args.vocoder, folder / "vocoder", args.precision)
    played = {"checkpoint": WEIGHTS_NAME, "vocoder": "vocoder"} | {name: getattr(args, name) for name in PLAYED}
    if args.source_lm is not None:
        copy(args.source_lm, folder / args.source_lm.name)
        played["source_lm"] = args.source_lm.name
    played = {name: value for name, value in played.items() if value is not None}
    (folder / SETTINGS_NAME).write_text(yaml.safe_dump(played, sort_keys=False), encoding="utf-8")
    facts["check"] = compare(args.checkpoint, args.vocoder, folder, args.data / args.check_set, args.check)
    facts["files"] = {str(path): file_facts(folder / path) for path in files_below(folder)}
    return facts


def file_facts(path: Path) -> dict[str, Any]:
    """Size, and SHA-256 of the contents, hex."""
    content = path.read_bytes()
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def renew_digest(folder: Path, name: str) -> None:
    """Have release.json, if there is one, say how large a file of the folder is now, and its digest."""
    path = folder / RELEASE
    if path.is_file():
        facts = json.loads(path.read_text(encoding="utf-8"))
        facts["files"][name] = file_facts(folder / name)
        write_text(path, json.dumps(facts, indent=1, ensure_ascii=False) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description="Make a release folder of a trained model.")
    parser.add_argument("--checkpoint", type=Path, required=True, help="of fairseq-train or average_checkpoints.py")
    parser.add_argument("--data", type=Path, required=True, help="the data set that it was trained on")
    parser.add_argument("--vocoder", type=Path, help="default: vocoder/ of the data set")
    parser.add_argument("--output", type=Path, required=True, help="e.g. models/fr-en")
    parser.add_argument("--source-lang", default="fr", help="tag of the language heard (default: %(default)s)")
    parser.add_argument("--target-lang", default="en", help="tag of the language spoken (default: %(default)s)")
    parser.add_argument("--description", help="whom and what it understands; the live page shows it")
    parser.add_argument("--user-dir", type=Path, metavar="DIR", help="folder that registers a model class of your own")
    parser.add_argument("--policy", choices=POLICIES, help="model.yaml says so; likewise the next seven")
    for name in ("--stride-n", "--lag-k", "--beam", "--segment-ms", "--right-context-frames"):
        parser.add_argument(name, type=int)
    parser.add_argument("--lm-weight", type=float, help="of --source-lm")
    parser.add_argument("--least-language", type=float, metavar="P", help="0.1, say; for a model that tells languages")
    parser.add_argument("--source-lm", type=Path, metavar="ARPA", help="language model of train_source_lm.py")
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="fp16",
        help="of the matrices; int8: with a scale for each row (default %(default)s)",
    )
    parser.add_argument("--max-mb", type=float, default=40, help="size of the folder, 10^6 bytes (default %(default)s)")
    parser.add_argument(
        "--check", type=int, default=5, metavar="N", help="sentences to compare translations on (default %(default)s)"
    )
    parser.add_argument(
        "--check-set", default="simuleval", metavar="NAME", help="the data set's lists of them (default: %(default)s)"
    )
    parser.add_argument(
        "--note", action="append", default=[], metavar="KEY=VALUE", help="kept in release.json, e.g. the command line"
    )
    args = parser.parse_args()
    args.vocoder = args.vocoder or args.data / "vocoder"
    if wrong := [note for note in args.note if "=" not in note]:
        parser.error(f"--note is KEY=VALUE, not '{wrong[0]}'")
    logging.getLogger().setLevel(logging.WARNING)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    try:
        if args.user_dir is not None:
            import_user_dir(args.user_dir)
        with scratch_folder(args.output.parent / f".{args.output.name}.export") as folder:
            facts = build(args, folder)
            publish(folder, args.output, facts, args.max_mb)
    except (ValueError, OSError) as error:
        raise SystemExit(f"error: {error}") from error
    report(facts, args.output)


def publish(folder: Path, output: Path, facts: dict[str, Any], max_mb: float) -> None:
    """Move the release to its place unless that would make it too large.

    Raises:
        ValueError: it would.
    """
    write_text(folder / RELEASE, json.dumps(facts, indent=1, ensure_ascii=False) + "\n")
    new = files_below(folder)
    stale = others_of_weights(output, new)
    others = [
        path
        for path in files_below(output)
        if path not in new and path.parts[0] != "vocoder" and output / path not in stale
    ]
    sizes = {path: (folder / path).stat().st_size for path in new} | {
        path: (output / path).stat().st_size for path in others
    }
    facts["megabytes"] = sum(sizes.values()) / MEGABYTE
    if facts["megabytes"] > max_mb:
        largest = ", ".join(f"{path} {sizes[path] / MEGABYTE:.1f}" for path in sorted(sizes, key=sizes.get)[:-4:-1])
        raise ValueError(
            f"the release would have {facts['megabytes']:.1f} MB, more than --max-mb {max_mb:g} (largest: {largest}); "
            "nothing was written"
        )
    shutil.rmtree(output / "vocoder", ignore_errors=True)  # it may hold weights of another name
    for path in stale:
        path.unlink()
    # model.json comes last: where this is cut short, what is there doesn't fit the old one, and a reader says so.
    for path in sorted(new, key=lambda path: str(path) == DESCRIPTION_NAME):
        (output / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).replace(output / path)


def others_of_weights(output: Path, new: list[Path]) -> list[Path]:
    """Weights of an earlier release in ``output`` that a new one of these files doesn't replace."""
    found = [*output.glob(MORE_WEIGHTS.format("*")), *output.glob("checkpoint.pt")]
    return [path for path in found if path.relative_to(output) not in new]


def report(facts: dict[str, Any], output: Path) -> None:
    """Sizes and the check, for a person."""
    for name, file in facts["files"].items():
        print(f"{file['bytes'] / MEGABYTE:8.2f} MB  {name}")
    check = facts["check"]
    print(
        f"{facts['megabytes']:8.2f} MB  {output}, all in all: {facts['architecture']}, "
        f"{facts['parameters'] / 1e6:.2f} M parameters and {facts['vocoder_parameters'] / 1e6:.2f} M of the vocoder, "
        f"{facts['precision']}\nagainst the original: logits differ by at most {check['logit_difference']:.2g} "
        f"(they reach {check['logit_size']:.3g}), {check['same']} of {check['sentences']} translations are the same, "
        f"BLEU {check['bleu_original']} and {check['bleu_exported']}"
    )


if __name__ == "__main__":
    main()
