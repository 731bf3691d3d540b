"""Every block of the README and the documentation that is marked as bash or Python is run as it is pasted.

Blocks without a language can't be run here: they install, train for hours, or need a microphone, a GPU or a domain. Of
their commands it is tested that the files and options exist.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import soundfile
from encoded import encode
from shipped_model import is_alike, samples

sys.path.insert(0, str(Path(__file__).parent))

from preloaded import preloaded_commands
from test_pages import PAGES, REPOSITORY, name_of, text_of

BLOCK = re.compile(r"^( *)```(\w*)\n(.*?)^\1```", re.DOTALL | re.MULTILINE)
LANGUAGES = ("bash", "python")
# Pages whose blocks are run by a test of their own.
ELSEWHERE = {
    "docs/guides/onnx.md": "tests/export/test_shipped_model.py",
    "docs/guides/streamspeech.md": "tests/docs/test_streamspeech.py",
    "docs/tutorial/extend-front-end.md": "tests/docs/test_extend.py",
    "docs/tutorial/extend-policy.md": "tests/docs/test_extend.py",
    "docs/tutorial/extend-vocoder.md": "tests/docs/test_extend.py",
}
COMMANDS = ("make", "python", "scripts/", "echostream", "bash")
LEAST_S = 0.4  # of speech in place of nothing
SCRIPT_OPTION = re.compile(r"(?<![\w-])--[a-z][\w-]*")


def blocks(page: Path, *languages: str) -> list[str]:
    return [text for _, language, text in BLOCK.findall(text_of(page)) if language in languages]


PAGES_THAT_RUN = [page for page in PAGES if blocks(page, *LANGUAGES) and name_of(page) not in ELSEWHERE]


@pytest.fixture(scope="module")
def commands(tmp_path_factory) -> Iterator[Path]:
    with preloaded_commands(tmp_path_factory.mktemp("preloaded")) as folder:
        yield folder


def readme_sample() -> str:
    """The sample whose text the README prints, which is what is said in all recordings of the pages."""
    return re.search(r'translate\("(models/\S+)"\)', text_of(REPOSITORY / "README.md"))[1]


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """A folder with the recordings that the pages speak of."""
    folder = tmp_path_factory.mktemp("recordings")
    speech, _ = soundfile.read(REPOSITORY / readme_sample(), dtype="float32")
    for name in ("talk.m4a", "my talk.m4a", "talk.mp3", "talk.webm"):
        encode(speech, folder / name, Path(name).suffix)
    encode(speech, folder / "talk.mp4", ".mp4", with_video=True)
    soundfile.write(folder / "talk.wav", speech, 16_000)
    (folder / "talks").mkdir()
    encode(speech, folder / "talks/first.m4a", ".m4a")
    return folder


@pytest.fixture
def run(commands, files, tmp_path) -> Callable[[str, str], str]:
    """Run a block in a folder with the recordings and what it needs of a checkout; returns what it prints."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    for path in files.iterdir():
        (folder / path.name).symlink_to(path) if path.is_file() else (folder / path.name).mkdir()
    (folder / "talks/first.m4a").symlink_to(files / "talks/first.m4a")
    for name in ("models", "scripts", "configs", "docs"):
        (folder / name).symlink_to(REPOSITORY / name)
    environment = os.environ | {
        "PATH": f"{commands}{os.pathsep}{os.environ['PATH']}",
        "ECHOSTREAM_MODELS": str(tmp_path / "models"),
        "PYTHONPATH": str(REPOSITORY),
        "OMP_NUM_THREADS": "1",
    }

    def block(language: str, text: str) -> str:
        command = ["bash", "-euo", "pipefail", "-c", text] if language == "bash" else [commands / "python", "-c", text]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, f"{text}\n{done.stdout}{done.stderr}"
        assert "Traceback" not in done.stderr
        return done.stdout

    block.folder = folder  # type: ignore[attr-defined]
    return block


@pytest.mark.integration
@pytest.mark.parametrize("page", [page for page in PAGES_THAT_RUN if name_of(page) != "docs/protocol.md"], ids=name_of)
def test_blocks_run_as_pasted(page, run):
    printed = [run(language, text) for _, language, text in BLOCK.findall(text_of(page)) if language in LANGUAGES]
    check = CHECKS.get(name_of(page))
    if check is not None:
        check(printed, run.folder)


def readme(printed: list[str], folder: Path) -> None:
    shell, python = printed
    assert "  heard  " in shell and "  said   " in shell
    first, second = python.splitlines()
    assert len(first.split()) > 2 and len(second.split()) > 2
    assert is_alike(shell.splitlines()[-1], first)
    for name in ("my talk.translated.wav", "talk.en.mp3"):
        assert soundfile.info(folder / name).duration > LEAST_S
    cues = (folder / "talk.en.srt").read_text(encoding="utf-8")
    assert is_alike(" ".join(line for line in cues.splitlines() if not re.match(r"\d+(:|$)", line)), first)


def soundless(line: str) -> str:
    """The translation in a line ``source -> translation``."""
    return line.partition(" -> ")[2]


def tutorial(printed: list[str], folder: Path) -> None:
    live, own, sizes, whole, stream, step = printed
    page = text_of(REPOSITORY / "docs/tutorial/translate.md")
    # The page shows what is printed, to the letter.
    assert f"```\n{live}```\n" in page
    said = soundless(whole.splitlines()[0])
    assert "".join(line.split()[2] for line in whole.splitlines()[1:]) == said.replace(" ", "")
    assert len(stream.split()) >= len(own.splitlines()[-1].split()) / 2 > 0
    assert len(sizes.split("==>")) == 1 + len(samples())
    assert re.fullmatch(r"'' \d+\.\d MB\n", step)
    spoken = re.findall(r"^echostream translate .* -o (\S+)", page, re.MULTILINE)
    assert len(spoken) == 4
    for name in [*spoken, "talk.en.wav"]:
        assert soundfile.info(folder / name).duration > LEAST_S, name
    assert (folder / "talk.en.txt").read_text(encoding="utf-8").split()


def guide(printed: list[str], folder: Path) -> None:
    for name in ("talk.translated.wav", "talk.en.mp3", "translated/first.translated.wav", "brother.opus"):
        assert np.abs(soundfile.read(folder / name)[0]).max() > 0.05, name
    assert all((folder / name).stat().st_size > 20 for name in ("talk.vtt", "talk.en.srt", "talk.json", "talk.txt"))
    assert '{"recording": "stdin", "track": "source"' in printed[0] and "fr to en" in printed[1]


CHECKS = {"README.md": readme, "docs/tutorial/translate.md": tutorial, "docs/guides/command-line.md": guide}


SERVER = "127.0.0.1:8765"  # of the pages


@contextlib.contextmanager
def served(command: str, folder: Path) -> Iterator[int]:
    """A running ``echostream serve ...``, as a page has it but for the port, which it yields."""
    environment = os.environ | {"ECHOSTREAM_MODELS": str(folder / "none"), "PYTHONPATH": str(REPOSITORY)}
    program, *options = shlex.split(command)
    assert program == "echostream"
    line = [sys.executable, "-m", "echostream.cli", *options, "--port", "0"]
    with subprocess.Popen(
        line, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as server:
        try:
            yield int(re.search(rb" at https?://[\d.]+:(\d+)/", server.stdout.readline())[1])
        finally:
            server.terminate()


@pytest.mark.integration
def test_the_client_of_the_protocol_runs_as_pasted(run):
    (block,) = blocks(REPOSITORY / "docs/protocol.md", "python")
    with served("echostream serve", run.folder) as port:
        printed = run("python", block.replace(SERVER, f"127.0.0.1:{port}"))
    assert "'type': 'ready'" in printed and "'type': 'done'" in printed
    assert soundfile.info(run.folder / "talk.en.wav").duration > LEAST_S


@pytest.mark.integration
def test_the_page_of_the_server_runs_as_pasted(run):
    """Its server, its client, its files over HTTP, and its server for other machines."""
    start, client, http, public = blocks(REPOSITORY / "docs/guides/server.md", "")
    (subtitles,) = (text for text in blocks(REPOSITORY / "docs/protocol.md", "") if text.startswith("curl"))
    folder = run.folder

    def shell(text: str) -> str:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        environment = os.environ | {"PATH": path, "PYTHONPATH": str(REPOSITORY)}
        command = ["bash", "-euo", "pipefail", "-c", text]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, f"{text}\n{done.stdout}{done.stderr}"
        return done.stdout

    with served(start, folder) as port:
        shell(f"{client.rstrip()} --url ws://127.0.0.1:{port}/ws")
        answers = [shell(text.replace(SERVER, f"127.0.0.1:{port}")) for text in (http, subtitles)]
    assert soundfile.info(folder / "talk.en.wav").duration > LEAST_S
    assert answers[0].startswith("WEBVTT\n") and all(" --> " in answer for answer in answers)

    make_token, command = public.splitlines()
    (make_certificate,) = blocks(REPOSITORY / "docs/faq.md", "bash")
    shell(f"{make_token}\n{make_certificate}")
    with served(command, folder) as port:
        asked = f"curl -sko /dev/null -w '%{{http_code}} ' https://127.0.0.1:{port}"
        assert shell(f"{asked}/health; {asked}/metrics") == "200 401 "
        assert shell(f'{asked}/metrics -H "Authorization: Bearer $(cat token)"') == "200 "


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_samples_that_a_page_names_come_with_the_model(page):
    named = re.findall(r"models/fr-en/samples/[\w.-]+", text_of(page))
    assert not [name for name in named if not (REPOSITORY / name).exists()]


def test_every_marked_block_is_run_somewhere():
    """A block that can't be run has no language; those that are run elsewhere are run by a test that names the page."""
    for page, test in ELSEWHERE.items():
        assert Path(page).name in (REPOSITORY / test).read_text(encoding="utf-8"), page
    assert {name_of(page) for page in PAGES_THAT_RUN} >= {*CHECKS, "docs/protocol.md", "MODEL_CARD.md", "docs/faq.md"}
    indented = [
        name_of(page) for page in PAGES for indent, language, _ in BLOCK.findall(text_of(page)) if indent and language
    ]
    assert not indented  # bash would run them, but a reader pastes the spaces too


# Blocks that are not run: what they name exists.


@cache
def known_options() -> set[str]:
    """All that looks like an option in the sources of the commands."""
    found: set[str] = set()
    for folder in ("scripts", "echostream", "agent"):
        for suffix in ("*.py", "*.sh"):
            for path in (REPOSITORY / folder).rglob(suffix):
                text = path.read_text(encoding="utf-8")
                found.update(SCRIPT_OPTION.findall(text))
                found.update(f"--{name.replace('_', '-')}" for name in re.findall(r"^    (\w+):", text, re.MULTILINE))
    return found


def command_lines(page: Path) -> list[str]:
    """Commands of this repository in the blocks that are not run."""
    lines = []
    for text in blocks(page, ""):
        for line in text.replace("\\\n", " ").splitlines():
            for command in re.split(r"\s[|;&]+\s", line.split(" #")[0].strip()):
                if command.startswith(COMMANDS):
                    lines.append(command)
    return lines


@pytest.mark.parametrize("page", [page for page in PAGES if command_lines(page)], ids=name_of)
def test_commands_that_are_not_run_name_what_exists(page):
    targets = set(re.findall(r"^([\w-]+):", (REPOSITORY / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for command in command_lines(page):
        words = shlex.split(command, comments=True)
        if words[0] == "make":
            assert words[1] in targets, command
            continue
        program = words[1] if words[0] in ("python", "bash") else words[0]
        if program == "-m" and words[2].partition(".")[0] in ("scripts", "echostream"):
            path = REPOSITORY / words[2].replace(".", "/")
            assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file(), command
        elif program.startswith("scripts/"):
            assert (REPOSITORY / program).is_file(), command
        else:
            continue
        if words[:3] == ["python", "-m", "echostream.evaluation"]:  # whose other options are SimulEval's
            continue
        options = [word.partition("=")[0] for word in words if SCRIPT_OPTION.fullmatch(word.partition("=")[0])]
        assert not set(options) - known_options(), command
