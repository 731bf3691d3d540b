"""What is tried and what has to come of it: the tests go through these lists, and docs/reliability.md shows them.

    python tests/bad_input/cases.py     # prints the tables of docs/reliability.md

A message is a part of the one line in which the program ends; WORKS stands for a result.
"""

from __future__ import annotations

from collections.abc import Mapping

WORKS = "works"
COMMAND, SIMULEVAL, TRAINING, PREPARING = "`echostream translate`, `asr`", "SimulEval agents", "training", "preparing"

# A recording, and the message of each of the four. All convert audio that is not 16 kHz mono.
RECORDINGS: dict[str, Mapping[str, str]] = {
    "missing": {
        COMMAND: "no such file",
        SIMULEVAL: "source 2 of the list is no file",
        TRAINING: "line 3: audio file",
        PREPARING: "no such file",
    },
    "a folder": {
        COMMAND: "no recordings in",
        SIMULEVAL: "source 2 of the list is no file",
        TRAINING: "line 3: audio file",
        PREPARING: "no such file",
    },
    "empty (0 bytes)": dict.fromkeys((COMMAND, SIMULEVAL, TRAINING), "is empty (0 bytes)")
    | {PREPARING: "cannot be read"},
    "a header alone": {
        COMMAND: "holds no samples",
        SIMULEVAL: WORKS,
        TRAINING: "expected (frames > 0, 80)",
        PREPARING: "empty",
    },
    "text, not audio": dict.fromkeys((COMMAND, SIMULEVAL, TRAINING), "Format not recognised")
    | {PREPARING: "cannot be read"},
    "cut short (WAV)": dict.fromkeys((COMMAND, SIMULEVAL, TRAINING), "is cut short after 0.3")
    | {PREPARING: "cut short after 0.3"},
    "cut short (FLAC)": dict.fromkeys((COMMAND, SIMULEVAL, TRAINING), "cut short after 0.")
    | {PREPARING: "cannot be read"},
    "NaN": dict.fromkeys((COMMAND, SIMULEVAL, TRAINING), "holds NaN or infinity after 0.2")
    | {PREPARING: "not numbers (NaN or infinite)"},
    "infinity": dict.fromkeys((COMMAND, SIMULEVAL, TRAINING), "holds NaN or infinity after 0.2")
    | {PREPARING: "not numbers (NaN or infinite)"},
    "integers as floats": dict.fromkeys((COMMAND, SIMULEVAL, TRAINING), "divide integers by 32768"),
    "clipped": dict.fromkeys((COMMAND, SIMULEVAL, TRAINING, PREPARING), WORKS),
    "silent": dict.fromkeys((COMMAND, SIMULEVAL, TRAINING), WORKS) | {PREPARING: "nothing but silence"},
    "1 sample": {
        COMMAND: WORKS,
        SIMULEVAL: WORKS,
        TRAINING: "expected (frames > 0, 80)",
        PREPARING: "too short: 0.00 s",
    },
    "8 kHz": dict.fromkeys((COMMAND, SIMULEVAL, TRAINING, PREPARING), WORKS),
    "44.1 kHz": dict.fromkeys((COMMAND, SIMULEVAL, TRAINING, PREPARING), WORKS),
    "48 kHz": dict.fromkeys((COMMAND, SIMULEVAL, TRAINING, PREPARING), WORKS),
    "stereo": dict.fromkeys((COMMAND, SIMULEVAL, TRAINING, PREPARING), WORKS),
    "6 channels": dict.fromkeys((COMMAND, SIMULEVAL, TRAINING, PREPARING), WORKS),
}

# A checkpoint, given to `echostream info`, which loads it as translate, asr, serve and the agents do.
CHECKPOINTS = {
    "missing": "no checkpoint at",
    "empty": "it is damaged or cut short",
    "cut short": "it is damaged or cut short",
    "cut short near its beginning": "it is damaged or cut short",
    "text": "is damaged",
    "a pickle that runs a command": "it holds posix.system, which could run code and is not loaded",
    "the same in torch's older format": "could run code",
    "a tensor": "is not an EchoStream checkpoint: it has no 'cfg'",
    "without its configuration": "is not an EchoStream checkpoint: it has no 'cfg'",
    "without its weights": "is not an EchoStream checkpoint: it has no 'model'",
    "without its dictionaries": "its task_state has no source_symbols",
    "of another model": "holds a model 's2ut_transformer', not an echostream one",
    "an option missing": "don't fit its configuration",
    "an option mistyped": "'encoder_layrs', which is not known (is it encoder_layers?)",
    "an option of the wrong type": "encoder_dim is 'wide'",
    "an option out of range": "encoder_layers is -1",
    "options that don't go together": "make no sense: encoder dim 32 must be a multiple",
    "an option asking for terabytes": "there are none for encoder_ffn_dim 1000000000000",
    "another architecture": "tensors differ, the first encoder.emformer",
    "a tensor missing": "1 tensors differ, the first asr_head.output.weight: checkpoint absent",
    "a tensor too many": "1 tensors differ, the first more",
    "something else for a tensor": "its weights hold str under 'asr_head.output.weight', not a tensor",
    "weights with NaN": "hold NaN or infinity, the first in asr_head.output.weight",
    "a shorter source dictionary": "its source dictionary has 19 symbols, its weights have 20",
    "a longer target dictionary": "its target dictionary has 21 symbols, its weights have 20",
    "another number of units": "its unit inventory has 99 units, its weights have 100",
    "CMVN of 40 mel bins": "1 tensors differ, the first fbank.cmvn_std",
    "CMVN of zeros": "a standard deviation in it isn't positive",
}
# The same loader behind the other commands.
LOADERS = ("echostream translate", "echostream asr", "echostream serve", "SimulEval agents")

VOCODERS = {
    "missing": "no vocoder at",
    "a folder without one": "cannot read the vocoder config",
    "weights missing": "no vocoder.safetensors, no vocoder.pt and no g_",
    "weights cut short": "cannot read the vocoder checkpoint",
    "a pickle that runs a command": "cannot read the vocoder checkpoint",
    "no vocoder's weights": "is no vocoder checkpoint",
    "weights of another size": "does not fit config.json",
    "config.json that is no JSON": "cannot read the vocoder config",
    "config.json with a key missing": "lacks 'num_embeddings'",
    "of another kind": "unknown vocoder type 'griffin'",
    "of another number of units": "the vocoder speaks 50 units but the model writes 100",
}

LANGUAGE_MODELS = {
    "missing": "no language model at",
    "empty": "no ARPA language model",
    "a zip file": "no ARPA language model, or damaged",
    "a wrong number": "damaged, at 'much",
    "cut short": "1 n-grams instead of the 4 that it announces",
    "cut short, gzipped": "damaged",
    "other subwords": "has the word 'elsewhere', which the source dictionary lacks",
}

# Checkpoints that a training would resume from, and files of initial weights.
RESUMED = {
    "cut short": "is damaged or cut short",
    "a pickle that runs a command": "posix.system, which could run code",
    "not of EchoStream": "is not a checkpoint of EchoStream",
    "another architecture": "is of another architecture",
    "other dictionaries": "its source dictionary is not that of the data",
    "another number of units": "was trained with 20 units, the data has 21",
    "another CMVN": "was trained with another global_cmvn",
    "weights with NaN": "hold NaN or infinity, the first in",
    "--restore-file missing": "no such checkpoint",
    "--restore-file with --checkpoint-suffix, missing": "run_b.pt: no such checkpoint",
    "--checkpoint-suffix, of another architecture": "is of another architecture",
    "--finetune-from-model missing": "--finetune-from-model none.pt: no such checkpoint",
    "--finetune-from-model of other dictionaries": "its source dictionary is not that of the data",
    "--continue-once cut short": "is damaged or cut short",
    "--init-encoder-from cut short": "is damaged or cut short",
    "--init-decoders-from a pickle that runs a command": "posix.system, which could run code",
}

# Line 3 of train.tsv: column and value.
ROWS = {
    "audio missing": (1, "none.wav", "does not exist"),
    "audio of an unknown kind": (1, "train_1.mp3", "neither"),
    "archive missing": (1, "none.zip:0:10", "archive"),
    "frames not a number": (2, "4.5", "src_n_frames is '4.5'"),
    "no frames": (2, "0", "src_n_frames is '0'"),
    "no units": (3, "", "tgt_audio is empty"),
    "units that are words": (3, "1 x 2", "'x'"),
    "unit out of range": (3, "1 99 2", "unit 99 is out of range"),
    "unit beyond 32 bits": (3, "1 99999999999", "too large"),
    "unit count not a number": (4, "many", "tgt_n_frames is 'many'"),
    "id used twice": (0, "train_0", "used before, in line 2"),
    "id without a text": (0, "stranger", "'stranger' has no text"),
    "a field too many": (4, "7\tmore", "6 fields, but the header names 5 columns"),
}
# The invalid row is the first, a middle or the last one.
LINES = (2, 4, 7)

# File of the data folder, the replaced text, its replacement, and the message.
SPEECH, TEXTS = "config_gcmvn.yaml", "config_multitask.yaml"
SUBWORDS = "  data: source\n  bpe_tokenizer:\n    bpe: sentencepiece\n    sentencepiece_model: {}\n"
CONFIGS = {
    f"{SPEECH}: key mistyped": (SPEECH, "specaugment:", "specaugmnt:", "did you mean 'specaugment'?"),
    f"{SPEECH}: key mistyped inside": (SPEECH, "freq_mask_F", "freq_mask", "unknown key 'freq_mask'"),
    f"{SPEECH}: unknown transform": (SPEECH, "- specaugment", "- delta", "'delta' is not supported"),
    f"{SPEECH}: no YAML": (SPEECH, "channels: 1", "channels: [1", "not valid YAML"),
    f"{SPEECH}: wrong type": (SPEECH, "per_channel: 80", "per_channel: many", "needs 80"),
    f"{SPEECH}: CMVN missing": (SPEECH, "gcmvn.npz", "none.npz", "none.npz does not exist"),
    f"{SPEECH}: CMVN that is none": (SPEECH, "gcmvn.npz", "source.txt", "not an .npz"),
    f"{SPEECH}: CMVN of 40 mel bins": (SPEECH, "gcmvn.npz", "narrow.npz", "must both be (80,)"),
    f"{SPEECH}: CMVN cut short": (SPEECH, "gcmvn.npz", "cut.npz", "not an .npz"),
    f"{TEXTS}: entry mistyped": (TEXTS, "source_unigram", "src_unigram", "did you mean 'source_unigram'?"),
    f"{TEXTS}: key mistyped": (TEXTS, "loss_weight", "loss_weigth", "did you mean 'loss_weight'?"),
    f"{TEXTS}: wrong type": (TEXTS, "loss_weight: 4.0", "loss_weight: x", "is 'x'"),
    f"{TEXTS}: dictionary missing": (TEXTS, "dict: source.txt", "dict: n.txt", "does not exist"),
    "dictionary that is none": ("source.txt", " 1\n", "\n", "not a fairseq dictionary"),
    "dictionary of another text": ("source.txt", "▁", "_", "source.txt does not fit"),
    "SentencePiece model missing": (TEXTS, "  data: source\n", SUBWORDS.format("none.model"), "does not exist"),
    "SentencePiece model that is none": (TEXTS, "  data: source\n", SUBWORDS.format("source.txt"), "can't be used"),
    "SentencePiece model of another text": (
        TEXTS,
        "  data: source\n",
        SUBWORDS.format("other.model"),
        "source.txt does not fit",
    ),
}

# Words of a command line, and the message.
OPTIONS = {
    "echostream translate --polcy": "unknown option --polcy; did you mean --policy?",
    "echostream asr --segmnt-ms=40": "unknown option --segmnt-ms; did you mean --segment-ms?",
    "echostream info --vocodr x": "unknown option --vocodr; did you mean --vocoder?",
    "echostream serve --prot 1": "unknown option --prot; did you mean --port?",
    "echostream trnslate": "invalid choice: 'trnslate'",
    "simuleval --polcy x": "did you mean --policy?",
    "fairseq-train --droput 0.1": "unrecognized arguments: --droput",
    "fairseq-hydra-train model.droput=0.1": "Could not override 'model.droput'",
    "fairseq-hydra-train +model.droput=0.1": "Key 'droput' not in",
    "fairseq-hydra-train +task.typo=1": "Key 'typo' not in",
    "fairseq-hydra-train +criterion.typo=1": "Key 'typo' not in",
    "scripts/train.sh --arhc": "unknown option --arhc",
    "scripts/evaluate.sh --modle": "unknown option --modle",
    "scripts/recipes/custom/run.sh --tabel": "unknown option --tabel",
    "model.yaml: lag: 2": "unknown entry 'lag'",
    "model.yaml: lag_k: two": "lag_k must be a whole number",
}

# Where output is written, and what must exist afterwards.
PLACES = {
    "translate, a full disk": "cannot write; what was said until then is kept, in a WAV file that is whole",
    "translate a folder, a full disk": "one line for each recording that didn't fit; those before are kept",
    "translate, a folder that can't be made": "cannot write",
    "words to a full disk": "cannot write the standard output: No space left on device",
    "info to a full disk": "the standard output: No space left on device",
    "training, a full disk": "cannot write; checkpoint_last.pt is kept to the byte, the same command goes on",
    "training, a full disk while a checkpoint is copied": "cannot write; checkpoint_last.pt is kept to the byte",
    "training, a folder that can't be written to": "cannot write to --save-dir",
    "train.sh, a folder that can't be written to": "--save-dir can't be written to",
    "training, a folder that another training writes to": "another training writes to --save-dir",
    "evaluating, a full disk": "cannot use; finished utterances are kept",
    "evaluating, a folder that can't be made": "cannot use",
    "preparing, a full disk": "no unfinished file under its final name; the same command does what is left",
    "preparing, a folder that can't be made": "cannot make the folder",
    "preparing, any stage on a full disk": "cannot write; the same command goes on",
    "preparing, a read-only folder": "what is finished is found finished; what isn't ends in cannot write",
}


def count() -> dict[str, int]:
    """Number of cases of each table."""
    return {
        "recordings": sum(len(row) for row in RECORDINGS.values()) + len(RECORDINGS),  # translate and asr
        "checkpoints": len(CHECKPOINTS) + len(LOADERS),
        "vocoders": len(VOCODERS),
        "language models": len(LANGUAGE_MODELS),
        "trainings": len(RESUMED),
        "manifests": len(ROWS) * len(LINES),
        "configs": len(CONFIGS),
        "options": len(OPTIONS),
        "places": len(PLACES),
    }


def tables() -> str:
    """The tables of docs/reliability.md."""
    sizes = count()
    lines = [f"{sum(sizes.values())} cases: " + ", ".join(f"{number} {name}" for name, number in sizes.items()) + "."]

    def table(title: str, header: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
        lines.extend(["", f"**{title}**", "", "| " + " | ".join(header) + " |", "|" + "---|" * len(header)])
        lines.extend("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows)

    surfaces = (COMMAND, SIMULEVAL, TRAINING, PREPARING)
    table(
        f"Recordings, {sizes['recordings']} cases",
        ("a recording that is", *surfaces),
        [(name, *(row.get(surface, "") for surface in surfaces)) for name, row in RECORDINGS.items()],
    )
    commands = ", ".join(LOADERS)
    table(
        f"Checkpoints, {sizes['checkpoints']} cases: all with `echostream info`, one each with {commands}",
        ("a checkpoint that is, or has", "message"),
        list(CHECKPOINTS.items()),
    )
    table(f"Vocoders, {sizes['vocoders']} cases", ("a vocoder that is, or has", "message"), list(VOCODERS.items()))
    table(
        f"Language models of the source, {sizes['language models']} cases",
        ("a language model that is, or has", "message"),
        list(LANGUAGE_MODELS.items()),
    )
    table(f"What a training goes on from, {sizes['trainings']} cases", ("checkpoint", "message"), list(RESUMED.items()))
    table(
        f"Manifests, {sizes['manifests']} cases: each in the first, a middle and the last row; the line is named",
        ("a row with", "message"),
        [(name, message) for name, (_, _, message) in ROWS.items()],
    )
    table(
        f"Dictionaries, SentencePiece models, CMVN and configurations of the data, {sizes['configs']} cases",
        ("what", "message"),
        [(name, row[-1]) for name, row in CONFIGS.items()],
    )
    table(
        f"Unknown and mistyped options, {sizes['options']} cases",
        ("typed", "message"),
        [(f"`{name}`", message) for name, message in OPTIONS.items()],
    )
    table(
        f"Full disks and folders that can't be written to, {sizes['places']} cases",
        ("where", "what happens"),
        list(PLACES.items()),
    )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(tables(), end="")
