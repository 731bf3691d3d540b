"""In CI an unnecessarily skipped test fails the run, however it was skipped."""

from pathlib import Path

import pytest

pytest_plugins = "pytester"
CONFTEST = Path(__file__).with_name("conftest.py")
IN_A_TEST = """
import pytest
def test_a(): pass
def test_b(): pytest.skip({reason!r})
"""
WHOLE_MODULE = """
import pytest
pytest.skip({reason!r}, allow_module_level=True)
"""
BY_A_MARK = """
import pytest
@pytest.mark.skipif(True, reason={reason!r})
def test_b(): pass
@pytest.mark.xfail(reason="known")
def test_c(): assert False
"""
MISSING = "could not import 'faster_whisper'"


@pytest.mark.parametrize("module", [IN_A_TEST, WHOLE_MODULE, BY_A_MARK])
@pytest.mark.parametrize(
    ("reason", "options", "fails"),
    [
        (MISSING, ["--no-unexpected-skips"], True),
        (MISSING, [], False),
        ("needs a GPU", ["--no-unexpected-skips"], False),
    ],
)
def test_unnecessary_skips_fail_the_run(pytester, module, reason, options, fails):
    pytester.makeconftest(CONFTEST.read_text(encoding="utf-8"))
    pytester.makepyfile(test_it=module.format(reason=reason), test_other="def test_more(): pass")
    result = pytester.runpytest_inprocess("-p", "no:flake8", "-p", "no:cacheprovider", *options)
    assert result.ret == int(fails)
    assert ("skipped, but should have run: test_it.py" in result.stdout.str()) == fails


def test_workers_report_skipped_modules(pytester, monkeypatch):
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # others' plugins take seconds to load
    pytester.makeconftest(CONFTEST.read_text(encoding="utf-8"))
    pytester.makepyfile(test_it=WHOLE_MODULE.format(reason=MISSING), test_other="def test_more(): pass")
    result = pytester.runpytest_subprocess("-p", "xdist", "-n", "1", "--no-unexpected-skips")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["skipped, but should have run: test_it.py: could not import*"])
