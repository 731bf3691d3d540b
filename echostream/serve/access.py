"""Who may use a server: names it answers to, sites whose pages may connect, access tokens, addresses of clients."""

from __future__ import annotations

import hmac
import ipaddress
import logging
import os
import time
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from aiohttp import hdrs, web

from echostream.checkpoints.errors import UnsafeFileError
from echostream.checkpoints.text_files import read_text
from echostream.serve.limits import Meter

log = logging.getLogger(__name__)

TOKEN_VARIABLE = "ECHOSTREAM_TOKEN"  # noqa: S105  # the name of a variable, not its value
MIN_TOKEN_CHARACTERS = 16
MAX_TOKENS_BYTES = 1_000_000
WRONG_TOKENS_PER_S, WRONG_TOKENS_AT_ONCE = 0.2, 10  # of one address
MAX_METERS = 10_000
IPV6_CLIENT_BITS = 64  # a client commands all addresses of its network
DEFAULT_PORTS = {"http": 80, "https": 443}

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass
class Access:
    """Rules of one server.

    Attributes:
        hosts: host names that requests may use, beside loopback addresses; None: any.
        origins: origins other than the server's own whose pages may connect, see :func:`parse_origin`.
        tokens: one of them must be given by whoever uses the model; empty: anybody may.
        proxies: networks of proxies whose ``X-Forwarded-For`` is believed.
    """

    hosts: Collection[str] | None = None
    origins: Collection[str] = ()
    tokens: Collection[str] = ()
    proxies: Collection[Network] = ()
    _wrong: dict[str, Meter] = field(default_factory=dict)
    _saw_proxy: bool = False

    def check_host(self, request: web.Request) -> None:
        """Refuse unknown host names: a foreign site whose name resolves to loopback must not reach a local server."""
        # aiohttp's own request.host looks a missing one up, which may take long. Browsers always send it.
        host = request.headers.get(hdrs.HOST)
        name = split_url(f"//{host}").hostname or ""
        if self.hosts is None or host is None or name in self.hosts or is_loopback(name):
            return
        raise web.HTTPForbidden(
            text=f"this server does not answer to the name {name}: if a proxy of yours passes it on, start the server "
            f"with --allow-origin https://{name or 'NAME'}\n"
        )

    def check_origin(self, request: web.Request) -> None:
        """Refuse pages of other sites; programs other than browsers send no origin and are allowed."""
        origin = request.headers.get(hdrs.ORIGIN)
        if origin is None or origin in self.origins or split_url(origin).netloc == request.headers.get(hdrs.HOST):
            return
        raise web.HTTPForbidden(
            text=f"pages of {origin} may not connect to this server: --allow-origin names sites that may\n"
        )

    def is_authorised(self, request: web.Request) -> bool:
        """Whether a request brings a token, or needs none.

        Raises:
            web.HTTPException: it brings a wrong one, or came after too many of those from its address.
        """
        if not self.tokens:
            return True
        given = request.headers.get(hdrs.AUTHORIZATION)
        if given is None:
            return False
        kind, _, token = given.partition(" ")
        self.check_attempts(request)
        if kind.lower() == "bearer" and self.accepts(token.strip(), self.address(request)):
            return True
        raise unauthorised("the access token is wrong")

    def check_attempts(self, request: web.Request) -> None:
        """Refuse an address that has tried too many wrong tokens."""
        meter = self._wrong.get(self.address(request))
        if meter is not None and not meter.take(0.5, time.monotonic()):
            raise web.HTTPTooManyRequests(
                text="too many wrong access tokens from this address: try again later\n", headers={"Retry-After": "10"}
            )

    def accepts(self, token: object, address: str) -> bool:
        """Whether ``token`` is one of those that open this server; failures are counted by address."""
        if not self.tokens:
            return True
        given = token.encode() if isinstance(token, str) else b""
        # All are compared, in constant time, so that the time says nothing about any of them.
        if sum(hmac.compare_digest(given, known.encode()) for known in self.tokens):
            return True
        now_s = time.monotonic()
        if len(self._wrong) >= MAX_METERS:
            self._wrong = {name: meter for name, meter in self._wrong.items() if not meter.is_full(now_s)}
        self._wrong.setdefault(address, Meter(WRONG_TOKENS_PER_S, WRONG_TOKENS_AT_ONCE, now_s)).take(1, now_s)
        return False

    def address(self, request: web.Request) -> str:
        """Address of the client, for limits; the network of an IPv6 address, since a client commands all of it."""
        peer = str(request.remote or "")
        forwarded = [part.strip() for part in request.headers.get("X-Forwarded-For", "").split(",") if part.strip()]
        if not self.is_proxy(peer):
            if forwarded and not self._saw_proxy:
                self._saw_proxy = True
                log.warning(
                    "requests come through a proxy at %s: --trust-proxy %s counts the limits by its clients", peer, peer
                )
            return client_network(peer)
        for candidate in reversed(forwarded):  # the last ones were written by the proxies that are trusted
            if not self.is_proxy(candidate):
                return client_network(candidate)
        return client_network(peer)

    def is_proxy(self, address: str) -> bool:
        """Whether ``address`` is that of a trusted proxy."""
        parsed = _parse_address(address)
        return parsed is not None and any(parsed in network for network in self.proxies)


def unauthorised(text: str) -> web.HTTPUnauthorized:
    """The answer to a request without the right token."""
    return web.HTTPUnauthorized(text=f"{text}\n", headers={"WWW-Authenticate": 'Bearer realm="EchoStream"'})


def parse_origin(text: str) -> str:
    """An origin as browsers send it, such as ``https://example.org``.

    Raises:
        ValueError: ``text`` is no origin; the message says what one looks like.
    """
    url = split_url(text)
    try:
        port, host = url.port, (url.hostname or "").encode("idna").decode()
    except ValueError:  # a port that is no number, a name that no host can have
        port, host = None, ""
    rest = url.path.rstrip("/") or url.query or url.fragment or url.username or url.password
    named = host and not any(character in host for character in "*%\\^`{}|<>\"' ")
    if url.scheme not in DEFAULT_PORTS or not named or rest or url.netloc.endswith(":"):
        hint = ": any site could use the server then, name those that may" if "*" in text else ""
        raise ValueError(f"--allow-origin takes a site such as https://example.org, got {text[:80]!r}{hint}")
    shown = f"[{host}]" if ":" in host else host
    return f"{url.scheme}://{shown}" + (f":{port}" if port not in (None, DEFAULT_PORTS[url.scheme]) else "")


def proxy_network(text: str) -> Network:
    """The network of ``--trust-proxy``, which may be a single address.

    Raises:
        ValueError: it is none.
    """
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        raise ValueError(f"--trust-proxy takes an address or network such as 10.0.0.0/8, got {text[:80]!r}") from error


def read_tokens(path: Path | None) -> tuple[str, ...]:
    """Access tokens of a file, one a line, and of the environment; none: the server is open.

    Raises:
        ValueError: the file can't be read or holds no token, or one is too short to be safe.
    """
    tokens = [os.environ[TOKEN_VARIABLE]] if os.environ.get(TOKEN_VARIABLE) else []
    if path is not None:
        try:
            lines = [line.strip() for line in read_text(path, MAX_TOKENS_BYTES).split("\n")]
        except (OSError, UnsafeFileError) as error:
            raise ValueError(f"cannot read the access tokens in {path}: {error}") from error
        found = [line for line in lines if line and not line.startswith("#")]
        if not found:
            raise ValueError(f"{path} holds no access token: write one a line, such as 'openssl rand -hex 32' makes")
        tokens += found
    for token in tokens:
        if len(token) < MIN_TOKEN_CHARACTERS or not token.isascii() or not token.isprintable() or " " in token:
            raise ValueError(
                f"an access token must have at least {MIN_TOKEN_CHARACTERS} printable ASCII characters and no space: "
                "'openssl rand -hex 32' makes one"
            )
    return tuple(tokens)


def split_url(url: str) -> SplitResult:
    """The parts of a URL from a client; all are empty if it is not valid."""
    try:
        return urlsplit(url)
    except ValueError:  # for example an unclosed bracket
        return urlsplit("")


def is_loopback(host: str) -> bool:
    """Whether ``host`` can be reached from this machine only."""
    if host == "localhost":
        return True
    parsed = _parse_address(host)
    return parsed is not None and parsed.is_loopback


def client_network(address: str) -> str:
    """What limits are counted by: an IPv4 address, or the network of an IPv6 address."""
    parsed = _parse_address(address)
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.is_loopback:
            return str(parsed)
        return str(ipaddress.ip_network((parsed, IPV6_CLIENT_BITS), strict=False))
    return str(parsed) if parsed is not None else address


def _parse_address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        parsed = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return mapped or parsed
