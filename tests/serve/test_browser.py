"""The web page in a real browser: microphone input from a wav file, a recording, and keyboard use."""

import asyncio
import contextlib
import json
import re
from itertools import chain
from pathlib import Path

import axe_core_python
import numpy as np
import pytest
import soundfile
import webvtt
from made_up_words import made_up_words
from wire import RATE, noise, running, until

from echostream.constants import DOUBTFUL
from echostream.serve.access import Access
from echostream.serve.samples import Sample
from echostream.streaming import SentenceRecomposer
from echostream.streaming.subtitles import whole_subtitles
from scripts.release.chromium import chromium, find_chromium

BROWSER = find_chromium()
pytestmark = pytest.mark.skipif(BROWSER is None, reason="needs Chromium, such as Debian's package chromium")

STATUS = "document.getElementById('status').textContent"
SAID = "document.querySelectorAll('#translation span').length"
HEARD_S = "(parseFloat(document.getElementById('heard').textContent) || 0)"
DONE = f"/^Done/.test({STATUS}) && {STATUS}"
WORDS = "document.getElementById('translation').textContent.replace(/\\s+/g, ' ')"

TOPS = "['translation', 'source'].map((id) => document.getElementById(id).getBoundingClientRect().top)"
AXE = (Path(axe_core_python.__file__).parent / "axe.min.js").read_text(encoding="utf-8")
VIOLATIONS = "axe.run().then(({violations}) => violations.map(({id, nodes}) => id + ': ' + nodes.map((n) => n.html)))"
LAST_WORD = """(() => {
  const pane = document.getElementById('translation');
  const last = [...pane.querySelectorAll('span')].at(-1).getBoundingClientRect();
  return { scrolled: pane.scrollTop > 0, bottom: last.bottom, end: pane.getBoundingClientRect().bottom };
})()"""


@pytest.fixture
def wav(tmp_path):
    """Six seconds of stereo at a rate that is not the model's."""
    left = noise(6.0, rate=44_100)
    soundfile.write(tmp_path / "talk.wav", np.stack([left, left], axis=1), 44_100, subtype="PCM_16")
    return tmp_path / "talk.wav"


@contextlib.asynccontextmanager
async def page_of(server, microphone=None, touched=True):
    async with running(server) as url, chromium(BROWSER, microphone) as page:
        await page.open(url)
        if touched:  # otherwise the browser does not let the page play sound
            await page.click("h1")
        yield page
        assert not page.errors


def test_microphone_is_translated_before_the_source_ends(make_server, wav):
    server = make_server()

    async def run():
        async with page_of(server, wav) as page:
            await page.click("#microphone")
            await page.wait_for(SAID)
            (stream,) = server.batcher.streams
            assert stream.waiting_s < 2 and not stream.ended
            heard_s = await page.evaluate(HEARD_S)
            assert 0 < heard_s < 5.5, "words are written while the file goes on"
            # ... and spoken: playback has started
            await page.wait_for("document.querySelectorAll('#translation span:not(.due)').length")
            assert not stream.ended and await page.evaluate(HEARD_S) < 5.9
            await page.wait_for("document.getElementById('latency').textContent !== '–'")
            figures = await page.evaluate(
                "['latency', 'rtf', 'reaction'].map((id) => document.getElementById(id).textContent)"
            )
            assert re.fullmatch(r"\d+\.\d s", figures[0]) and float(figures[0][:-2]) > 0, "the listener's latency"
            assert re.fullmatch(r"\d+\.\d\d", figures[1]) and re.fullmatch(r"\d+ ms", figures[2])
            await page.click("#stop")
            return await page.wait_for(DONE)

    assert re.fullmatch(r"Done: \d\.\d s heard, \d+\.\d s spoken\.", asyncio.run(run()))
    assert server.metrics.registry.get_sample_value("echostream_sessions_ended_total", {"code": "1000"}) == 1


def test_recording_is_played_in_real_time_and_can_be_saved(make_server, wav, tmp_path):
    server = make_server()

    async def run():
        async with page_of(server) as page:
            await page.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
            began = asyncio.get_running_loop().time()
            await page.choose_file("#file", wav)
            await page.wait_for(f"{SAID} && {HEARD_S} < 5")
            await page.click("#pause")
            await page.wait_for(f"{STATUS}.startsWith('Paused')")
            (stream,) = server.batcher.streams
            await until(lambda: stream.waiting_s < 0.2)
            paused = stream.received_samples
            await page.evaluate("new Promise((resolve) => setTimeout(resolve, 300))")
            assert stream.received_samples - paused < 0.1 * RATE, "nothing is sent in a pause"
            assert await page.evaluate("document.getElementById('pause').textContent") == "Resume"
            await page.click("#pause")
            status = await page.wait_for(DONE)
            assert asyncio.get_running_loop().time() - began > 6
            await page.screenshot(tmp_path / "small.png", 320, 490)
            view = await page.evaluate(LAST_WORD)
            assert view["scrolled"] and view["bottom"] <= view["end"], "the newest words are in view"
            await page.click("#save-menu summary")
            for kind in ("wav", "vtt", "srt", "txt"):
                await page.click(f"#save-{kind}")
                await until(lambda name=f"translation.{kind}": (tmp_path / name).exists())
            words = await page.evaluate(WORDS)
            return status, words, await page.evaluate("document.activeElement.id")

    status, words, focused = asyncio.run(run())
    assert status.startswith("Done: 6.0 s heard")
    speech, rate = soundfile.read(tmp_path / "translation.wav")
    assert rate == RATE and np.abs(speech).max() > 0.01
    vtt = (tmp_path / "translation.vtt").read_text(encoding="utf-8")
    cues = list(webvtt.read(str(tmp_path / "translation.vtt")))
    kinds = [cue.identifier.split()[0] for cue in cues]
    assert vtt.startswith("WEBVTT\n\n") and [cue.start for cue in cues] == sorted(cue.start for cue in cues)
    assert set(kinds) == {"source", "translation"}
    said = [cue.text for cue, kind in zip(cues, kinds, strict=True) if kind == "translation"]
    assert "".join("".join(said).split()) == "".join(words.split())
    assert cues[-1].start_in_seconds <= len(speech) / rate
    subrip = (tmp_path / "translation.srt").read_text(encoding="utf-8")
    assert subrip.count(" --> ") == len(cues) and subrip.count("{\\an8}") == kinds.count("source")
    text = (tmp_path / "translation.txt").read_text(encoding="utf-8")
    assert text.startswith("Translation\n\n") and "\nSource\n\n" in text
    assert "".join(words.split()) in "".join(text.split())
    assert focused


def test_page_is_accessible_by_keyboard_and_labelled(make_server, wav):
    async def run():
        async with page_of(make_server(), wav, touched=False) as page:
            seen = []
            await page.evaluate("document.getElementById('settings-menu').open = true")
            for _ in range(14):
                await page.press("Tab", 9)
                seen.append(await page.evaluate("document.activeElement.id || document.activeElement.className"))
            assert seen[:3] == ["skip", "microphone", "file"]
            assert {"segment", "policy", "task", "speech-volume", "source", "translation"} <= set(seen)
            tree = (await page.call("Accessibility.getFullAXTree"))["nodes"]
            roles = {"button", "combobox", "slider", "log", "status"}
            named = {node["role"]["value"]: node["name"]["value"] for node in tree if node["role"]["value"] in roles}
            unnamed = [
                node for node in tree if node["role"]["value"] in roles - {"status"} and not node["name"]["value"]
            ]
            assert not unnamed and set(named) == roles
            await page.evaluate("document.getElementById('microphone').focus()")
            await page.press("Enter", 13, "\r")
            await page.wait_for(SAID)
            await page.press("Tab", 9)
            assert await page.evaluate("document.activeElement.id") == "stop"
            await page.press("Enter", 13, "\r")
            assert (await page.wait_for(DONE)).startswith("Done")
            assert await page.evaluate("document.activeElement.id") not in ("", None)

    asyncio.run(run())


def test_errors_are_shown_on_the_page(make_server, wav, tmp_path):
    (tmp_path / "noise.txt").write_bytes(bytes(range(256)) * 10)
    server = make_server(max_length_s=1)

    async def run():
        async with page_of(server, wav) as page:
            await page.choose_file("#file", tmp_path / "noise.txt")
            await page.wait_for(f"{STATUS} === 'The browser cannot read noise.txt as audio.'")
            await page.choose_file("#file", wav)
            await page.wait_for(f"{STATUS} === 'talk.wav is longer than the 1 s that this server takes.'")
            await page.click("#microphone")
            await page.wait_for(f"{STATUS} === 'A session can be 1 seconds long. Start again to go on.'")
            server.limits.__dict__["max_sessions"] = 0
            await page.click("#microphone")
            await page.wait_for(f"{STATUS}.includes('The server is full')")
            assert await page.evaluate("document.getElementById('status').classList.contains('error')")

    asyncio.run(run())


def test_narrow_wide_light_and_dark_pages_fit(make_server, tmp_path):
    async def run():
        server = make_server()
        server.languages, server.description = (
            ("fr", "en"),
            "Knows one voice, and travel, shopping and the weather. " * 3,
        )
        server.samples = [Sample(f"{n}.wav", "le stade de bruxelles", b"", "audio/wav") for n in range(3)]
        async with page_of(server) as page:
            await page.evaluate(AXE)
            colours = set()
            for width, height in ((320, 640), (390, 844), (1280, 800), (1920, 1080)):
                for dark in (False, True):
                    await page.screenshot(tmp_path / "page.png", width, height, dark)
                    assert await page.evaluate("document.documentElement.scrollWidth") <= width
                    assert await page.evaluate("document.documentElement.scrollHeight") <= height, "one viewport"
                    top, other = await page.evaluate(TOPS)
                    assert top < other if width < 700 else top == other, "the translation comes first"
                    assert await page.evaluate(VIOLATIONS) == []
                    for menu in ("save", "settings"):
                        await page.click(f"#{menu}-menu summary")
                        assert await page.evaluate(f"document.getElementById('{menu}-menu').open")
                        assert await page.evaluate("document.documentElement.scrollWidth") <= width
                        assert await page.evaluate(VIOLATIONS) == []
                        await page.press("Escape", 27)
                    assert not await page.evaluate("document.querySelectorAll('details[open]').length")
                    colours.add(await page.evaluate("getComputedStyle(document.body).backgroundColor"))
            assert len(colours) == 2

    asyncio.run(run())


def test_a_lost_connection_and_a_page_loaded_again_go_on_where_they_were(make_server, wav):
    server = make_server()

    async def run():
        async with page_of(server) as page:
            await page.choose_file("#file", wav)
            await page.wait_for(f"{SAID} > 2")
            for connection in list(server.sessions):
                connection._abort()
            await page.wait_for(f"{STATUS}.startsWith('The connection is lost')")
            await page.wait_for(f"{STATUS}.startsWith('Playing')")
            (stream,) = server.batcher.streams
            before = await page.evaluate(WORDS)
            assert not page.dialogs
            await page.reload()
            await page.wait_for(f"{STATUS}.startsWith('The page was loaded again')")
            assert page.dialogs == ["beforeunload"], "there were words that nobody had saved"
            assert (await page.evaluate(WORDS)).startswith(before)
            assert server.batcher.streams == {stream}, "it is the same session"
            await page.click("#pause")
            await page.wait_for(DONE)
            words = await page.evaluate(WORDS)
            heard_s = stream.received_samples / RATE
            assert heard_s == pytest.approx(6.0, abs=0.1), "the recording went on where it was, and to its end"
            # what was said is still there after another time
            await page.reload()
            await page.wait_for(f"{STATUS}.startsWith('This is what was said')")
            assert await page.evaluate(WORDS) == words

    asyncio.run(run())


def test_a_pause_outlives_the_patience_of_the_server(make_server, wav):
    server = make_server(max_idle_s=1.2)

    async def run():
        async with page_of(server, wav) as page:
            await page.click("#microphone")
            await page.wait_for(SAID)
            await page.click("#pause")
            await page.wait_for(f"{STATUS}.startsWith('Paused')")
            await asyncio.sleep(2)
            assert len(server.batcher.streams) == 1
            await page.click("#pause")
            await page.wait_for(f"{STATUS}.startsWith('Listening')")
            await page.click("#stop")
            await page.wait_for(DONE)

    asyncio.run(run())


def test_a_session_that_the_server_has_forgotten_is_followed_by_another(make_server, wav):
    server = make_server()

    async def run():
        async with page_of(server) as page:
            await page.choose_file("#file", wav)
            await page.wait_for(f"{SAID} > 2")
            for connection in list(server.sessions):
                session = connection.session
                connection._abort()
                await until(lambda: not server.sessions)
                session.discard()
            await until(lambda: server.batcher.streams)
            await page.wait_for(DONE)
            assert await page.evaluate(HEARD_S) == pytest.approx(6.0, abs=0.3), "one clock"

    asyncio.run(run())


def test_what_to_say_and_samples_come_from_the_model(make_server, wav, tmp_path):
    server = make_server()
    server.languages, server.description = ("fr", "en"), "Knows <b>one</b> voice."
    server.samples = [Sample("talk.wav", "il pleut", wav.read_bytes(), "audio/wav")]

    async def run():
        async with page_of(server) as page:
            assert (
                await page.evaluate("document.getElementById('purpose').textContent")
                == "Speak French; you hear English."
            )
            assert await page.evaluate("document.getElementById('about').textContent") == "Knows <b>one</b> voice."
            assert await page.evaluate("document.querySelector('.sample').lang") == "fr"
            await page.click(".sample")
            await page.wait_for(f"{STATUS} === 'Playing the sample.'")
            await page.wait_for(SAID)
            await page.evaluate(AXE)
            for width, dark in ((390, True), (1280, False)):
                await page.screenshot(tmp_path / "page.png", width, 844, dark)
                assert await page.evaluate(VIOLATIONS) == [], "while a session runs, too"

    asyncio.run(run())


def test_access_code_is_asked_for(make_server, wav):
    server = make_server()
    server.access = Access(["127.0.0.1"], [], ["open sesame"])

    async def run():
        async with page_of(server, wav) as page:
            await page.click("#microphone")
            await page.wait_for(f"{STATUS}.startsWith('That access code is not right')")
            assert await page.evaluate("document.getElementById('settings-menu').open")
            await page.evaluate("document.getElementById('token').focus()")
            await page.call("Input.insertText", text="open sesame")
            await page.click("#microphone")
            await page.wait_for(SAID)

    asyncio.run(run())


def test_subtitles_of_the_page_are_those_of_the_command_line(make_server):
    source, sentences = made_up_words(600.0, seed=3)
    expected = whole_subtitles(source, sentences, SentenceRecomposer(RATE, 320))

    def words(sentence):
        return [{"text": w.text, "startS": w.start_s, "endS": w.end_s, "joined": w.joined} for w in sentence]

    said = [words(sentence) for sentence in sentences]
    for word, made_up in zip(chain.from_iterable(said), chain.from_iterable(sentences), strict=True):
        word["doubtful"] = made_up.confidence < DOUBTFUL
    given = json.dumps([[words(source)], said])

    async def run():
        async with page_of(make_server()) as page:
            assert await page.evaluate("import('./static/words.js').then((made) => made.DOUBTFUL)") == DOUBTFUL
            return await page.evaluate(
                f"import('./static/subtitles.js').then((made) => {{ const [heard, said] = {given}; return made.vtt("
                "made.cuesOf('source', heard, made.PAUSE_S), made.cuesOf('translation', said)); })"
            )

    assert asyncio.run(run()) == expected


def test_sentences_of_the_page_are_those_of_the_server(make_server):
    outputs = [
        {"words": ["We", "met", "at", "3.", "Good"], "sentence_ends": [4]},
        {"words": ["bye"], "sentence_ends": [1]},
        {"words": ["see"], "sentence_ends": []},
        {"words": ["so"], "sentence_ends": [0]},
    ]
    messages = [
        {
            "source_s": float(at_s),
            "source_words": [],
            "words": [{"text": text, "source_s": float(at_s), "joined": False} for text in output["words"]],
            "sentence_ends": output["sentence_ends"],
        }
        for at_s, output in enumerate(outputs)
    ]

    async def run():
        async with page_of(make_server()) as page:
            return await page.evaluate(
                "import('./static/take.js').then(({ Take }) => { const take = new Take(16000);"
                f"{json.dumps(messages)}.forEach((message) => take.output(message, null));"
                "return JSON.stringify(take.said.map((sentence) => sentence.map((word) => word.text).join(' '))); })"
            )

    assert json.loads(asyncio.run(run())) == ["We met at 3.", "Good bye", "see", "so"]
