"""What tests measured on their way is printed at the end; and no test goes missing unseen, in parallel workers neither.

``--no-unexpected-skips``, which `.ci/run` gives, fails a run in which a test was skipped for another reason than those
of :data:`LEGITIMATE`: an environment made by `make` has every package that the tests need.
"""

import os
import re
import signal

# One process for each processor, as `make test` has them: a second thread in each only waits for the others, spinning.
# It is set before anything imports torch, and the programs that tests start inherit it.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest

# Hardware and programs that no package brings. What `pip install -e '.[dev]'` brings is not among them.
LEGITIMATE = (
    r"needs a GPU",
    r"needs Chromium",
    r"needs onnxruntime-web",  # from npm
    r"needs (nginx|haproxy)",
    r"needs OmniSTEval",  # a program with dependencies of its own, from any environment
    r"needs pip install -e '\.\[mic\]'",  # PortAudio comes with the system
    r"needs pip install -e '\.\[ray\]'",  # another engine, with dozens of dependencies of its own
    r"needs root|not root|root may",
    r"gloo over spawn",  # Windows
    r"there is a SLURM here",  # the test is about a machine without
    r"one is enough to see",  # a case that another one covers
)
LONGEST = "test_convergence.py"
SKIPS = pytest.StashKey[dict[str, str]]()  # reason by test or module


def pytest_addoption(parser) -> None:
    parser.addoption(
        "--no-unexpected-skips",
        action="store_true",
        help="fail if a test is skipped for another reason than missing hardware or programs",
    )


def pytest_configure(config) -> None:
    config.stash[SKIPS] = {}
    config.pluginmanager.register(_SkipRecorder(config.stash[SKIPS]), "skip-recorder")


def pytest_collection_modifyitems(items) -> None:
    """Files with whole commands come first: one of them at the end would leave the other processors without work."""
    long = {item.path for item in items if item.get_closest_marker("integration")}
    items.sort(key=lambda item: (item.path.name != LONGEST, item.path not in long))


def pytest_runtest_setup() -> None:
    """A shell's background job (`make test &`) ignores Ctrl-C, and so would every program that a test interrupts."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


class _SkipRecorder:
    def __init__(self, skips: dict[str, str]) -> None:
        self.skips = skips

    def pytest_runtest_logreport(self, report) -> None:
        self._note(report)

    def pytest_collectreport(self, report) -> None:
        self._note(report)

    def _note(self, report) -> None:
        if report.skipped and not hasattr(report, "wasxfail"):
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
            self.skips[report.nodeid] = reason.removeprefix("Skipped: ")


def unexpected(skips: dict[str, str]) -> dict[str, str]:
    """The skips that are not due to the machine."""
    return {node: reason for node, reason in skips.items() if not re.match("|".join(LEGITIMATE), reason)}


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node) -> None:
    """A worker has ended: a module that it skipped while collecting is known to nobody else."""
    node.config.stash[SKIPS].update(getattr(node, "workeroutput", {}).get("skips", {}))


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session, exitstatus) -> None:
    config = session.config
    if hasattr(config, "workeroutput"):
        config.workeroutput["skips"] = config.stash[SKIPS]
    elif config.getoption("--no-unexpected-skips") and unexpected(config.stash[SKIPS]) and not exitstatus:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter, config) -> None:
    for report in terminalreporter.getreports("passed") + terminalreporter.getreports("failed"):
        for name, value in report.user_properties:
            terminalreporter.write_line(f"{name}: {value}")
    if config.getoption("--no-unexpected-skips"):
        for node, reason in sorted(unexpected(config.stash[SKIPS]).items()):
            terminalreporter.write_line(f"skipped, but should have run: {node}: {reason}", red=True)
