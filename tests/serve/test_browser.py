"""The web page in a real browser: microphone input from a wav file, a recording, and keyboard use."""

import asyncio
import contextlib
import re

import numpy as np
import pytest
import soundfile
from wire import RATE, noise, running, until

from scripts.release.chromium import chromium, find_chromium

BROWSER = find_chromium()
pytestmark = pytest.mark.skipif(BROWSER is None, reason="needs Chromium, such as Debian's package chromium")

STATUS = "document.getElementById('status').textContent"
SAID = "document.querySelectorAll('#translation span').length"
HEARD_S = "(parseFloat(document.getElementById('heard').textContent) || 0)"
FIGURES = ("latency", "rtf")
DONE = f"/^(Done|Ended)/.test({STATUS}) && {STATUS}"


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
            figures = await page.evaluate(
                "['latency', 'rtf', 'waiting'].map((id) => document.getElementById(id).textContent)"
            )
            assert re.fullmatch(r"\d+ ms", figures[0]) and re.fullmatch(r"\d+\.\d\d", figures[1])
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
            await page.click("#pause")
            status = await page.wait_for(DONE)
            assert asyncio.get_running_loop().time() - began > 6
            for kind in ("wav", "vtt"):
                await page.click(f"#save-{kind}")
                await until(lambda name=f"translation.{kind}": (tmp_path / name).exists())
            words = await page.evaluate("document.getElementById('translation').textContent.replace(/\\s+/g, ' ')")
            return status, words, await page.evaluate("document.activeElement.id")

    status, words, focused = asyncio.run(run())
    assert status.startswith("Done: 6.0 s heard")
    speech, rate = soundfile.read(tmp_path / "translation.wav")
    assert rate == RATE and np.abs(speech).max() > 0.01
    vtt = (tmp_path / "translation.vtt").read_text(encoding="utf-8")
    cues = re.findall(r"(\d\d:\d\d:\d\d\.\d{3}) --> (\d\d:\d\d:\d\d\.\d{3})\n(.+)\n", vtt)
    assert vtt.startswith("WEBVTT\n\n") and cues == sorted(cues) and all(start < end for start, end, _ in cues)
    assert " ".join(text for *_, text in cues).split() == words.split()
    last_s = sum(60**power * float(part) for power, part in enumerate(reversed(cues[-1][1].split(":"))))
    assert last_s <= len(speech) / rate + 0.2
    assert focused


def test_page_is_accessible_by_keyboard_and_labelled(make_server, wav):
    async def run():
        async with page_of(make_server(), wav, touched=False) as page:
            seen = []
            for _ in range(12):
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
            await page.wait_for(f"{STATUS} === 'Ended: a session ends after 1 s of audio'")
            server.limits.__dict__["max_sessions"] = 0
            await page.click("#microphone")
            await page.wait_for(f"{STATUS}.includes('sessions of this server are taken')")
            assert await page.evaluate("document.getElementById('status').classList.contains('error')")

    asyncio.run(run())


def test_narrow_wide_light_and_dark_pages_fit(make_server, tmp_path):
    async def run():
        async with page_of(make_server()) as page:
            colours = set()
            for width, height in ((320, 640), (390, 844), (1280, 800), (1920, 1080)):
                for dark in (False, True):
                    await page.screenshot(tmp_path / "page.png", width, height, dark)
                    assert await page.evaluate("document.documentElement.scrollWidth") <= width
                    colours.add(await page.evaluate("getComputedStyle(document.body).backgroundColor"))
            assert len(colours) == 2

    asyncio.run(run())
