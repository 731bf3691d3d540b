"""Two servers under a real Ray Serve: the words are those of a server alone, killed or stopped none is lost."""

import asyncio
import importlib.util
import os
import signal
import sys
import time
from pathlib import Path

import aiohttp
import numpy as np
import pytest
import wire
from wire import RATE, Process, connected, expected_output, noise, receive_all, start, until

from echostream.audio.output import to_s16le
from echostream.cli import ray_serve
from echostream.streaming import StreamingTranslator
from scripts.demo.serve_client import Client

needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs pip install -e '.[ray]'")
TOKEN = "a-token-for-the-two-servers-here"
WAVES = [noise(9.0, seed) for seed in (3, 4)]
LONGEST_S = 300  # of what Ray does, on a machine that has other things to do


def children(pid: int) -> list[tuple[int, str]]:
    """Processes below this one, with their command lines."""
    parents, names = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            status = (folder / "stat").read_text().rpartition(")")[2].split()
            names[int(folder.name)] = (folder / "cmdline").read_text().replace("\0", " ")
        except OSError:
            continue
        parents[int(folder.name)] = int(status[1])
    found, waiting = [], [pid]
    while waiting:
        below = [child for child, parent in parents.items() if parent == waiting[0]]
        found += [(child, names[child]) for child in below]
        waiting = waiting[1:] + below
    return found


@pytest.fixture(scope="module")
def expected(model):
    """What the model says to each recording without any server."""
    translator = StreamingTranslator.from_checkpoint(model)
    settings = {"segment_ms": 160, "policy": "fixed-rate", "task": "s2st"}
    return [expected_output(translator, wave, **settings) for wave in WAVES]


@pytest.fixture(scope="module")
def site(tmp_path_factory, model):
    folder = tmp_path_factory.mktemp("ray")
    (folder / "token").write_text(TOKEN)
    options = ["--replicas", 2, "--cpus", 0.5, "--segment-ms", 160, "--max-speed", 3, "--token-file", folder / "token"]
    # Only the machine is slow here.
    options += ["--max-handshake-s", 100, "--max-away-s", 300, "--max-drain-s", 100, "--max-stall-s", 100]
    options += ["--state-dir", folder / "sessions", "--allow-origin", "https://translate.example.org"]
    made = Process(model, folder / "log", *options, module=("echostream.cli.ray_serve",))
    made.begin()
    try:
        made.wait()
        yield made
    finally:
        if made.process.poll() is None:
            made.end(signal.SIGTERM, LONGEST_S)


@pytest.fixture(autouse=True)
def patience(monkeypatch):
    monkeypatch.setattr(wire, "PATIENCE_S", LONGEST_S)


def replicas(site: Process) -> list[int]:
    return [pid for pid, name in children(site.process.pid) if name.startswith("ray::ServeReplica")]


def client_of(site: Process) -> Client:
    return Client(site.url.replace("http", "ws") + "/ws", TOKEN)


def said(client: Client) -> bytes:
    return np.concatenate(client.speech).astype("<i2").tobytes()


@needs_ray
@pytest.mark.timeout(900)
def test_page_files_names_and_tokens_through_ray(site):
    bearer = {"Authorization": f"Bearer {TOKEN}"}

    async def run():
        async with aiohttp.ClientSession() as http:
            page = await (await http.get(f"{site.url}/")).text()
            config = await (await http.get(f"{site.url}/config")).json()
            foreign = await http.get(f"{site.url}/config", headers={"Host": "evil.example"})
            known = await http.get(f"{site.url}/config", headers={"Host": "translate.example.org"})
            unknown = await http.post(f"{site.url}/v1/audio/translations", data=b"")
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await http.ws_connect(f"{site.url}/ws", headers={**bearer, "Origin": "https://evil.example"})
            async with http.ws_connect(f"{site.url}/ws") as line:
                await line.send_json(start())
                error = await line.receive_json()
                await line.receive()
                code = line.close_code
            return page, config, foreign, await foreign.text(), known, unknown, refused.value.status, error, code

    page, config, foreign, why, known, unknown, refused, error, code = asyncio.run(run())
    assert "EchoStream" in page and config["needs_token"]
    assert foreign.status == 403 and "--allow-origin https://evil.example" in why and known.status == 200
    assert unknown.status == 401 and "Bearer" in unknown.headers["WWW-Authenticate"] and refused == 403
    assert error["type"] == "error" and code == 4401


@needs_ray
@pytest.mark.timeout(900)
def test_two_sessions_go_to_two_servers_and_a_killed_one_costs_no_word(site, expected):
    """Whichever server is killed has one of the sessions, which goes on at the other server."""

    async def run():
        clients = [client_of(site) for _ in WAVES]
        talking = []
        for client, wave in zip(clients, WAVES, strict=True):
            talking.append(asyncio.create_task(client.translate(np.frombuffer(to_s16le(wave), "<i2"), RATE)))
            await until(lambda client=client: client.translated_s > 0.3)
        await until(lambda: all(client.translated_s > 4.5 for client in clients))
        before = replicas(site)
        os.kill(before[0], signal.SIGKILL)
        done = await asyncio.wait_for(asyncio.gather(*talking), LONGEST_S)
        return before, clients, done

    before, clients, done = asyncio.run(run())
    assert len(before) == 2
    assert [result["code"] for result in done] == [1000, 1000]
    assert sorted(client.connections > 1 for client in clients) == [False, True]
    for client, wanted in zip(clients, expected, strict=True):
        assert wanted.words and client.words == [text for text, _ in wanted.words]
        assert said(client) == wanted.pcm
    began = time.monotonic()
    while len(replicas(site)) < 2:  # Ray starts another
        assert time.monotonic() - began < LONGEST_S
        time.sleep(0.5)


@needs_ray
@pytest.mark.timeout(900)
def test_all_that_was_heard_is_translated_when_ray_stops(site, model):
    """A client that can't resume, in mid-sentence: what it gets is what a server alone says after SIGTERM."""
    wave = WAVES[0][: 3 * RATE]
    translator = StreamingTranslator.from_checkpoint(model)
    wanted = expected_output(translator, wave, segment_ms=160, policy="fixed-rate", task="s2st")

    async def run():
        async with connected(site.url) as line:
            await line.send_json(start(token=TOKEN))
            for at in range(0, len(wave), RATE // 10):
                await line.send_bytes(to_s16le(wave[at : at + RATE // 10]))
            stopping = asyncio.create_task(asyncio.to_thread(site.end, signal.SIGTERM, LONGEST_S))
            return await receive_all(line), await stopping

    below = children(site.process.pid)
    received, status = asyncio.run(run())
    assert received.last["type"] == "done" and received.last["code"] == received.code == 1001
    assert received.words("words") == wanted.words and received.pcm == wanted.pcm
    assert status == 0 and "Traceback" not in site.log
    time.sleep(1)
    assert not [name for pid, name in below if "ray" in name and Path(f"/proc/{pid}").exists()]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--replicas", "0"], "--replicas: must be at least 1, got 0"),
        (["--replicas", "3", "--max-replicas", "2"], "--max-replicas 2 is less than --replicas 3"),
        (["--target-sessions", "3"], "--target-sessions needs --max-replicas"),
        (["--allow-origin", "example.org"], "--allow-origin takes a site such as https://example.org"),
        (["--max-sessions", "0"], "--max-sessions must be positive"),
        (["--replica", "2", "--prot", "1"], "unknown option --prot; did you mean --port?"),
    ],
)
def test_wrong_options_give_one_line(options, message, model, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["ray_serve", "--model", str(model), *options])
    try:
        status = ray_serve.main()
    except SystemExit as ended:
        status = ended.code
    err = capsys.readouterr().err
    assert status == 2 and err.count("\n") == 1 and err.startswith("error: ") and message in err


def test_missing_package_gives_one_line(model, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setattr(sys, "argv", ["ray_serve", "--model", str(model)])
    assert ray_serve.main() == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "needs the package ray: pip install" in err and "[ray]" in err
