"""The page for browsers: what lies beside the graphs, what it says when something is missing, what it translates."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import functools
import json
import os
import re
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import chain
from pathlib import Path

import axe_core_python
import numpy as np
import pytest
import soundfile
from guide_program import guide_program, run_program
from shipped_model import short_samples

from echostream.constants import SAMPLE_RATE
from echostream.export.web_page import RUNTIME_FILES, runtime_files, write_page
from scripts.release.chromium import chromium, find_chromium

BROWSER = find_chromium()
VARIABLE = "ECHOSTREAM_ONNXRUNTIME_WEB"
needs_chromium = pytest.mark.skipif(BROWSER is None, reason="needs Chromium, such as Debian's package chromium")
needs_runtime = pytest.mark.skipif(
    VARIABLE not in os.environ, reason=f"needs onnxruntime-web: {VARIABLE} names the folder of the unpacked npm package"
)
STATUS = "(document.getElementById('status')?.textContent ?? '')"
READY = f"{STATUS}.startsWith('Press Speak')"
DONE = f"/^Done/.test({STATUS}) && {STATUS}"
# Symbols by sentence; each has an element of its own, and a space before it if it begins a word that is not the first.
SYMBOLS = """[...document.querySelectorAll('#NAME p')].map((sentence) => [...sentence.querySelectorAll('span')].map(
  (symbol) => (symbol.previousSibling?.nodeType === Node.TEXT_NODE ? '▁' : '') + symbol.textContent))"""
AXE = (Path(axe_core_python.__file__).parent / "axe.min.js").read_text(encoding="utf-8")
VIOLATIONS = "axe.run().then(({violations}) => violations.map(({id, nodes}) => id + ': ' + nodes.map((n) => n.html)))"
FOCUSED = "document.activeElement.id"
LOADING_S = 300  # on a machine with other work


class Handler(SimpleHTTPRequestHandler):
    """That of ``python -m http.server``, silent."""

    def log_message(self, *_: object) -> None: ...


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a folder; afterwards nothing answers there."""
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=folder)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def no_runtime(tmp_path) -> Path:
    """What looks like onnxruntime-web, and computes nothing."""
    package = tmp_path / "package"
    (package / "dist").mkdir(parents=True)
    (package / "package.json").write_text(json.dumps({"name": "onnxruntime-web", "version": "1.0.0"}))
    for name in RUNTIME_FILES:
        (package / "dist" / name).write_bytes(b"")
    return package


@pytest.fixture
def page_folder(exported, tmp_path) -> Path:
    """The exported model that ships with the page beside it."""
    folder = tmp_path / "fr-en-page"
    folder.mkdir()
    for file in exported.iterdir():
        (folder / file.name).symlink_to(file)
    write_page(folder, runtime_files(Path(os.environ[VARIABLE])))
    return folder


def test_all_that_the_page_asks_for_lies_beside_it(no_runtime, tmp_path):
    folder = tmp_path / "files"
    folder.mkdir()
    write_page(folder, runtime_files(no_runtime))
    wanted = {folder / name for name in re.findall(r'(?:href|src)="(page/[^"]+)"', (folder / "index.html").read_text())}
    for script in (folder / "page").glob("*.js"):
        text = script.read_text(encoding="utf-8")
        wanted |= {script.parent / name for name in re.findall(r'^import .* from "\./([^"]+)";$', text, re.MULTILINE)}
        wanted |= {script.parent / name for name in re.findall(r'"([\w.]+\.js)"', text)}
    wanted |= {folder / "page/onnxruntime-web" / name for name in RUNTIME_FILES}
    wanted.remove(folder / "page/player.worklet.js")  # for speech, which the server's page alone plays
    assert {file for file in folder.rglob("*") if file.is_file()} == wanted | {folder / "index.html"}


def test_another_folder_and_another_version_are_named(no_runtime, tmp_path):
    with pytest.raises(ValueError, match="is not the unpacked npm package onnxruntime-web: 'npm pack"):
        runtime_files(tmp_path)
    (no_runtime / "dist" / RUNTIME_FILES[1]).unlink()
    with pytest.raises(ValueError, match=rf"{RUNTIME_FILES[1]} is missing: .* has onnxruntime-web 1\.0\.0"):
        runtime_files(no_runtime)
    for content in ("{", "[]", '{"name": "onnxruntime"}'):
        (no_runtime / "package.json").write_text(content)
        with pytest.raises(ValueError, match="is not the unpacked"):
            runtime_files(no_runtime)


@needs_chromium
def test_what_is_missing_is_said_on_the_page(no_runtime, tmp_path):
    folder = tmp_path / "files"
    folder.mkdir()
    write_page(folder, runtime_files(no_runtime))

    async def run():
        async with chromium(BROWSER) as page:
            await page.open(
                (folder / "index.html").as_uri(), f"{STATUS}.replace(/\\s+/g, ' ').includes('opened as a file')"
            )
            with served(folder) as url:
                await page.open(url, f"{STATUS}.includes('echostream.json is missing')")
                (folder / "echostream.json").write_text('{"format_version": 99}')
                await page.open(url, f"{STATUS}.includes('Another version of EchoStream')")
                (folder / "page/onnxruntime-web" / RUNTIME_FILES[0]).unlink()
                await page.open(url, f"{STATUS}.includes('not all files of the page')")
                await page.call("Page.addScriptToEvaluateOnNewDocument", source="delete globalThis.WebAssembly")
                await page.open(url, f"{STATUS}.includes('no WebAssembly')")
                assert await page.evaluate("document.getElementById('status').classList.contains('error')")
                assert await page.evaluate("document.querySelectorAll('button:enabled, input:enabled').length") == 0

    asyncio.run(run())


@pytest.mark.integration
@needs_chromium
@needs_runtime
def test_a_recording_gives_in_the_browser_what_it_gives_in_python(page_folder, exported, tmp_path):
    pause = np.zeros(2 * SAMPLE_RATE, dtype=np.float32)
    wave = np.concatenate([part for sample in short_samples(8, least_words=4) for part in (sample.wave, pause)])
    soundfile.write(tmp_path / "talk.wav", wave, SAMPLE_RATE, subtype="PCM_16")
    as_lists = "def text_of(tokens, symbols):\n    return [symbols[token] for token in tokens]\n\n\ndef translate"
    printed = run_program(guide_program().replace("def translate", as_lists, 1), exported, tmp_path)
    expected = [[ast.literal_eval(symbols) for symbols in line.split(" -> ")] for line in printed]
    for symbols in chain.from_iterable(expected):
        symbols[0] = symbols[0].removeprefix("▁")

    async def run():
        async with chromium(BROWSER) as page:
            with served(page_folder) as url:
                await page.open(url, "document.getElementById('progress')?.hidden === false")
                await page.wait_for(READY, LOADING_S)
            # Nothing is there any more that could be asked or told.
            await page.choose_file("#file", tmp_path / "talk.wav")
            await page.wait_for(DONE, LOADING_S)
            assert float(await page.evaluate("document.getElementById('rtf').textContent")) > 0
            await page.evaluate(AXE)
            colours = set()
            for width, height in ((320, 640), (1280, 800)):
                for dark in (False, True):
                    await page.screenshot(tmp_path / "page.png", width, height, dark)
                    assert await page.evaluate("document.documentElement.scrollWidth") <= width
                    assert await page.evaluate("document.documentElement.scrollHeight") <= height, "one viewport"
                    assert await page.evaluate(VIOLATIONS) == []
                    colours.add(await page.evaluate("getComputedStyle(document.body).backgroundColor"))
            assert len(colours) == 2 and not page.errors
            return [await page.evaluate(SYMBOLS.replace("NAME", name)) for name in ("source", "translation")]

    heard, said = asyncio.run(run())
    assert [list(sentence) for sentence in zip(heard, said, strict=True)] == expected


@pytest.mark.integration
@needs_chromium
@needs_runtime
def test_the_microphone_is_translated_while_it_listens_and_a_recording_can_be_stopped(page_folder, tmp_path):
    (sample, *_) = short_samples(4, least_words=4)
    pause = np.zeros(3 * SAMPLE_RATE, dtype=np.float32)
    soundfile.write(tmp_path / "talk.wav", np.concatenate([sample.wave, pause]), SAMPLE_RATE, subtype="PCM_16")
    soundfile.write(tmp_path / "long.wav", np.tile(sample.wave, 100), SAMPLE_RATE, subtype="PCM_16")
    (tmp_path / "noise.txt").write_bytes(bytes(range(256)) * 10)

    async def run():
        async with chromium(BROWSER, tmp_path / "talk.wav") as page:
            with served(page_folder) as url:
                await page.open(url, "document.getElementById('progress')?.hidden === false")
                await page.wait_for(READY, LOADING_S)
                await page.evaluate("document.getElementById('microphone').focus()")
                await page.press("Enter", 13, "\r")
                await page.wait_for("document.querySelectorAll('#translation span').length", LOADING_S)
                assert (await page.evaluate(STATUS)).startswith("Listening.")
                assert await page.evaluate(FOCUSED) == "stop"
                await page.press("Enter", 13, "\r")
                assert float((await page.wait_for(DONE, LOADING_S)).split()[1]) > sample.seconds
                assert await page.evaluate(FOCUSED) == "microphone"
                await page.choose_file("#file", tmp_path / "noise.txt")
                await page.wait_for(f"{STATUS} === 'The browser cannot read noise.txt as audio.'")
                await page.choose_file("#file", tmp_path / "long.wav")
                await page.wait_for("document.querySelectorAll('#source span').length", LOADING_S)
                assert not await page.evaluate("document.getElementById('progress').hidden")
                await page.click("#stop")
                assert float((await page.wait_for(DONE, LOADING_S)).split()[1]) < 100 * sample.seconds
                assert not page.errors

    asyncio.run(run())
