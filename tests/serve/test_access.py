"""Who may use a server: sites, host names, access tokens, and limits counted by address."""

import asyncio
import ipaddress
import json

import aiohttp
import pytest
from wire import PATIENCE_S, connected, noise, receive_all, running, send_all, start, translate, until

from echostream.serve.access import Access, client_network, parse_origin, proxy_network, read_tokens
from echostream.serve.app import Server
from echostream.serve.protocol import CloseCode

TOKEN = "a-token-of-thirty-two-characters"
BEARER = {"Authorization": f"Bearer {TOKEN}"}


@pytest.mark.parametrize(
    ("text", "origin"),
    [
        ("https://example.org", "https://example.org"),
        ("https://Example.org:443/", "https://example.org"),
        ("http://example.org:8080", "http://example.org:8080"),
        ("http://[::1]:9000", "http://[::1]:9000"),
        ("https://übersetzen.example", "https://xn--bersetzen-p9a.example"),
    ],
)
def test_origins_are_written_as_browsers_send_them(text, origin):
    assert parse_origin(text) == origin


@pytest.mark.parametrize(
    "text",
    [
        *("*", "https://*.example.org", "example.org", "https://", "ftp://example.org", "https://example.org/page"),
        *("null", "https://a b", "https://example.org:port", "https://user@example.org", "https://example.org?x"),
        *("http://[", ""),
    ],
)
def test_what_is_no_origin_is_refused(text):
    with pytest.raises(ValueError, match=r"--allow-origin takes a site such as https://example\.org"):
        parse_origin(text)


def test_tokens_are_read_from_a_file_and_the_environment(tmp_path, monkeypatch):
    path = tmp_path / "tokens"
    path.write_text(f"# for the radio\n{TOKEN}\n\nanother-token-of-some-length\n")
    assert read_tokens(path) == (TOKEN, "another-token-of-some-length")
    monkeypatch.setenv("ECHOSTREAM_TOKEN", "a-third-token-of-some-length")
    assert read_tokens(path)[0] == "a-third-token-of-some-length" and read_tokens(None) == read_tokens(path)[:1]
    for content, said in (("short\n", "at least 16"), ("# nothing\n", "holds no access token"), ("ü" * 20, "ASCII")):
        path.write_text(content)
        with pytest.raises(ValueError, match=said):
            read_tokens(path)
    with pytest.raises(ValueError, match="cannot read the access tokens"):
        read_tokens(tmp_path / "missing")


def guarded(make_server, **limits) -> Server:
    server = make_server(**limits)
    server.access.tokens = (TOKEN, "another-token-of-some-length")
    return server


def test_token_opens_sockets_metrics_and_files_and_nothing_else_does(make_server):
    async def run():
        answers = {}
        async with running(guarded(make_server, max_handshake_s=5)) as url, aiohttp.ClientSession() as client:
            for path in ("/", "/health", "/config", "/metrics"):
                answers[path] = (await client.get(url + path)).status
            answers["with"] = (await client.get(f"{url}/metrics", headers=BEARER)).status
            answers["post"] = (await client.post(f"{url}/v1/audio/translations", data={"file": b"x"})).status
            answers["config"] = await (await client.get(f"{url}/config")).json()
            async with client.ws_connect(f"{url}/ws", headers=BEARER) as socket:
                await socket.send_json(start())
                answers["header"] = (await socket.receive_json())["type"]
            async with client.ws_connect(f"{url}/ws") as socket:  # as browsers have to do it
                await socket.send_json(start(token=TOKEN))
                answers["field"] = (await socket.receive_json())["type"]
            answers["none"] = await send_all(url, start())
            answers["wrong"] = await send_all(url, start(token="x" * 32))
            answers["number"] = await send_all(url, start(token=3))
        return answers

    answers = asyncio.run(run())
    assert [answers[path] for path in ("/", "/health", "/config")] == [200, 200, 200]
    assert answers["config"]["needs_token"] is True and TOKEN not in json.dumps(answers["config"])
    assert answers["/metrics"] == 401 == answers["post"] and answers["with"] == 200
    assert answers["header"] == "ready" == answers["field"]
    for kind in ("none", "wrong", "number"):
        assert answers[kind].code == CloseCode.UNAUTHORISED and "access token" in answers[kind].last["message"]


def test_guessing_of_tokens_is_slowed_down(make_server):
    async def run():
        async with running(guarded(make_server)) as url, aiohttp.ClientSession() as client:
            statuses = []
            for guess in range(15):
                answer = await client.get(f"{url}/metrics", headers={"Authorization": f"Bearer {guess}"})
                statuses.append(answer.status)
            return statuses, (await client.get(f"{url}/metrics", headers=BEARER)).status

    statuses, _ = asyncio.run(run())
    assert statuses[0] == 401 and statuses[-1] == 429 and 5 <= statuses.count(401) <= 12


def test_clients_without_a_token_take_no_places(make_server):
    async def run():
        server = guarded(make_server, max_sessions=1, max_handshake_s=0.5)
        async with running(server) as url, connected(url) as first, connected(url) as second:
            received = await send_all(url, start(token=TOKEN), {"type": "end"})
            await until(lambda: not server.sessions)
            return received, await receive_all(first), await receive_all(second)

    received, *silent = asyncio.run(run())
    assert received.code == 1000
    assert [client.code for client in silent] == [CloseCode.IDLE] * 2
    assert "no start message came for 0.5 s" in silent[0].last["message"]


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        ("203.0.113.5", None, "203.0.113.5"),
        ("203.0.113.5", "198.51.100.1", "203.0.113.5"),  # whoever is no proxy of ours may write what they like
        ("127.0.0.1", "198.51.100.1", "198.51.100.1"),
        ("127.0.0.1", "1.2.3.4, 198.51.100.1, 10.0.0.7", "198.51.100.1"),
        ("::ffff:127.0.0.1", "2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("127.0.0.1", "nonsense", "nonsense"),
        ("127.0.0.1", None, "127.0.0.1"),
    ],
)
def test_address_of_a_client(peer, forwarded, address):
    class Request:
        remote = peer
        headers = {} if forwarded is None else {"X-Forwarded-For": forwarded}

    access = Access(proxies=[proxy_network("127.0.0.1"), proxy_network("10.0.0.0/8")])
    assert access.address(Request()) == address


def test_addresses_of_one_ipv6_network_are_one_client():
    network = ipaddress.ip_network("2001:db8::/64")
    assert client_network(str(network[1])) == client_network(str(network[2**40])) != client_network("2001:db8:0:1::1")
    with pytest.raises(ValueError, match="--trust-proxy takes an address or network"):
        proxy_network("everybody")


def test_one_address_may_have_so_many_sessions(make_server):
    async def run():
        server = make_server(max_sessions_per_address=2)
        server.access.proxies = [proxy_network("127.0.0.1")]
        async with running(server) as url, aiohttp.ClientSession() as client:
            sockets, places = [], []
            for _ in range(3):
                socket = await client.ws_connect(f"{url}/ws", headers={"X-Forwarded-For": "198.51.100.1"})
                sockets.append(socket)
                await socket.send_json(start())
                places.append(await socket.receive_json(timeout=PATIENCE_S))
            other = await client.ws_connect(f"{url}/ws", headers={"X-Forwarded-For": "198.51.100.2"})
            await other.send_json(start())
            return places, await other.receive_json(timeout=PATIENCE_S), await translate(url, noise(0.3))

    places, other, local = asyncio.run(run())
    assert [place["type"] for place in places] == ["ready", "ready", "error"]
    assert places[2]["code"] == CloseCode.BUSY and "one address may have 2 sessions" in places[2]["message"]
    assert other["type"] == "ready" and local.code == 1000


def test_proxy_that_is_not_trusted_is_named_once_in_the_log(make_server, caplog):
    async def run():
        async with running(make_server()) as url, aiohttp.ClientSession() as client:
            for _ in range(3):
                async with client.ws_connect(f"{url}/ws", headers={"X-Forwarded-For": "198.51.100.1"}):
                    pass

    asyncio.run(run())
    assert caplog.text.count("--trust-proxy 127.0.0.1") == 1


def test_refused_host_is_told_which_option_helps(make_server):
    async def run():
        server = make_server()
        server.access.hosts = ()
        async with running(server) as url, aiohttp.ClientSession() as client:
            answer = await client.get(f"{url}/health", headers={"Host": "translate.example.org"})
            refused = answer.status, await answer.text()
            server.access.hosts = ("translate.example.org",)
            allowed = await client.get(f"{url}/health", headers={"Host": "translate.example.org"})
            other = [
                (await client.get(f"{url}/health", headers={"Host": host})).status for host in ("127.0.0.2", "[::1]")
            ]
            return refused, allowed.status, other

    (status, text), allowed, other = asyncio.run(run())
    assert status == 403 and "--allow-origin https://translate.example.org" in text
    assert allowed == 200 and other == [200, 200]
