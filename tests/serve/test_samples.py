"""Recordings of a model's folder that the page offers."""

import asyncio

import aiohttp
import soundfile
from wire import RATE, noise, running

from echostream.audio.output import to_s16le
from echostream.serve.samples import MAX_BYTES, MOST, Sample, read_samples


def test_the_first_recordings_of_the_list_are_offered(tmp_path, caplog):
    folder = tmp_path / "samples"
    folder.mkdir()
    assert read_samples(tmp_path, "fr") == []  # there is no list
    for number in range(5):
        soundfile.write(folder / f"{number}.flac", noise(0.1, number), RATE)
    (folder / "page.html").write_bytes((folder / "0.flac").read_bytes())
    (tmp_path / "secret").write_text("of this machine")
    (folder / "link.flac").symlink_to(tmp_path / "secret")
    (folder / "large.flac").write_bytes(bytes(MAX_BYTES + 1))
    (tmp_path / "secret.flac").write_bytes(b"secret")
    rows = ["id\tsource_audio\tfr", "a\t../secret.flac\tnon", "b\tmissing.flac\tnon", "c\tlarge.flac\tnon"]
    rows += ["d\tlink.flac\tnon", "e\tpage.html\tnon"]
    rows += [f'{number}\t{number}.flac\til dit "{number}' for number in range(5)]
    (folder / "samples.tsv").write_text("\n".join(rows), encoding="utf-8")
    found = read_samples(tmp_path, "fr")
    assert [(sample.name, sample.text, sample.content) for sample in found] == [
        (f"{number}.flac", f'il dit "{number}', (folder / f"{number}.flac").read_bytes()) for number in range(MOST)
    ]
    assert found[0].kind in ("audio/flac", "audio/x-flac")
    (tmp_path / "model.safetensors").touch()
    assert read_samples(tmp_path / "model.safetensors", "") == [
        Sample(sample.name, "", sample.content, sample.kind) for sample in found
    ]
    assert not caplog.records
    (folder / "samples.tsv").write_bytes(b"id\tsource_audio\n\xff\t0.flac\n")
    assert read_samples(tmp_path, "fr") == [] and "can't be offered" in caplog.text
    (folder / "samples.tsv").unlink()
    (folder / "samples.tsv").symlink_to("/dev/zero")
    caplog.clear()
    assert read_samples(tmp_path, "fr") == [] and "more than 65,536 bytes" in caplog.text


def test_config_names_them_and_the_server_gives_no_other_file(make_server):
    server = make_server()
    server.description = "Knows one voice."
    server.samples = [Sample("a b.wav", "il pleut", to_s16le(noise(0.1)), "audio/wav")]

    async def run():
        async with running(server) as url, aiohttp.ClientSession() as client:
            config = await (await client.get(f"{url}/config")).json()
            given = await client.get(f"{url}/samples/a%20b.wav")
            other = await client.get(f"{url}/samples/..%2Fsamples.tsv")
            return config, given.status, given.content_type, await given.read(), other.status

    config, status, kind, content, other = asyncio.run(run())
    assert config["description"] == "Knows one voice."
    assert config["samples"] == [{"name": "a b.wav", "text": "il pleut"}]
    assert (status, kind, content, other) == (200, "audio/wav", server.samples[0].content, 404)
