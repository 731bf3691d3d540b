"""Files that mean harm are refused in one line, at once, and without the memory that they ask for."""

import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hostile import ATTACKS
from model_files import save_model

from echostream.checkpoints.errors import UnsafeFileError
from echostream.checkpoints.safe_loading import load_arrays
from echostream.streaming import StreamingTranslator

# Measured: 16 MB. What these files ask for begins at 300 MB.
MAX_GROWN_BYTES = 80_000_000
MAX_SECONDS = 20


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> dict[str, dict]:
    folder = tmp_path_factory.mktemp("hostile") / "good"
    folder.mkdir()
    translator = StreamingTranslator.random("echostream_tiny", seed=5)
    save_model(translator, folder)
    symbols = translator.detector.symbols
    ngrams = "".join(f"-1.0\t{symbol}\t-0.1\n" for symbol in symbols)
    text = f"\\data\\\nngram 1={len(symbols)}\n\n\\1-grams:\n{ngrams}\\end\\\n"
    (folder / "lm.arpa").write_text(text, encoding="utf-8")
    command = [sys.executable, str(Path(__file__).with_name("hostile.py")), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    return {result["name"]: result for result in map(json.loads, done.stdout.splitlines())}


@pytest.mark.parametrize("name", ATTACKS)
def test_harm_is_refused_in_one_line_within_bounds(results, name):
    result = results[name]
    said = result["said"]
    assert result["status"] == 0 and ATTACKS[name][1] in said, result
    assert "\n" not in said and len(said) < 2_000
    assert not result["ran"]
    assert result["grown_bytes"] < MAX_GROWN_BYTES and result["seconds"] < MAX_SECONDS, result
    # torch's own refusal says how to switch the safe loader off.
    assert not {"weights_only", "add_safe_globals", "Re-running"} & set(said.replace("`", " ").split())


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.write_bytes(b""), "no .npz file, or damaged"),
        (lambda path: path.write_bytes(path.read_bytes()[:-40]), "no .npz file, or damaged"),
        (lambda path: np.savez_compressed(path, mean=np.zeros(10**6)), "would unpack to 8,000,"),
        (lambda path: np.savez(path, mean=np.array([None])), "Object arrays cannot be loaded"),
        (lambda path: claim(path, 10**15), "no .npz file, or damaged"),
        (lambda path: claim(path, 10**9), "no .npz file, or damaged"),
    ],
)
def test_arrays_are_bounded(tmp_path, spoil, message):
    path = tmp_path / "a.npz"
    np.savez(path, mean=np.zeros(80))
    assert set(load_arrays(path, 10_000)) == {"mean"}
    spoil(path)
    with pytest.raises(UnsafeFileError, match=message) as refused:
        load_arrays(path, 10_000)
    assert "\n" not in str(refused.value)


def claim(path: Path, numbers: int) -> None:
    """An archive whose array says that it has so many numbers, and holds 80."""
    array = io.BytesIO()
    np.lib.format.write_array_header_1_0(array, {"descr": "<f8", "fortran_order": False, "shape": (numbers,)})
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("mean.npy", array.getvalue() + bytes(640))
