"""The program of docs/guides/onnx.md, and what it prints."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

GUIDE = Path(__file__).resolve().parents[2] / "docs/guides/onnx.md"


def guide_program() -> str:
    (program,) = re.findall(r"^```python\n(.*?)^```", GUIDE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return program


def run_program(program: str, exported: Path, folder: Path) -> list[str]:
    """Lines that it prints for a folder's ``talk.wav``; torch and EchoStream can't be imported by it."""
    (folder / "fr-en-onnx").symlink_to(exported)
    blocked = "import sys\nsys.modules.update(torch=None, echostream=None)\n"
    command = [sys.executable, "-c", blocked + program]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()
