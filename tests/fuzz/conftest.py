"""Fuzzing uses the same real server as tests/serve, and writes no files to the checkout."""

import tempfile
from pathlib import Path

from hypothesis.configuration import set_hypothesis_home_dir

set_hypothesis_home_dir(Path(tempfile.gettempdir()) / "echostream-hypothesis")  # tables of Unicode
