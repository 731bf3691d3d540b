"""Files over HTTP: every answer's shape, what is refused, and that live sessions go on beside them."""

import asyncio
import io
import json
import re

import aiohttp
import numpy as np
import pytest
import soundfile
from encoded import encoded
from wire import RATE, assert_output, connected, expected_output, noise, running, start, translate, until

from echostream.serve.file_answers import Translation
from echostream.streaming import OutputWord

SETTINGS = {"segment_ms": 160, "policy": "fixed-rate", "task": "s2tt"}
WAVE = noise(2.0, 4)


def recording(wave: np.ndarray = WAVE, rate: int = RATE, kind: str = "WAV") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, wave, rate, format=kind)
    return file.getvalue()


def form(data: bytes = b"", name: str = "talk.wav", **fields: str) -> aiohttp.FormData:
    made = aiohttp.FormData(default_to_multipart=True)
    made.add_field("model", "whisper-1")  # as clients do whatever the server is
    for key, value in fields.items():
        made.add_field(key, value)
    if data:
        made.add_field("file", data, filename=name)
    return made


def post(server, *forms, headers=None):
    """Status, content type and text of each request."""

    async def run():
        async with running(server) as url, aiohttp.ClientSession(headers=headers) as client:
            answers = []
            for one in forms:
                async with client.post(f"{url}/v1/audio/translations", data=one) as answer:
                    answers.append((answer.status, answer.content_type, await answer.text()))
            await until(lambda: not server.sessions and not server.batcher.streams)
            return answers

    return asyncio.run(run())


@pytest.fixture(scope="module")
def text(translator) -> str:
    view = translator.view(**SETTINGS)
    return view.step(WAVE, view.init_state(), is_last=True).text.strip()


def test_every_format(make_server, translator, text):
    server = make_server()
    server.languages = ("fr", "en")
    kinds = ("json", "text", "verbose_json", "srt", "vtt")
    answers = post(server, form(recording()), *(form(recording(), response_format=kind) for kind in kinds))
    assert [status for status, *_ in answers] == [200] * 6 and text
    plain, _, verbose, srt, vtt = (body for _, _, body in answers[1:])
    assert json.loads(answers[0][2]) == json.loads(plain) == {"text": text}
    assert answers[2][1:] == ("text/plain", text + "\n")
    verbose = json.loads(verbose)
    assert verbose["text"] == text and verbose["duration"] == 2.0 and verbose["task"] == "translate"
    assert (verbose["source_language"], verbose["language"]) == ("fr", "en")
    segments = verbose["segments"]
    assert " ".join(segment["text"] for segment in segments) == text
    assert all(0 <= segment["start"] < segment["end"] for segment in segments)
    times = re.findall(r"(?m)^(\d+)\n(\d\d:\d\d:\d\d,\d{3}) --> (\d\d:\d\d:\d\d,\d{3})\n(.+(?:\n.+)?)$", srt)
    assert [lines.replace("\n", " ") for *_, lines in times] == [segment["text"] for segment in segments]
    assert [int(number) for number, *_ in times] == list(range(1, len(segments) + 1))
    assert vtt.startswith("WEBVTT\n") and vtt.count("-->") == len(segments)
    assert server.metrics.registry.get_sample_value("echostream_audio_seconds_total", {"direction": "in"}) > 11


@pytest.mark.parametrize(("rate", "kind"), [(RATE, "FLAC"), (44_100, "OGG"), (8_000, "MP3")])
def test_files_of_other_kinds(make_server, rate, kind):
    ((status, _, body),) = post(make_server(), form(recording(noise(1.5, 4, rate), rate, kind), f"a.{kind.lower()}"))
    assert status == 200 and json.loads(body)["text"]


@pytest.mark.parametrize(("suffix", "with_video"), [(".m4a", False), (".webm", False), (".mp4", True), (".3gp", False)])
def test_files_of_telephones_browsers_and_cameras(make_server, suffix, with_video):
    forms = [
        form(encoded(noise(1.5, 4), suffix, with_video=with_video), f"a{suffix}", stream=one) for one in ("0", "1")
    ]
    whole, streamed = post(make_server(), *forms)
    assert whole[0] == 200 and (text := json.loads(whole[2])["text"])
    assert json.loads(streamed[2].strip().split("data: ")[-1])["text"] == text


def test_damaged_video_is_named(make_server):
    (answer,) = post(make_server(), form(encoded(noise(1.5, 4), ".mp4")[:4_000], "clip.mp4"))
    assert answer[0] == 400 and "clip.mp4 is a damaged or unusual MP4 file" in json.loads(answer[2])["error"]["message"]


def test_streamed_answers(make_server, text):
    streams = [form(recording(), stream="true", response_format=kind) for kind in ("json", "verbose_json", "text")]
    events, verbose, plain = post(make_server(), *streams)
    assert events[:2] == (200, "text/event-stream") and plain[1:] == ("text/plain", text + "\n")
    contents = [json.loads(line.removeprefix("data: ")) for line in events[2].split("\n\n") if line]
    *deltas, done = contents
    assert len(deltas) > 3 and {delta["type"] for delta in deltas} == {"transcript.text.delta"}
    assert "".join(delta["delta"] for delta in deltas) == text
    assert done == {"type": "transcript.text.done", "text": text}
    assert json.loads(verbose[2].strip().split("data: ")[-1])["segments"]


def test_streamed_words_come_while_the_file_is_translated(make_server, translator):
    async def run():
        server = make_server(segment_ms=40)
        async with running(server) as url, aiohttp.ClientSession() as client:
            long = form(recording(noise(10.0)), stream="true", response_format="text")
            async with client.post(f"{url}/v1/audio/translations", data=long) as answer:
                assert await answer.content.readany()
                (job,) = server.sessions
                assert job.stream.used_samples < 7 * RATE and job.stream.waiting_s < 4, "decoded as it is needed"
                beside = await translate(url, noise(1.0, 1))
            await until(lambda: not server.sessions and not server.batcher.streams)
            return beside

    expected = expected_output(translator, noise(1.0, 1), segment_ms=40, policy="fixed-rate", task="s2st")
    assert_output(asyncio.run(run()), expected)


@pytest.mark.parametrize(
    ("fields", "data", "status", "said"),
    [
        ({}, b"", 400, "the field file is missing"),
        ({}, b"no audio at all", 400, "cannot read talk.wav as audio"),
        ({}, recording()[:30_000], 400, "talk.wav is cut short after"),
        ({}, recording(noise(6.0)), 413, "talk.wav is longer than the 5 s"),
        ({}, bytes(2_100_000), 413, "files may have 2 MB"),
        ({"response_format": "xml"}, recording(), 400, "response_format must be one of json, text, srt"),
        ({"stream": "maybe"}, recording(), 400, "stream must be true or false"),
        ({"stream": "true", "response_format": "srt"}, recording(), 400, "stream goes with json"),
        ({"prompt": "Dear listeners"}, recording(), 400, "takes no prompt"),
        ({"temperature": "0.7"}, recording(), 400, "leave temperature out, or at 0"),
        ({"language": "de"}, recording(), 400, "this model hears fr, not de"),
        ({"volume": "11"}, recording(), 400, "unknown field 'volume'"),
        ({"prompt": "x" * 5_000}, recording(), 400, "the field prompt is too long"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",  # two megabytes of a file make a name of eight
)
def test_what_is_refused(make_server, fields, data, status, said):
    server = make_server(max_length_s=5, max_file_mb=2)
    server.languages = ("fr", "en")
    (answer,) = post(server, form(data, **fields))
    assert answer[:2] == (status, "application/json"), answer
    error = json.loads(answer[2])["error"]
    assert said in error["message"] and error["type"] == "invalid_request_error" and "/tmp" not in error["message"]


def test_refusals_of_the_server_have_the_shape_of_errors_too(make_server):
    async def run():
        server = make_server()
        async with running(server) as url, aiohttp.ClientSession() as client:

            async def ask(**headers):
                path = f"{url}/v1/audio/translations"
                async with client.post(path, data=form(recording()), headers=headers) as answer:
                    return answer.status, (await answer.json())["error"]["message"], answer.headers

            foreign = await ask(Origin="https://evil.example")
            server.access.tokens = ["open sesame, please"]
            refused = [await ask(), await ask(Authorization="Bearer wrong")]
            server.draining = True
            return foreign, *refused, await ask(Authorization="Bearer open sesame, please")

    foreign, without, wrong, stopping = asyncio.run(run())
    assert foreign[:2] == (
        403,
        "pages of https://evil.example may not connect to this server: --allow-origin names sites that may",
    )
    assert without[:2] == (401, "this server needs an access token: Authorization: Bearer TOKEN")
    assert wrong[:2] == (401, "the access token is wrong") and "Bearer" in wrong[2]["WWW-Authenticate"]
    assert stopping[:2] == (503, "the server is stopping") and stopping[2]["Retry-After"] == "1"


def test_harmless_fields_of_clients_are_taken(make_server, text):
    server = make_server()
    server.languages = ("fr", "en")
    (answer,) = post(server, form(recording(), temperature="0.0", language="fr", prompt="", stream="false"))
    assert answer[0] == 200 and json.loads(answer[2])["text"] == text


def test_what_is_no_form_is_refused(make_server):
    async def run():
        async with running(make_server(max_idle_s=0.5)) as url, aiohttp.ClientSession() as client:
            url += "/v1/audio/translations"
            kind = {"Content-Type": "multipart/form-data; boundary=x"}
            answers = [
                await client.post(url, json={"file": "x"}),
                await client.post(url, data=b"nothing of the kind", headers=kind),
                await client.post(
                    url, data=b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\nab', headers=kind
                ),
                await client.post(url, data=recording(), headers={"Content-Type": "multipart/form-data"}),
                await client.get(url),
                await client.post(url, data=form(recording()), headers={"Origin": "https://evil.example"}),
            ]
            return [answer.status for answer in answers]

    assert asyncio.run(run()) == [415, 400, 400, 400, 405, 403]


def part(name: str, content: bytes = b"", header: bytes = b"") -> bytes:
    """A part of a multipart body with the boundary x."""
    return b'--x\r\nContent-Disposition: form-data; name="%s"\r\n%b\r\n%b\r\n' % (name.encode(), header, content)


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        # Each is within max_file_mb, and any number of them would fill the disk.
        ([part("file", bytes(1_500_000))] * 3, "the field file is given twice"),
        ([part("model", b"a"), part("model", b"b")], "the field model is given twice"),
        ([part("file", recording(), b"X-Long: " + b"x" * 100_000 + b"\r\n")], "no complete multipart/form-data"),
        ([part("file", recording(), b"X-Many: x\r\n" * 10_000)], "no complete multipart/form-data"),
        ([part("file", recording(), b"no header at all\r\n")], "no complete multipart/form-data"),
    ],
)
def test_parts_that_would_cost_much_are_refused_in_few_words(make_server, caplog, parts, said):
    async def run():
        async with running(make_server(max_file_mb=2)) as url, aiohttp.ClientSession() as client:
            kind = {"Content-Type": "multipart/form-data; boundary=x"}
            body = b"".join(parts) + b"--x--\r\n"
            async with client.post(f"{url}/v1/audio/translations", data=body, headers=kind) as answer:
                return answer.status, (await answer.json())["error"]["message"]

    status, message = asyncio.run(run())
    assert status == 400 and said in message
    assert not caplog.records, "nothing that an operator could do something about"


def test_file_that_comes_too_slowly_gives_its_place_back(make_server):
    async def run():
        server = make_server(max_idle_s=0.4)
        async with running(server) as url:
            host, port = url.removeprefix("http://").split(":")
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(
                f"POST /v1/audio/translations HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Length: 1000000\r\n"
                "Content-Type: multipart/form-data; boundary=x\r\n\r\n--x\r\n"
                'Content-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'.encode()
            )
            for _ in range(30):
                writer.write(b"x")
                await asyncio.sleep(0.02)
            head = await reader.readuntil(b"\r\n")
            writer.close()
            await until(lambda: not server.sessions)
            return head

    assert b" 408 " in asyncio.run(run())


def test_files_and_sessions_share_the_places(make_server):
    async def run():
        server = make_server(max_sessions=1)
        async with running(server) as url, aiohttp.ClientSession() as client, connected(url) as socket:
            await socket.send_json(start())
            await socket.receive_json()
            answer = await client.post(f"{url}/v1/audio/translations", data=form(recording()))
            return answer.status, await answer.json(), answer.headers["Retry-After"]

    status, body, _ = asyncio.run(run())
    assert status == 503 and "all 1 sessions" in body["error"]["message"]


def test_client_that_leaves_and_server_that_stops(make_server):
    async def run():
        server = make_server(segment_ms=40, max_drain_s=20)
        async with running(server) as url, aiohttp.ClientSession() as client:
            path = f"{url}/v1/audio/translations"
            with pytest.raises(asyncio.TimeoutError):
                await client.post(path, data=form(recording(noise(60.0))), timeout=aiohttp.ClientTimeout(total=0.5))
            await until(lambda: not server.sessions and not server.batcher.streams)
            asking = asyncio.create_task(client.post(path, data=form(recording())))
            await until(lambda: server.sessions and next(iter(server.sessions)).stream.used_samples)
            await server.drain()
            answer = await asking
            refused = await client.post(path, data=form(recording()))
            return answer.status, (await answer.json())["text"], refused.status

    status, text, refused = asyncio.run(run())
    assert status == 200 and text and refused == 503


def test_failure_of_the_model_is_told(make_server, monkeypatch):
    server = make_server()

    def broken(*_):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(type(server.translator), "step_batch", broken)
    (plain, streamed) = post(server, form(recording()), form(recording(), stream="true"))
    assert plain[0] == 500 and "log says why" in json.loads(plain[2])["error"]["message"]
    assert streamed[0] == 200 and json.loads(streamed[2].removeprefix("data: "))["type"] == "error"


def test_markup_in_words_survives(translator):
    words = [OutputWord("a<b", 1.0), OutputWord("&", 1.2), OutputWord("c", 1.4, joined=True)]
    made = Translation(words, 2.0, translator.recomposer)
    assert "a<b &c" in made.body("srt") and "a&lt;b &amp;c" in made.body("vtt")
    assert json.loads(made.body("verbose_json"))["segments"][0]["text"] == "a<b &c" == made.text


def test_subtitles_are_cut_where_sentences_end(translator):
    words = [OutputWord(text, at_s) for text, at_s in (("so", 1.0), ("it", 1.2), ("is", 4.0), ("not", 4.2))]
    made = Translation(words, 6.0, translator.recomposer, sentence_ends=[2, 4])
    assert [part["text"] for part in json.loads(made.body("verbose_json"))["segments"]] == ["so it", "is not"]


def test_nothing_said_is_an_answer(make_server):
    answers = post(
        make_server(), *(form(recording(noise(0.01)), response_format=kind) for kind in ("json", "srt", "vtt"))
    )
    assert [answer[0] for answer in answers] == [200] * 3
