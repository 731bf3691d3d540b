"""The web page in a real browser: microphone input from a wav file, a recording, and keyboard use."""

import asyncio
import contextlib
import json
import re
from datetime import datetime
from itertools import chain
from pathlib import Path

import axe_core_python
import numpy as np
import pytest
import soundfile
import webvtt
from made_up_words import made_up_words
from wire import RATE, noise, running, until

from echostream.cli.outputs import SPEECH_SUFFIX
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
DONE = f"/^(Done|Stopped)/.test({STATUS}) && {STATUS}"
STOP = "(({ textContent, disabled }) => [textContent, disabled])(document.getElementById('stop'))"
# The second time as soon as the source has ended.
STOP_TWICE = """new Promise((resolve) => {
  const click = () => document.getElementById("stop").click();
  new MutationObserver((_, observer) => resolve(observer.disconnect(), click()))
    .observe(document.getElementById("status"), { childList: true });
  click();
})"""
# What talk.wav becomes.
SAVED = {"wav": "talk.translated.wav", "vtt": "talk.vtt", "srt": "talk.srt", "txt": "talk.translated.txt"}
WORDS = "document.getElementById('translation').textContent.replace(/\\s+/g, ' ')"

# How many elements don't show all that they hold.
CUT = "[...document.querySelectorAll('SELECTOR')].filter((e) => e.scrollHeight > e.clientHeight).length"
TOPS = "['translation', 'source'].map((id) => document.getElementById(id).getBoundingClientRect().top)"
AXE = (Path(axe_core_python.__file__).parent / "axe.min.js").read_text(encoding="utf-8")
VIOLATIONS = "axe.run().then(({violations}) => violations.map(({id, nodes}) => id + ': ' + nodes.map((n) => n.html)))"
LAST_WORD = """(() => {
  const pane = document.getElementById('translation');
  const last = [...pane.querySelectorAll('span')].at(-1).getBoundingClientRect();
  return { scrolled: pane.scrollTop > 0, bottom: last.bottom, end: pane.getBoundingClientRect().bottom };
})()"""


SLOW_TIMERS = """(() => {
  const real = setTimeout;
  window.setTimeout = (work, ms) => real(work, Math.max(ms, 60000));
})()"""
# A page was loaded again when the server had 900 of 1000 samples; then 960 more are recorded.
LOADED_AGAIN = """(async () => {
  const { Connection } = await import("./static/connection.js");
  const Real = WebSocket;
  const sent = [];
  window.WebSocket = class {
    static OPEN = 1;
    readyState = 1;
    send(data) {
      if (typeof data !== "string") sent.push(...data);
    }
  };
  const saved = { resumeToken: "a", seq: 3, spoken: 0, total: 1000, baseS: 0, baseSpeechS: 0 };
  const handlers = { resumed() {} };
  const connection = new Connection({ sample_rate: 16000 }, "", { max_speed: 4, max_buffer_s: 10 }, handlers, saved);
  const record = (from) => connection.send(Int16Array.from({ length: 320 }, (_, index) => from + index));
  record(0);
  connection.socket.onmessage({ data: JSON.stringify({ type: "resumed", resume_token: "a", received_samples: 900 }) });
  record(320);
  record(640);
  await new Promise((resolve) => setTimeout(resolve, 300));
  window.WebSocket = Real;
  return sent;
})()"""
# A source's pieces of 20 ms for SECONDS of a session: through the page's connection, its take and its storage.
HOUR = """(async () => {
  const [{ Connection }, { Take }, { Storage }] = await Promise.all(
    ["connection", "take", "storage"].map((name) => import(`./static/${name}.js`)));
  const Real = WebSocket;
  let sent = 0, answered = 0, outputs = 0;
  window.WebSocket = class {
    static OPEN = 1;
    readyState = 1;
    send(data) {
      if (typeof data !== "string") sent += data.length;
    }
  };
  const take = new Take(16000);
  const storage = await Storage.open();
  await storage.forget();
  const handlers = { ready() {}, resumed() {}, output(message, samples) {
    take.output(message, samples);
    storage.save({ connection: connection.state() }, { message, samples });
    outputs++;
  } };
  const connection = new Connection({ sample_rate: 16000 }, "", { max_speed: 4, max_buffer_s: 10 }, handlers);
  const say = (message) => connection.socket.onmessage({ data: JSON.stringify(message) });
  say({ type: "ready", resume_token: "a", received_samples: 0 });
  for (let piece = 0; piece < 50 * SECONDS; piece++) {
    connection.send(new Int16Array(320));
    if (sent - answered < 40960) continue; // the longest segment of the page
    answered = sent;
    const nothing = { words: [], source_words: [], sentence_ends: [], samples: 0 };
    say({ type: "output", seq: outputs + 1, source_s: sent / 16000, acknowledged_samples: sent, ...nothing });
    if (outputs % 100 === 0) await new Promise((resolve) => setTimeout(resolve)); // the storage writes
  }
  const records = (await storage.load()).outputs.length;
  await storage.forget();
  window.WebSocket = Real;
  return { sent, outputs, records, pieces: connection.kept.length, times: connection.heard.length };
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
            assert re.fullmatch(r"\d+\.\d\d", figures[1]) and re.fullmatch(r"\d{1,3} ms|\d+\.\d s", figures[2])
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
            for ending, name in SAVED.items():
                await page.click("#save-menu summary")
                await page.click(f"#save-{ending}")
                await until((tmp_path / name).exists)
                assert not await page.evaluate("document.getElementById('save-menu').open")
                assert await page.evaluate("document.activeElement.parentElement.id") == "save-menu"
            return status, await page.evaluate(WORDS)

    status, words = asyncio.run(run())
    assert status.startswith("Done: 6.0 s heard")
    speech, rate = soundfile.read(tmp_path / SAVED["wav"])
    assert rate == RATE and np.abs(speech).max() > 0.01
    vtt = (tmp_path / SAVED["vtt"]).read_text(encoding="utf-8")
    cues = list(webvtt.read(str(tmp_path / SAVED["vtt"])))
    kinds = [cue.identifier.split()[0] for cue in cues]
    assert vtt.startswith("WEBVTT\n\n") and [cue.start for cue in cues] == sorted(cue.start for cue in cues)
    assert set(kinds) == {"source", "translation"}
    said = [cue.text for cue, kind in zip(cues, kinds, strict=True) if kind == "translation"]
    assert "".join("".join(said).split()) == "".join(words.split())
    assert cues[-1].start_in_seconds <= len(speech) / rate
    subrip = (tmp_path / SAVED["srt"]).read_text(encoding="utf-8")
    assert subrip.count(" --> ") == len(cues) and subrip.count("{\\an8}") == kinds.count("source")
    text = (tmp_path / SAVED["txt"]).read_text(encoding="utf-8")
    assert text.startswith("Translation\n\n") and "\nSource\n\n" in text
    assert "".join(words.split()) in "".join(text.split())


def hold(server, is_due):
    """Let the server stand still where ``is_due``; it goes on with the event that this returns."""
    step, goes_on = server.batcher._step, asyncio.Event()

    async def held_step():
        if is_due():
            await goes_on.wait()
        await step()

    server.batcher._step = held_step
    return goes_on


def test_the_rest_of_a_source_that_has_ended_can_be_dropped(make_server, tmp_path):
    soundfile.write(tmp_path / "talk.wav", noise(3.0), RATE, subtype="PCM_16")
    server = make_server()

    async def run():
        async with page_of(server) as page:
            goes_on = hold(server, lambda: any(stream.used_samples > 2 * RATE for stream in server.batcher.streams))
            await page.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
            await page.choose_file("#file", tmp_path / "talk.wav")
            await page.wait_for(f"{STATUS}.startsWith('The source has ended')", timeout_s=60)
            await page.wait_for(SAID)
            assert await page.evaluate(STOP) == ["Drop the rest", False]
            # A pause is possible, too, although there is no source any more.
            await page.click("#pause")
            await page.wait_for(f"{STATUS}.startsWith('Paused')")
            await page.click("#pause")
            await page.wait_for(f"{STATUS}.startsWith('The source has ended')")
            await page.evaluate("new Promise((resolve) => setTimeout(resolve, 1000))")
            (stream,) = server.batcher.streams
            await page.click("#stop")
            status = await page.wait_for(DONE)
            assert stream.received_samples / RATE == pytest.approx(3.0, abs=0.1)
            assert stream.waiting_s > 0.5, "there was a rest"
            await until(lambda: not server.batcher.streams)  # it is not computed either
            words = await page.evaluate(WORDS)
            assert await page.evaluate(STOP) == ["Stop", True]
            await page.click("#save-menu summary")
            await page.click("#save-txt")
            await until((tmp_path / SAVED["txt"]).exists)
            goes_on.set()
            await page.choose_file("#file", tmp_path / "talk.wav")
            return status, words, await page.wait_for(f"{STATUS}.startsWith('Done: 3.0 s heard') && {WORDS}")

    status, words, again = asyncio.run(run())
    assert re.fullmatch(r"Stopped: [0-2]\.\d s heard, \d+\.\d s spoken\.", status)
    text = (tmp_path / SAVED["txt"]).read_text(encoding="utf-8")
    assert "".join(words.split()) and "".join(words.split()) in "".join(text.split())
    assert "".join(again.split()).startswith("".join(words.split()))


def test_a_hasty_second_click_on_stop_drops_nothing(make_server, wav):
    server = make_server()

    async def run():
        async with page_of(server, wav) as page:
            await page.click("#microphone")
            await page.wait_for(SAID)
            goes_on = hold(server, lambda: True)
            await page.evaluate(STOP_TWICE)
            assert await page.evaluate(STOP) == ["Drop the rest", False]
            goes_on.set()
            return await page.wait_for(DONE)

    assert asyncio.run(run()).startswith("Done")
    assert server.metrics.registry.get_sample_value("echostream_sessions_ended_total", {"code": "1000"}) == 1


def test_files_are_named_after_the_recording(make_server):
    recordings = {
        "my talk.m4a": "my talk.translated.wav",
        "v1.2 final.tar.gz": "v1.2 final.tar.translated.wav",
        "noted": "noted.translated.wav",
        ".wav": ".wav.translated.wav",
        'a/b\\c: "d"?*<e>|\x07\u202egpj.wav': "a_b_c_ _d____e____gpj.translated.wav",
        "日本語" * 30 + ".mp3": ("日本語" * 30)[:66] + ".translated.wav",
    }
    spoken = {"kind": "microphone", "startedAt": 1000 * datetime(2026, 3, 4, 5, 6).timestamp()}

    async def run():
        async with page_of(make_server()) as page:

            async def name(source, ending):
                named = f"import('./static/take.js').then((made) => made.fileName({json.dumps(source)}, '{ending}'))"
                return await page.evaluate(named)

            for recording, expected in recordings.items():
                source = {"kind": "recording", "file": {"name": recording}}
                assert await name(source, "wav") == expected
                if "/" not in recording and len(expected) < 40:
                    assert Path(recording).with_suffix(SPEECH_SUFFIX).name == expected, "as the command line names it"
                stem = expected.removesuffix(".translated.wav")
                assert await name(source, "txt") == f"{stem}.translated.txt"
                assert await name(source, "srt") == f"{stem}.srt"
            assert await name(spoken, "wav") == "translation-2026-03-04-0506.wav"
            assert await name({"kind": "microphone"}, "txt") == "translation.txt"

    asyncio.run(run())


def test_a_page_that_the_browser_keeps_silent_says_so(make_server, wav):
    async def run():
        async with page_of(make_server(), touched=False) as page:
            await page.choose_file("#file", wav)
            await page.wait_for(f"{STATUS}.startsWith('The browser keeps this page silent')")
            await page.click("h1")
            await page.choose_file("#file", wav)
            await page.wait_for(SAID)

    asyncio.run(run())


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
    (tmp_path / "empty.wav").touch()
    server = make_server(max_length_s=1)

    async def run():
        async with page_of(server, wav) as page:
            await page.choose_file("#file", tmp_path / "noise.txt")
            await page.wait_for(f"{STATUS} === 'The browser cannot read noise.txt as audio.'")
            await page.choose_file("#file", tmp_path / "empty.wav")
            await page.wait_for(f"{STATUS} === 'empty.wav is empty.'")
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
        server.samples = [
            Sample(f"{n}.wav", "le stade de bruxelles et les gens qui y vont", b"", "audio/wav") for n in range(3)
        ]
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
                    cut = await page.evaluate(CUT.replace("SELECTOR", ".sample span"))
                    assert not cut or height < 800, "what a sample says is seen"
                    assert await page.evaluate(VIOLATIONS) == []
                    for menu in ("save", "settings"):
                        await page.click(f"#{menu}-menu summary")
                        assert await page.evaluate(f"document.getElementById('{menu}-menu').open")
                        assert await page.evaluate("document.documentElement.scrollWidth") <= width
                        cut = await page.evaluate(CUT.replace("SELECTOR", f"#{menu}-menu .panel"))
                        assert not cut or height < 800, "the whole panel is seen"
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


def test_a_page_in_the_background_loses_nothing(make_server, tmp_path):
    """Another tab is in front, and timers come once a minute, as Chromium's do after five minutes of that; then the
    connection is lost."""
    soundfile.write(tmp_path / "talk.wav", noise(4.0), RATE, subtype="PCM_16")
    server = make_server()

    async def run():
        async with page_of(server) as page:
            await page.evaluate(SLOW_TIMERS)
            await page.choose_file("#file", tmp_path / "talk.wav")
            await page.wait_for(SAID)
            await page.hide()
            (stream,) = server.batcher.streams
            for connection in list(server.sessions):
                connection._abort()
            await until(lambda: not server.sessions)
            await until(lambda: server.sessions)
            await until(lambda: not server.batcher.streams)  # translated to its end, without anybody looking
            await page.show()
            status = await page.wait_for(DONE)
            return status, stream.received_samples

    status, received = asyncio.run(run())
    assert received / RATE == pytest.approx(4.0, abs=0.05), "what was played while the connection was lost came too"
    assert status.startswith("Done: 4.0 s heard")


async def pause_after_a_word(page):
    """Speak until something was translated, then press Pause."""
    await page.click("#microphone")
    await page.wait_for(SAID)
    await page.click("#pause")
    await page.wait_for(f"{STATUS}.startsWith('Paused')")


def test_a_page_loaded_again_sends_each_sample_once(make_server):
    async def run():
        async with page_of(make_server()) as page:
            return await page.evaluate(LOADED_AGAIN)

    assert asyncio.run(run()) == list(range(960))


def test_an_hour_of_silence_leaves_nothing_in_the_page(make_server):
    """Its pieces come at once here, from a source to a server that answers each segment and has nothing to say."""

    async def run():
        async with page_of(make_server()) as page:
            await page.evaluate(HOUR.replace("SECONDS", "60"))  # whatever is made once
            before = await page.heap_bytes()
            kept = await page.evaluate(HOUR.replace("SECONDS", "3600"))
            for _ in range(10):  # on a busy machine, what was used last is let go of a little later
                grown_bytes = await page.heap_bytes() - before
                if grown_bytes < 2_000_000:
                    break
                await asyncio.sleep(0.5)
            return kept, grown_bytes

    kept, grown_bytes = asyncio.run(run())
    assert kept["sent"] == 3600 * RATE and kept["outputs"] == 3600 // 2.56
    assert kept["pieces"] <= 128 and kept["times"] <= 6000, "what the server has is not kept"
    assert kept["records"] == 1, "nor is what says nothing"
    assert grown_bytes < 2_000_000, "an hour of samples has 115 MB"


def test_a_pause_of_more_than_half_an_hour_ends_the_session_and_keeps_its_words(make_server, wav):
    server = make_server(max_idle_s=0.6)

    async def run():
        async with page_of(server, wav) as page:
            await pause_after_a_word(page)
            await page.hide()
            await page.evaluate("(() => { const now = performance.now(); performance.now = () => now + 1801e3; })()")
            await until(lambda: not server.batcher.streams)
            await page.show()
            status = await page.wait_for(f"!{STATUS}.startsWith('Paused') && {STATUS}")
            words = await page.evaluate(WORDS)
            await page.reload()
            await page.wait_for(f"{STATUS}.startsWith('This is what was said')")
            return status, words, await page.evaluate(WORDS)

    status, words, again = asyncio.run(run())
    assert "0.6 s" in status and words.strip() and again == words
    assert server.metrics.registry.get_sample_value("echostream_sessions_ended_total", {"code": "4408"}) == 1


def test_a_pause_outlives_the_patience_of_the_server(make_server, wav):
    server = make_server(max_idle_s=1.2)

    async def run():
        async with page_of(server, wav) as page:
            await pause_after_a_word(page)
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
