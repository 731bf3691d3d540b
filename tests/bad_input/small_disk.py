"""Run in a user namespace of its own: a disk of 96 KiB is mounted and written full; what happened goes out as JSON.

unshare --map-root-user --mount python small_disk.py MODEL RECORDING FOLDER
"""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
from pathlib import Path

import torch
from fairseq import checkpoint_utils
from fairseq.file_io import PathManager

from echostream.cli import main


def run(model: str, recording: str, disk: Path) -> dict[str, object]:
    """Translate until the disk is full; then save and copy checkpoints on another disk."""
    told = io.StringIO()
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=96k", "none", disk], check=True)
    options = ["--model", model, "--policy", "fixed-rate", "-q", "-o", str(disk / "out.wav")]
    with contextlib.redirect_stderr(told):
        status = main(["translate", recording, *options])
    result: dict[str, object] = {"status": status, "said": told.getvalue(), "bytes": (disk / "out.wav").stat().st_size}
    (disk / "out.wav").unlink()
    last, newer = disk / "checkpoint_last.pt", disk.parent / "checkpoint_1_5.pt"
    checkpoint_utils.torch_persistent_save({"model": torch.zeros(10_000)}, str(last))
    checkpoint_utils.torch_persistent_save({"model": torch.ones(20_000)}, str(newer))
    before = last.read_bytes()
    for name, act in (
        ("save", lambda: checkpoint_utils.torch_persistent_save({"model": torch.ones(20_000)}, str(last))),
        ("copy", lambda: PathManager.copy(str(newer), str(last), overwrite=True)),
    ):
        try:
            act()
        except SystemExit as ended:
            result[name] = str(ended.code)
    result["kept"] = last.read_bytes() == before
    result["left"] = [path.name for path in disk.iterdir()]
    return result


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps(run(sys.argv[1], sys.argv[2], Path(sys.argv[3]))))
