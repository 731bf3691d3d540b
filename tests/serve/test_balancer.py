"""Two workers behind a real balancer, as docs/guides/deployment.md says: killed and restarted, no word is lost."""

import asyncio
import io
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import time
from pathlib import Path

import aiohttp
import numpy as np
import pytest
import soundfile
from aiohttp.abc import AbstractResolver
from wire import NAME, PATIENCE_S, RATE, Process, expected_output, noise, until

from echostream.audio.output import to_s16le
from echostream.streaming import StreamingTranslator
from scripts.demo.serve_client import Client

PAGE = (Path(__file__).parents[2] / "docs" / "guides" / "deployment.md").read_text(encoding="utf-8")
TOKEN = "a-token-for-the-two-workers-here"
WAVE = noise(9.0, 3)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Here(AbstractResolver):
    """Every name is this machine."""

    async def resolve(self, host, port=0, family=socket.AF_INET):
        return [{"hostname": host, "host": "127.0.0.1", "port": port, "family": family, "proto": 0, "flags": 0}]

    async def close(self):
        pass


class Site:
    """The workers and what stands before them."""

    def __init__(self, folder: Path, model: Path, certificate: Path) -> None:
        self.folder, self.ports = folder, [free_port(), free_port()]
        (folder / "token").write_text(TOKEN)
        for name in ("key.pem", "cert.pem"):
            (folder / name).write_bytes((certificate / name).read_bytes())
        (folder / "both.pem").write_text((folder / "cert.pem").read_text() + (folder / "key.pem").read_text())
        unit = re.search(r"ExecStart=(.*?)\n\w+=", PAGE, re.DOTALL)[1].replace("\\\n", " ")
        options = re.findall(r"(--(?:allow-origin|trust-proxy|token-file|state-dir)) (\S+)", unit)
        here = {"--token-file": folder / "token", "--state-dir": folder / "sessions"}
        told = [part for name, value in options for part in (name, here.get(name, value))]
        told += ["--segment-ms", 160, "--max-speed", 3]
        self.workers = [Process(model, folder / f"log{port}", *told, port=port) for port in self.ports]

    def running(self) -> list[Process]:
        return [worker for worker in self.workers if worker.process is not None and worker.process.poll() is None]

    def start_missing(self) -> None:
        missing = [worker for worker in self.workers if worker not in self.running()]
        for worker in missing:
            worker.begin()
        for worker in missing:
            worker.wait()

    def configuration(self, balancer: str, port: int) -> Path:
        """The page's, with the ports and paths of this test."""
        text = re.search(rf"```{balancer}\n(.*?)```", PAGE, re.DOTALL)[1]
        for old, new in (("8765", self.ports[0]), ("8766", self.ports[1]), ("listen 443", f"listen {port}")):
            text = text.replace(old, str(new))
        text = text.replace("bind :443", f"bind :{port}").replace(
            "/etc/haproxy/translate.pem", f"{self.folder}/both.pem"
        )
        text = text.replace("/etc/ssl/translate", str(self.folder))
        if balancer == "nginx":
            places = "".join(
                f"{kind}_temp_path {self.folder}/{kind};\n"
                for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
            )
            user = "user root;\n" if os.geteuid() == 0 else ""  # else its own user could not use this folder
            text = (
                f"{user}daemon off;\npid {self.folder}/pid;\nevents {{}}\nhttp {{\naccess_log off;\n{places}{text}}}\n"
            )
        path = self.folder / balancer
        path.write_text(text)
        return path

    def connector(self) -> aiohttp.TCPConnector:
        context = ssl.create_default_context(cafile=self.folder / "cert.pem")
        return aiohttp.TCPConnector(resolver=Here(), ssl=context, force_close=True)


@pytest.fixture(scope="module")
def site(tmp_path_factory, model, certificate):
    made = Site(tmp_path_factory.mktemp("site"), model, certificate)
    try:
        yield made
    finally:
        for worker in made.running():
            worker.end(signal.SIGKILL)


@pytest.fixture
def balanced(request, site):
    """Address of the site over a running balancer, with both workers."""
    site.start_missing()
    program = shutil.which(request.param) or shutil.which(request.param, path="/usr/sbin")
    if program is None:
        pytest.skip(f"needs {request.param}, such as Debian's package {request.param}")
    port = free_port()
    path = site.configuration(request.param, port)
    command = [program, "-p", str(site.folder), "-c", str(path), "-e", f"{site.folder}/errors"]
    if request.param == "haproxy":
        command = [program, "-f", str(path), "-db"]
    with (site.folder / "balancer").open("w") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            for _ in range(200):
                try:
                    socket.create_connection(("127.0.0.1", port), timeout=1).close()
                    break
                except OSError:
                    assert process.poll() is None, (site.folder / "balancer").read_text()
                    time.sleep(0.02)
            yield f"https://{NAME}:{port}/translate"
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def expected(model):
    """What the model says to the recording without any server."""
    translator = StreamingTranslator.from_checkpoint(model)
    return expected_output(translator, WAVE, segment_ms=160, policy="fixed-rate", task="s2st")


async def holder(site: Site) -> Process:
    """The worker that has the only session."""
    async with aiohttp.ClientSession() as http:
        for worker in site.workers:
            answer = await http.get(f"{worker.url}/health")
            if (await answer.json())["sessions"]:
                return worker
    raise AssertionError("no worker has a session")


@pytest.mark.parametrize("balanced", ["nginx", "haproxy"], indirect=True)
def test_page_files_and_names_behind_a_balancer(balanced, site):
    async def run():
        bearer = {"Authorization": f"Bearer {TOKEN}"}
        async with aiohttp.ClientSession(connector=site.connector()) as http:
            page = await (await http.get(f"{balanced}/")).text()
            parts = re.findall(r'(?:src|href)="(static/[^"]+)"', page)
            statuses = [(await http.get(f"{balanced}/{part}")).status for part in parts]
            config = await (await http.get(f"{balanced}/config")).json()
            origin = {"Origin": balanced.removesuffix("/translate")}
            async with http.ws_connect(f"{balanced}/ws", headers={**bearer, **origin}) as line:
                await line.send_json({"type": "start", "sample_rate": RATE})
                ready = await line.receive_json()
            foreign = await http.get(f"{balanced}/config", headers={"Host": "evil.example"})
            data = aiohttp.FormData()
            data.add_field("file", to_wav(), filename="a.wav")
            answer = await http.post(f"{balanced}/v1/audio/translations", data=data, headers=bearer)
            refused = await http.post(f"{balanced}/v1/audio/translations", data=b"")
            return statuses, config, ready, foreign.status, await foreign.text(), await answer.json(), refused.status

    statuses, config, ready, foreign, said, answer, refused = asyncio.run(run())
    assert len(statuses) > 2 and set(statuses) == {200} and config["needs_token"] and ready["type"] == "ready"
    assert foreign == 403 and "--allow-origin https://evil.example" in said
    assert answer["text"] and refused == 401


@pytest.mark.parametrize(
    ("balanced", "number"), [("nginx", signal.SIGKILL), ("haproxy", signal.SIGTERM)], indirect=["balanced"]
)
def test_killed_or_restarted_worker_costs_no_word(balanced, site, expected, number):
    samples = np.frombuffer(to_s16le(WAVE), "<i2")

    async def run():
        """A session whose worker gets a signal in mid-sentence."""
        client = Client(balanced.replace("https", "wss") + "/ws", TOKEN, site.connector())
        # As it is spoken, so that there is something still to be said when the signal comes, however slow the machine.
        talking = asyncio.create_task(client.translate(samples, RATE))
        await until(lambda: client.translated_s > 4.5 or talking.done())
        worker = await holder(site)
        status = await asyncio.to_thread(worker.end, number)
        assert status == (0 if number == signal.SIGTERM else -number)
        return client, await asyncio.wait_for(talking, PATIENCE_S)

    client, done = asyncio.run(run())
    assert client.connections > 1 and done["code"] == 1000 and done["source_s"] == 9.0
    assert expected.words and client.words == [text for text, _ in expected.words]
    assert np.concatenate(client.speech).astype("<i2").tobytes() == expected.pcm
    assert not list((site.folder / "sessions").glob("*.session"))
    assert all("Traceback" not in worker.log for worker in site.workers)


def to_wav() -> bytes:
    file = io.BytesIO()
    soundfile.write(file, noise(1.5, 4), RATE, format="WAV")
    return file.getvalue()
