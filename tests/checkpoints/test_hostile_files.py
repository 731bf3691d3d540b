"""Files that mean harm are refused in one line, at once, and without the memory that they ask for."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hostile import ATTACKS
from model_files import save_model

from echostream.streaming import StreamingTranslator

# Reading the largest of these files, of 13 MB, takes more; what they ask for begins at 800 MB.
MAX_GROWN_BYTES = 120_000_000
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
