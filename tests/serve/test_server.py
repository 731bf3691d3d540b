"""The server apart from its sessions: access control, monitoring, and the command ``echostream serve``."""

import asyncio
import dataclasses
import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import aiohttp
import pytest
import soundfile
from prometheus_client.parser import text_string_to_metric_families
from wire import RATE, expected_output, noise, running, start, translate

from echostream.cli import main
from echostream.serve.access import is_loopback
from echostream.serve.app import STATIC
from echostream.serve.limits import Limits

REPOSITORY = Path(__file__).parents[2]


def ask(server, *paths, headers=None):
    """Status, headers and body of each path."""

    async def run():
        async with running(server) as url, aiohttp.ClientSession(headers=headers) as client:
            answers = []
            for path in paths:
                async with client.get(url + path) as answer:
                    answers.append((answer.status, answer.headers, await answer.text()))
            return answers

    return asyncio.run(run())


def test_page_loads_nothing_from_other_sites(make_server):
    (status, headers, page), *parts = ask(make_server(), "/", *(f"/static/{path.name}" for path in STATIC.iterdir()))
    assert status == 200 and headers["Content-Type"].startswith("text/html")
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "script-src 'self'" in policy and "unsafe" not in policy
    assert headers["X-Content-Type-Options"] == "nosniff"
    named = re.findall(r'(?:src|href)="([^"#]+)"', page)
    assert named and all((STATIC / name.removeprefix("static/")).is_file() for name in named)
    assert [part[0] for part in parts] == [200] * len(parts)
    assert not [body for _, _, body in parts if re.search(r"https?://(?!www\.w3\.org/2000/svg)", body)]


def test_unknown_paths_and_files_outside_the_folder_are_not_found(make_server):
    for status, headers, _ in ask(make_server(), "/nothing", "/static/", "/static/../app.py", "/static/%2e%2e/app.py"):
        assert status in (403, 404) and "Content-Security-Policy" in headers


def test_health_metrics_and_configuration(make_server):
    server = make_server()

    async def run():
        async with running(server) as url, aiohttp.ClientSession() as client:
            await translate(url, noise(0.7))
            health = await (await client.get(f"{url}/health")).json()
            config = await (await client.get(f"{url}/config")).json()
            return health, config, await (await client.get(f"{url}/metrics")).text()

    health, config, text = asyncio.run(run())
    assert health["status"] == "ok" and health["max_sessions"] == 16
    assert config["tasks"] == ["s2st", "s2tt", "asr"] and config["defaults"]["segment_ms"] == 160
    assert config["limits"] == dataclasses.asdict(server.limits)
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert samples["echostream_audio_seconds_total", "in"] == pytest.approx(0.7)
    assert samples["echostream_sessions_ended_total", "1000"] == 1
    assert samples["echostream_reaction_seconds_count",] == samples["echostream_step_seconds_count",] > 3
    assert samples["process_resident_memory_bytes",] > 0


def test_configuration_is_valid_json_whatever_the_limits(make_server):
    """NaN and infinity, which Python writes as numbers, are none for JSON; no limit can be either."""
    server = make_server(**{field.name: field.metadata["most"] for field in dataclasses.fields(Limits)})
    server.name = "an odd \udce9 name"

    def no_number(text):
        raise AssertionError(f"{text} is no JSON")

    config = json.loads(ask(server, "/config")[0][2], parse_constant=no_number)
    assert config["limits"] == dataclasses.asdict(server.limits) and config["needs_token"] is False
    message = describe_ready(server)
    assert json.loads(message, parse_constant=no_number)["limits"] == config["limits"]


def describe_ready(server) -> str:
    """The text of a ready message."""

    async def run():
        async with running(server) as url, aiohttp.ClientSession() as client, client.ws_connect(f"{url}/ws") as socket:
            await socket.send_json(start())
            return await socket.receive_str()

    return asyncio.run(run())


def test_health_reports_a_stopped_translator(make_server):
    server = make_server()

    async def run():
        async with running(server) as url, aiohttp.ClientSession() as client:
            server._batcher_task.cancel()
            return (await client.get(f"{url}/health")).status

    assert asyncio.run(run()) == 503


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        (None, True),
        ("http://{host}", True),
        ("https://good.example", True),
        ("https://evil.example", False),
        ("http://127.0.0.1:1", False),
        ("null", False),
    ],
)
def test_only_allowed_origins_may_connect(make_server, origin, allowed):
    server = make_server()
    server.access.origins = ("https://good.example",)

    async def run():
        async with running(server) as url, aiohttp.ClientSession() as client:
            sent = {} if origin is None else {"Origin": origin.format(host=url.removeprefix("http://"))}
            try:
                async with client.ws_connect(f"{url}/ws", headers=sent) as socket:
                    await socket.send_json(start())
                    return (await socket.receive_json())["type"] == "ready"
            except aiohttp.WSServerHandshakeError as error:
                assert error.status == 403
                return False

    assert asyncio.run(run()) is allowed


def test_loopback_server_accepts_its_own_host_names_only(make_server):
    server = make_server()
    server.access.hosts = ()
    assert ask(server, "/health")[0][0] == 200
    assert ask(server, "/health", headers={"Host": "localhost:80"})[0][0] == 200
    status, _, text = ask(server, "/health", headers={"Host": "rebound.example"})[0]
    assert status == 403 and "rebound.example" in text


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("localhost", True), ("::1", True), ("0.0.0.0", False), ("::", False), ("host", False)],
)
def test_loopback_is_recognised(host, expected):
    assert is_loopback(host) is expected


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "echostream.cli", "serve", *map(str, arguments)]


def test_command_serves_a_client_and_stops_on_ctrl_c(model, translator, tmp_path):
    soundfile.write(tmp_path / "in.wav", noise(1.5), RATE, subtype="PCM_16")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    options = ["--model", model, "--port", 0, "--policy", "fixed-rate", "--segment-ms", 160, "--threads", 1]
    with subprocess.Popen(
        command(*options), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, cwd=REPOSITORY
    ) as server:
        try:
            line = server.stdout.readline()
            url = re.search(r"http://127\.0\.0\.1:\d+", line)[0].replace("http", "ws") + "/ws"
            client = [sys.executable, "scripts/demo/serve_client.py", str(tmp_path / "in.wav"), "--url", url]
            done = subprocess.run(
                [*client, "--fast", "-o", str(tmp_path / "out.wav")],
                capture_output=True,
                text=True,
                cwd=REPOSITORY,
                check=False,
            )
            refused = subprocess.run(
                [*client, "--segment-ms", "50"], capture_output=True, text=True, cwd=REPOSITORY, check=False
            )
        finally:
            server.send_signal(signal.SIGINT)
        rest, errors = server.communicate(timeout=30)
    assert done.returncode == 0, done.stderr
    assert "heard" in done.stdout and "said" in done.stdout and "1.5 s heard" in done.stdout
    assert refused.returncode == 1 and refused.stderr.startswith("error: segment_ms must be a multiple of 40")
    assert server.returncode == 0 and "stopping" in errors and "Traceback" not in errors + rest
    # Here the model has its own end symbol instead of that of the fixture, so the end of the speech may differ.
    speech, rate = soundfile.read(tmp_path / "out.wav", dtype="int16")
    expected = expected_output(translator, noise(1.5), segment_ms=160, policy="fixed-rate", task="s2st")
    assert rate == RATE and speech.astype("<i2").tobytes()[:20_000] == expected.pcm[:20_000]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--port", "70000"], "--port must be from 0 to 65535"),
        (["--port", "http"], "argument --port: invalid int value: 'http'"),
        (["--segment-ms", "0"], "--segment-ms 0, the whole recording, is too long"),
        (["--segment-ms", "5160"], "--segment-ms 5160 is too long for a live session: give at most 5120 ms"),
        (["--policy-option", "patience=3"], "the policy 'fixed-rate' has no option patience"),
        (["--policy-option", "token_frames=0"], "token_frames must be at least 1, got 0"),
        (["--max-batch", "0"], "argument --max-batch: must be at least 1, got 0"),
        (["--max-idle-s", "-1"], "--max-idle-s must be positive"),
        (["--max-length-s", "inf"], "--max-length-s must be at most 1000000000, got inf"),
        (["--max-speed", "nan"], "--max-speed must be positive, got nan"),
        (["--host", ""], "--host must name an address"),
        (["--host", "ü" * 300], "is no name that a machine can have"),
        (["--allow-origin", "*"], "--allow-origin takes a site such as https://example.org, got '*': any site could"),
        (["--allow-origin", "example.org"], "--allow-origin takes a site such as https://example.org"),
        (["--trust-proxy", "nginx"], "--trust-proxy takes an address or network"),
        (["--key", "key.pem"], "--key needs --certificate"),
    ],
)
def test_wrong_options_of_the_server_give_one_line_and_status_2(model, capsys, options, message):
    assert serve("--model", str(model), "--policy", "fixed-rate", *options) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--token-file", "none.txt"], "cannot read the access tokens in none.txt"),
        (["--token-file", "/dev/zero"], "cannot read the access tokens in /dev/zero: it has more than 1,000,000 bytes"),
        (["--device", "meta"], "cannot use --device meta: it computes nothing"),
        (["--state-dir", "/dev/null/states"], "cannot keep sessions in /dev/null/states"),
        (["--certificate", "none.pem"], "no such file: none.pem"),
        (["--model", "none.pt"], "no checkpoint at none.pt"),
        (["--host", "192.0.2.1"], "cannot listen on 192.0.2.1 port 8765"),
    ],
)
def test_what_the_server_cannot_use_gives_one_line_and_status_1(model, capsys, options, message):
    assert serve("--model", str(model), *options) == 1
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_a_port_that_is_taken_is_told_before_the_model_is_loaded(model, capsys):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert serve("--model", str(model), "--port", str(port)) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert (
        line
        == f"error: cannot listen on 127.0.0.1 port {port}: Address already in use: choose another --host or --port"
    )


def serve(*options: str) -> int:
    """Status of ``echostream serve`` with options that it refuses."""
    try:
        return main(["serve", *options])
    except SystemExit as ended:  # of the parser
        return ended.code
