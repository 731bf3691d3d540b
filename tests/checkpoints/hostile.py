"""Files that a model would come with if somebody meant harm, and what reading them costs.

    python tests/checkpoints/hostile.py FOLDER

makes each of them in FOLDER, reads it in a process of its own, and prints a line of JSON with what that process said,
how it ended, and by how many bytes its memory grew beyond what a good model takes. FOLDER holds a good model, as
tests/model_files.py saves it, and lm.arpa.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import resource
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

WEIGHT = "asr_head.output.weight"
MEMORY_LIMIT = 12 << 30  # of addresses; an attack that gets through must not take the machine with it
SECONDS_LIMIT = 60  # of processor time
Spoil = Callable[[Path], object]


class Evil:
    """What an unsafe loader would run."""

    def __reduce__(self) -> tuple:
        return os.mkdir, ("PWNED",)


def checkpoint(change: Callable[[dict], object]) -> Spoil:
    """The checkpoint with a change."""

    def spoil(folder: Path) -> None:
        content = torch.load(folder / "checkpoint.pt", weights_only=True)
        change(content)
        torch.save(content, folder / "checkpoint.pt")

    return spoil


def weight(change: Callable[[torch.Tensor], object]) -> Spoil:
    """One of the model's weights replaced."""
    return checkpoint(lambda content: content["model"].update({WEIGHT: change(content["model"][WEIGHT])}))


def option(name: str, value: object) -> Spoil:
    """An option of the model."""
    return checkpoint(lambda content: content["cfg"]["model"].update({name: value}))


def voice(change: Callable[[torch.Tensor], object]) -> Spoil:
    """One of the vocoder's weights replaced."""

    def spoil(folder: Path) -> None:
        (path,) = (folder / "voice").glob("g_*")
        content = torch.load(path, weights_only=True)
        name = next(name for name, value in content["generator"].items() if value.dim() > 1)
        content["generator"][name] = change(content["generator"][name])
        torch.save(content, path)

    return spoil


def voice_file(write: Callable[[Path], object]) -> Spoil:
    """The vocoder's weights replaced as a whole."""
    return lambda folder: write(next((folder / "voice").glob("g_*")))


def config(**settings: object) -> Spoil:
    """Settings in the vocoder's config.json."""

    def spoil(folder: Path) -> None:
        path = folder / "voice" / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | settings), encoding="utf-8")

    return spoil


def config_text(text: str) -> Spoil:
    """The vocoder's config.json as a whole."""
    return lambda folder: (folder / "voice" / "config.json").write_text(text, encoding="utf-8")


def yaml(text: str) -> Spoil:
    """Lines added to model.yaml."""
    return lambda folder: (folder / "model.yaml").open("a", encoding="utf-8").write(text)


def arpa(change: Callable[[str], str | bytes], name: str = "lm.arpa") -> Spoil:
    """The language model changed, and named in model.yaml."""

    def spoil(folder: Path) -> None:
        content = change((folder / "lm.arpa").read_text(encoding="utf-8"))
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        yaml(f"source_lm: {name}\n")(folder)

    return spoil


def one_long_line(num_bytes: int) -> bytes:
    """A gzipped ARPA file with a line of many bytes: the members of such a file are read as one."""
    head = gzip.compress(b"\\data\\\nngram 1=1\n\n\\1-grams:\n")
    return head + gzip.compress(b"a" * (1 << 24)) * (num_bytes >> 24)


def deflated(folder: Path) -> None:
    """A checkpoint of which 300 MB of zeros are packed into less than one."""
    content = torch.load(folder / "checkpoint.pt", weights_only=True)
    stored, path = io.BytesIO(), folder / "checkpoint.pt"
    content["model"][WEIGHT] = torch.zeros(1)
    torch.save(content, stored)
    with zipfile.ZipFile(stored) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as packed:
        for entry in source.infolist():
            packed.writestr(entry.filename, source.read(entry))
        with packed.open("archive/data/large", "w") as file:
            for _ in range(18):
                file.write(bytes(1 << 24))


def zeroed_direction(content: torch.Tensor) -> torch.Tensor:
    """A direction without a length, which weight norm divides by."""
    return torch.zeros_like(content)


def vocoder_of_zero_norm(folder: Path) -> None:
    (path,) = (folder / "voice").glob("g_*")
    content = torch.load(path, weights_only=True)
    name = next(name for name in content["generator"] if name.endswith("weight_v"))
    content["generator"][name] = zeroed_direction(content["generator"][name])
    torch.save(content, path)


CONTENTS: dict[str, Callable[[torch.Tensor], object]] = {
    "meta": lambda value: value.to("meta"),
    "sparse": lambda value: value.to_sparse(),
    "sparse rows": lambda value: (value if value.dim() == 2 else value[0]).to_sparse_csr(),
    "quantised": lambda value: torch.quantize_per_tensor(value, 0.1, 0, torch.qint8),
    "float8": lambda value: value.to(torch.float8_e4m3fn),
    "complex": lambda value: value.to(torch.complex64),
    "bool": lambda value: value > 0,
    "int": lambda value: value.int(),
    "nested": lambda value: torch.nested.nested_tensor([value, value]),
    "of stride 0": lambda _: torch.zeros(1).expand(10**6, 10**6),
    "overlapping": lambda _: torch.zeros(1_009).as_strided((1_000, 10), (1, 1)),
    "NaN": lambda value: value * torch.nan,
    "1e300 in float64": lambda value: value.double() * 0 + 1e300,
    "3e38": lambda value: value * 0 + 3e38,
    "text": lambda _: "x",
}
NO_WEIGHTS = {"meta", "sparse", "sparse rows", "quantised", "float8", "complex", "bool", "int", "nested"}
SAYS = dict.fromkeys(NO_WEIGHTS, "not floating point numbers")
SAYS |= {"of stride 0": "claims more numbers", "overlapping": "claims more numbers", "NaN": "NaN or infinity"}
SAYS |= {"1e300 in float64": "up to 1e+300", "3e38": "up to 3e+38", "text": "not a tensor"}

DEEP = 20_000
HUGE = 10**30
ATTACKS: dict[str, tuple[Spoil, str]] = {
    **{f"weights: {name}": (weight(change), SAYS[name]) for name, change in CONTENTS.items()},
    **{f"vocoder: {name}": (voice(change), SAYS[name]) for name, change in CONTENTS.items()},
    "weights: 300 MB in less than one": (deflated, "it would unpack to"),
    "vocoder: a weight norm of nothing": (vocoder_of_zero_norm, "NaN or infinity"),
    "vocoder: code": (voice_file(lambda path: torch.save({"generator": Evil()}, path)), "could run code"),
    "vocoder: code, in the older format": (
        voice_file(lambda path: torch.save({"generator": Evil()}, path, _use_new_zipfile_serialization=False)),
        "could run code",
    ),
    "vocoder: another class": (voice_file(lambda path: torch.save({"generator": path}, path)), "could run code"),
    "vocoder: noise": (voice_file(lambda path: path.write_bytes(np.random.default_rng(0).bytes(999))), "damaged"),
    "option: a kernel of a billion": (option("encoder_conv_kernel", 10**9 + 1), "make no sense: encoder_conv_kernel"),
    "option: 10^30": (option("left_context_frames", HUGE), "make no sense: left_context_frames"),
    "option: a state of 100 GB": (option("left_context_frames", 99_999), "asks for far more memory"),
    "option: memory slots": (option("memory_slots", 99_999), "asks for far more memory"),
    "option: a list": (option("encoder_dim", [1]), "encoder_dim is [1]"),
    "option: terminal codes": (option("front_end", "\x1b[31m"), r"front_end is '\x1b[31m'"),
    "config.json: 11 GB": (config(upsample_initial_channel=15_000), "asks for far more memory"),
    "config.json: 11 GB of durations": (
        config(
            dur_predictor_params={
                "encoder_embed_dim": 32,
                "var_pred_hidden_dim": 30_000,
                "var_pred_kernel_size": 3,
                "var_pred_dropout": 0.5,
            }
        ),
        "asks for far more memory",
    ),
    "config.json: 4,000 blocks": (
        config(resblock_kernel_sizes=[3] * 4_000, resblock_dilation_sizes=[[1, 3, 5]] * 4_000),
        "asks for far more memory",
    ),
    "config.json: 10^30": (config(sampling_rate=HUGE), "a whole number of 31 digits"),
    "config.json: a dilation of a billion": (config(resblock_dilation_sizes=[[10**9] * 3] * 3), "makes no sense"),
    "config.json: a key with a line end": (config(**{"\n": 1}), r"it has the key '\n', which can't be printed"),
    "config.json: text with a line end": (config(embedding_dim="\n"), r"does not fit embedding_dim '\n'"),
    "config.json: null": (config(sampling_rate=None), "its sample_rate would be None"),
    "config.json: a list": (config(num_embeddings=[[]]), "makes no sense"),
    "config.json: text": (config(upsample_initial_channel="x"), "makes no sense"),
    "config.json: negative": (config(sampling_rate=-1), "its sample_rate would be -1"),
    "config.json: 1e400": (config_text('{"num_embeddings": 1e400}'), "it holds the number inf"),
    "config.json: NaN": (config_text('{"num_embeddings": NaN}'), "it holds NaN"),
    "config.json: nested deep": (config_text("[" * DEEP + "]" * DEEP), "damaged: maximum recursion"),
    "config.json: a number of 5,000 digits": (config_text('{"a": ' + "9" * 5_000 + "}"), "damaged: Exceeds the limit"),
    "config.json: large": (config_text(" " * 10**8), "more than 65,536 bytes"),
    "model.yaml: aliases": (
        yaml(
            "a: &a [x, x, x, x, x, x, x, x, x]\n"
            + "".join(f"{chr(98 + n)}: &{chr(98 + n)} [{', '.join([f'*{chr(97 + n)}'] * 9)}]\n" for n in range(9))
        ),
        "it has an alias",
    ),
    "model.yaml: nested deep": (yaml(f"policy_options: {'[' * DEEP}{']' * DEEP}\n"), "maximum recursion"),
    "model.yaml: 10^30": (yaml(f"segment_ms: {HUGE}\n"), "a whole number of 31 digits"),
    "model.yaml: look-ahead": (yaml("right_context_frames: 1000000000\n"), "right_context_frames must be at most"),
    "model.yaml: beam": (yaml("beam: 1000000000\n"), "beam must be at least 1 and at most 100"),
    "model.yaml: infinity": (yaml("lm_weight: .inf\n"), "it holds the number inf"),
    "model.yaml: a date": (yaml("lag_k: 2020-01-01\n"), "lag_k must be a whole number"),
    "model.yaml: a date that is none": (yaml("lag_k: 0000-00-00\n"), "is damaged"),
    "model.yaml: bytes": (yaml("lag_k: !!binary aGk=\n"), "lag_k must be a whole number"),
    "model.yaml: a set": (yaml("policy_options: !!set {a}\n"), "policy_options must be a mapping"),
    "model.yaml: code": (yaml("lag_k: !!python/object/apply:os.mkdir [PWNED]\n"), "could not determine a constructor"),
    "model.yaml: a policy's own name": (yaml("policy_options: {policy: x}\n"), "has no option policy"),
    "model.yaml: a key twice": (yaml("lag_k: 1\nlag_k: 2\n"), "the key 'lag_k' twice"),
    "model.yaml: a key with a line end": (yaml('"\\n": 1\n'), r"it has the key '\n', which can't be printed"),
    "model.yaml: text with a line end": (
        yaml('policy: "a\\nb"\n'),
        r"policy must be text that can be printed, not 'a\nb'",
    ),
    "model.yaml: NUL": (yaml("lag_k: \0\n"), "is damaged"),
    "model.yaml: large": (yaml("#" + "x" * 10**8), "more than 65,536 bytes"),
    "language model: 3 GB in one line": (
        arpa(lambda _: one_long_line(3 << 30), "lm.arpa.gz"),
        "more than 65,536 bytes",
    ),
    "language model: 13 MB in one line": (arpa(lambda _: b"a" * 13_000_000), "more than 65,536 bytes"),
    "language model: one n-gram for ever": (
        arpa(
            lambda text: gzip.compress(text[: text.index("\\end")].encode() + b"-1.0\t<s>\n" * 10**6, 1), "lm.arpa.gz"
        ),
        "it stands there twice",
    ),
    "language model: nothing for ever": (
        arpa(lambda text: gzip.compress(text.encode() + b"\n" * 10**7, 1), "lm.arpa.gz"),
        "lines hold no n-gram",
    ),
    "language model: NaN": (arpa(lambda text: text.replace("-1.0", "nan")), "nan is no log-probability"),
    "language model: infinity": (arpa(lambda text: text.replace("-0.1", "inf")), "inf is no back-off weight"),
    "language model: above 1": (arpa(lambda text: text.replace("-1.0", "5.0")), "5.0 is no log-probability"),
    "language model: 0 n-grams": (arpa(lambda _: "\\data\\\nngram 1=0\n\\1-grams:\n\\end\\\n"), "0 n-grams"),
    "language model: 10^30 n-grams": (arpa(lambda text: text.replace("ngram 1=", f"ngram 1={HUGE}")), "can be read"),
    "language model: of length -3": (arpa(lambda text: text.replace("\\1-", "\\-3-")), "length -3 are not announced"),
    "language model: without words": (arpa(lambda text: text.replace("-1.0\t<s>\t-0.1", "-1.0")), "are expected"),
}


def read(folder: Path, name: str = "") -> str:
    """Load what the attack spoils, as everybody does; what was wrong with it, or nothing."""
    from echostream.checkpoints.arpa_files import load_arpa
    from echostream.checkpoints.model_files import load_model
    from echostream.checkpoints.vocoder_files import load_vocoder
    from echostream.streaming import StreamingTranslator

    try:
        match name.partition(":")[0]:
            case "weights" | "option":
                load_model(folder / "checkpoint.pt")
            case "vocoder" | "config.json":
                load_vocoder(folder / "voice")
            case "language model":
                words = [line.split()[1] for line in (folder.parent / "words").read_text("utf-8").splitlines()]
                load_arpa(max(folder.glob("lm.arpa*")), words)
            case _:
                StreamingTranslator.from_checkpoint(folder)
    except ValueError as error:
        return str(error)
    return ""


def attack(name: str, spoil: Spoil, good: Path, work: Path) -> dict[str, object]:
    """Spoil a copy of the model and read it in a process of its own; what it said, how it ended, what it took."""
    folder = work / "model"
    shutil.copytree(good, folder)
    spoil(folder)
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT, MEMORY_LIMIT))
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS_LIMIT, SECONDS_LIMIT))
        status = 1
        try:
            os.write(writing, read(folder, name).encode()[:60_000])
            status = 0
        except BaseException as error:  # a traceback, which the test must see
            os.write(writing, f"{type(error).__name__}: {error}".encode()[:60_000])
        finally:
            os._exit(status)
    os.close(writing)
    with open(reading, "rb") as pipe:  # noqa: PTH123
        said = pipe.read().decode()
    _, ended, used = os.wait4(child, 0)
    shutil.rmtree(folder)
    status, memory = os.waitstatus_to_exitcode(ended), used.ru_maxrss * 1024
    return {"said": said, "status": status, "memory_bytes": memory, "seconds": used.ru_utime}


def main() -> None:

    torch.set_num_threads(1)
    good = Path(sys.argv[1])
    assert not read(good)  # whatever is imported late is there now
    with tempfile.TemporaryDirectory(dir=good.parent) as work:
        os.chdir(work)
        ngrams = (good / "lm.arpa").read_text(encoding="utf-8").split("-grams:\n")[1].split("\\end")[0]
        Path(work, "words").write_text(ngrams, encoding="utf-8")
        # What a good model takes, and what is refused must not take much more.
        least = attack("", lambda _: None, good, Path(work))["memory_bytes"]
        for name, (spoil, _) in ATTACKS.items():
            result = attack(name, spoil, good, Path(work))
            result |= {"name": name, "grown_bytes": result["memory_bytes"] - least, "ran": Path("PWNED").exists()}
            print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
