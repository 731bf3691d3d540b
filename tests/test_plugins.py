"""``--user-dir``: imported as fairseq imports one, or refused in one line."""

import subprocess
import sys
from pathlib import Path

import pytest

from echostream.plugins import PluginError, import_user_dir


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        path = folder / f"{name.replace('__', '/')}.py" if name != "init" else folder / "__init__.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


def test_the_package_and_its_models_are_imported_once(tmp_path):
    folder = write(tmp_path / "own_code_a", init="seen = []", models__big="from own_code_a import seen\nseen.append(1)")
    for _ in range(2):
        import_user_dir(folder)
    assert sys.modules["own_code_a"].seen == [1]


def test_what_cannot_be_imported_is_said_in_a_line(tmp_path):
    for path, message in (
        (tmp_path / "nowhere", "no such folder"),
        (write(tmp_path / "two words", init=""), "'two words' is not the name of a Python package"),
        (write(tmp_path / "json", init=""), "there is another package 'json' already"),
        (write(tmp_path / "own_code_b", init="import not_installed_at_all"), "needs the module 'not_installed_at_all'"),
        (write(tmp_path / "own_code_c", init="1 / 0"), "importing own_code_c fails with ZeroDivisionError"),
    ):
        with pytest.raises(PluginError, match=message) as refused:
            import_user_dir(path)
        assert str(refused.value).startswith(f"--user-dir {path}: ") and "\n" not in str(refused.value)


def test_importing_it_loads_nothing_heavy():
    code = "import sys, echostream.plugins, echostream.decoding.policy_arguments; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
