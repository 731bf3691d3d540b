"""Files over HTTP: ``POST /v1/audio/translations``, multipart as the clients of other speech services send it.

A file is a stream beside the live ones. It takes one of the places, shares their steps, and gets its next audio when
the last has been translated, so it holds nobody up for longer than another speaker would.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from aiohttp import BodyPartReader, web
from aiohttp.http_exceptions import HttpProcessingError

from echostream.audio.errors import AudioError
from echostream.audio.input import AudioStream, open_audio
from echostream.serve.batcher import Step, Stream
from echostream.serve.file_answers import (
    CONTENT_TYPES,
    EVENTS,
    FORMATS,
    JSON,
    STREAMED,
    TEXT,
    Translation,
    delta,
    ending,
    error_body,
    event,
)
from echostream.serve.protocol import SessionError
from echostream.streaming import OutputWord, StepOutput

if TYPE_CHECKING:
    from echostream.serve.app import Server

BLOCK_S = 1.0  # decoded at a time
AHEAD_S = 2.0  # decoded audio that may wait for the model
MAX_FIELD_BYTES = 4_096
FIELDS = ("file", "model", "response_format", "stream", "language", "prompt", "temperature")
TRUTHS = {"true": True, "1": True, "false": False, "0": False}


class FileError(Exception):
    """A request that can't be answered: status, message, and headers of the answer."""

    def __init__(self, status: int, message: str, **headers: str) -> None:
        super().__init__(message)
        self.status, self.message, self.headers = status, message, headers


@dataclass
class Wishes:
    """The fields of a request.

    Attributes:
        name: of the file, for messages.
        kind: one of :data:`FORMATS`.
        streams: the answer comes while the file is being translated.
    """

    name: str = "the file"
    kind: str = JSON
    streams: bool = False
    others: dict[str, str] = field(default_factory=dict)


async def translate_file(server: Server, request: web.Request) -> web.StreamResponse:
    """Answer a request."""
    job = FileJob(server)
    code = 500
    try:
        try:
            server.take_place(job, server.access.address(request))
        except SessionError as error:
            raise FileError(503, error.message, **{"Retry-After": "5"}) from error
        # A name in the file system, since libsndfile's decoders read nothing else as well.
        with tempfile.NamedTemporaryFile(prefix="echostream-") as upload:
            wishes = await receive(server, request, upload)
            response = await job.answer(request, wishes, Path(upload.name))
        code = response.status
        return response
    except FileError as error:
        code = error.status
        response = _error_response(error.status, error.message, error.headers)
        if request.can_read_body:
            response.force_close()  # the rest of the body is not waited for
        return response
    finally:
        job.close()
        server.leave(job, code)


def refusal(error: web.HTTPException) -> web.Response:
    """An answer of the server in the shape that clients of this interface expect."""
    kept = {name: error.headers[name] for name in ("WWW-Authenticate", "Retry-After") if name in error.headers}
    response = _error_response(error.status, (error.text or error.reason).strip(), kept)
    response.force_close()  # the file is not waited for
    return response


def _error_response(status: int, message: str, headers: Mapping[str, str]) -> web.Response:
    body = error_body(message)
    return web.Response(text=body, status=status, content_type="application/json", headers=headers)


async def receive(server: Server, request: web.Request, upload: IO[bytes]) -> Wishes:
    """Read the fields of a request, and the file into ``upload``.

    Raises:
        FileError: it is not what it should be, or too large, or comes too slowly.
    """
    if request.content_type != "multipart/form-data":
        raise FileError(415, "the request must be multipart/form-data with a field file")
    wishes, given = Wishes(), set[str]()
    try:
        async with asyncio.timeout(server.limits.max_idle_s):
            async for part in _parts(request):
                name = str(part.name)
                if name in given:  # as often as it likes, a client could fill the disk
                    raise FileError(400, f"the field {_printable(name)} is given twice")
                given.add(name)
                if name == "file":
                    wishes.name = _printable(part.filename or wishes.name)
                    await _receive_file(server, part, upload)
                else:
                    _take_field(wishes, name, await _field(part))
    except TimeoutError as error:
        raise FileError(408, f"the file did not come within {server.limits.max_idle_s:g} s") from error
    except (ValueError, ConnectionError, web.RequestPayloadError, HttpProcessingError) as error:
        raise FileError(400, "the body is no complete multipart/form-data") from error
    if "file" not in given:
        raise FileError(400, "the field file is missing")
    _check(server, wishes)
    return wishes


async def _parts(request: web.Request) -> AsyncIterator[BodyPartReader]:
    reader = await request.multipart()
    while (part := await reader.next()) is not None:
        if not isinstance(part, BodyPartReader):
            raise FileError(400, "a multipart inside a multipart is not understood")
        yield part


async def _receive_file(server: Server, part: BodyPartReader, upload: IO[bytes]) -> None:
    most = server.limits.max_file_mb
    size = 0
    while chunk := await asyncio.wait_for(part.read_chunk(1 << 16), server.limits.max_stall_s):
        size += len(chunk)
        if size > most * 1_000_000:
            raise FileError(413, f"files may have {most} MB: compress it, or send it in parts")
        await asyncio.to_thread(upload.write, chunk)
    upload.flush()


async def _field(part: BodyPartReader) -> str:
    data = bytearray()
    while chunk := await part.read_chunk(MAX_FIELD_BYTES):
        data += chunk
        if len(data) > MAX_FIELD_BYTES:
            raise FileError(400, f"the field {_printable(str(part.name))} is too long")
    return data.decode(errors="replace")


def _take_field(wishes: Wishes, name: str, value: str) -> None:
    if name not in FIELDS:
        raise FileError(400, f"unknown field {_printable(name)!r}: {', '.join(FIELDS)} are known")
    if name == "response_format":
        if value not in FORMATS:
            raise FileError(400, f"response_format must be one of {', '.join(FORMATS)}, got {_printable(value)!r}")
        wishes.kind = value
    elif name == "stream":
        if value.lower() not in TRUTHS:
            raise FileError(400, f"stream must be true or false, got {_printable(value)!r}")
        wishes.streams = TRUTHS[value.lower()]
    else:
        wishes.others[name] = value


def _check(server: Server, wishes: Wishes) -> None:
    """Refuse what would have no effect, instead of leaving it out silently."""
    if wishes.streams and wishes.kind not in STREAMED:
        raise FileError(400, f"stream goes with {', '.join(STREAMED)}, not with {wishes.kind}")
    if wishes.others.get("prompt", "").strip():
        raise FileError(400, "this model takes no prompt: leave it out")
    if wishes.others.get("temperature", "0").strip().strip("0.") != "":
        raise FileError(400, "this model takes the likeliest words: leave temperature out, or at 0")
    source, language = server.languages[0], wishes.others.get("language", "")
    if language and source and language.partition("-")[0].lower() != source.partition("-")[0].lower():
        raise FileError(400, f"this model hears {source}, not {_printable(language)}")


class FileJob:
    """One file on its way through the model.

    Args:
        server: to which it belongs.
    """

    def __init__(self, server: Server) -> None:
        self.server = server
        settings = replace(server.defaults, task="s2tt")
        self.stream = Stream(server.translator, settings, self._on_step, self._on_failure)
        server.batcher.add(self.stream)
        self._outputs: asyncio.Queue[StepOutput] = asyncio.Queue()
        self._moved = asyncio.Event()
        self._error: FileError | None = None
        self._is_over = False

    def drain(self) -> None:
        """The server stops: a file that has been received is translated."""

    def stop(self) -> None:
        """The server stops now."""
        self._fail(FileError(503, "the server is stopping", **{"Retry-After": "5"}))

    def close(self) -> None:
        """Take the file out of the model's work."""
        self.server.batcher.remove(self.stream)

    def _on_step(self, step: Step) -> None:
        self._outputs.put_nowait(step.output)
        self.server.metrics.words.labels("source").inc(len(step.output.source_words))
        self.server.metrics.words.labels("target").inc(len(step.output.words))
        self._is_over = step.is_last
        self._moved.set()

    def _on_failure(self) -> None:
        self._fail(FileError(500, "the translation failed; the server's log says why"))

    def _fail(self, error: FileError) -> None:
        self._error = self._error or error
        self._moved.set()

    async def answer(self, request: web.Request, wishes: Wishes, path: Path) -> web.StreamResponse:
        """Translate a file and answer.

        Raises:
            FileError: it is no audio, or too long, or the server failed or stopped.
        """
        try:
            audio = await asyncio.to_thread(open_audio, path, BLOCK_S, wishes.name)
        except AudioError as error:
            raise FileError(400, str(error)) from error
        with audio:
            most = self.server.limits.max_length_s
            # A stream without a length says a number beyond all files; it is measured on the way.
            if audio.duration_s is not None and most < audio.duration_s < 1e9:
                raise FileError(413, f"{wishes.name} is longer than the {most:g} s that this server takes")
            if wishes.streams:
                return await self._stream_answer(request, wishes, audio)
            words: list[OutputWord] = []
            ends: list[int] = []
            async for output in self._translate(request, audio, wishes.name):
                ends += [len(words) + end for end in output.sentence_ends]
                words += output.words
            body = self._translation(words, ends).body(wishes.kind)
            return web.Response(text=body, content_type=CONTENT_TYPES[wishes.kind], charset="utf-8")

    def _translation(self, words: list[OutputWord], ends: list[int]) -> Translation:
        translator = self.stream.translator
        duration_s = self.stream.received_samples / translator.sample_rate
        return Translation(words, duration_s, translator.recomposer, self.server.languages, ends)

    async def _stream_answer(self, request: web.Request, wishes: Wishes, audio: AudioStream) -> web.StreamResponse:
        response = web.StreamResponse()
        response.content_type = CONTENT_TYPES[TEXT] if wishes.kind == TEXT else EVENTS
        response.charset = "utf-8"
        response.headers["X-Accel-Buffering"] = "no"  # for nginx, which would collect it
        await response.prepare(request)
        words: list[OutputWord] = []
        ends: list[int] = []
        try:
            async for output in self._translate(request, audio, wishes.name):
                # As in the whole text, nothing comes before the first word.
                text = output.text if words else output.text.lstrip()
                ends += [len(words) + end for end in output.sentence_ends]
                words += output.words
                if text:
                    await self._write(response, delta(text, wishes.kind))
            await self._write(response, ending(self._translation(words, ends), wishes.kind))
        except FileError as error:  # the status has been sent already
            text = (
                f"\n[{error.message}]\n" if wishes.kind == TEXT else event({"type": "error", "message": error.message})
            )
            await self._write(response, text)
        with contextlib.suppress(ConnectionError):
            await response.write_eof()
        return response

    async def _write(self, response: web.StreamResponse, text: str) -> None:
        try:
            await asyncio.wait_for(response.write(text.encode()), self.server.limits.max_stall_s)
        except TimeoutError as error:
            raise FileError(408, "the answer was not taken") from error

    async def _translate(self, request: web.Request, audio: AudioStream, name: str) -> AsyncIterator[StepOutput]:
        """Push the audio as the model takes it; gives what comes out.

        Raises:
            FileError: as :meth:`answer`.
        """
        is_read = False
        while not self._is_over or not self._outputs.empty():
            if self._error is not None:
                raise self._error
            if request.transport is None or request.transport.is_closing():
                raise FileError(400, "the client has gone")
            while not is_read and self.stream.waiting_s < AHEAD_S:
                is_read = not await self._push_block(audio, name)
            while not self._outputs.empty():
                yield self._outputs.get_nowait()
            if not self._is_over:
                with contextlib.suppress(TimeoutError):  # now and then, look whether the client is still there
                    await asyncio.wait_for(self._moved.wait(), 1.0)
                self._moved.clear()

    async def _push_block(self, audio: AudioStream, name: str) -> bool:
        """Decode and push a block; False: that was the end."""
        try:
            block: Any = await asyncio.to_thread(next, audio, None)
        except AudioError as error:
            raise FileError(400, str(error)) from error
        if block is None:
            self.stream.end()
        else:
            self.stream.push(block)
            self.server.metrics.audio_s.labels("in").inc(len(block) / self.stream.translator.sample_rate)
            if self.stream.received_samples > self.server.limits.max_length_s * self.stream.translator.sample_rate:
                most = self.server.limits.max_length_s
                raise FileError(413, f"{name} is longer than the {most:g} s that this server takes")
        self.server.batcher.notify(self.stream)
        return block is not None


def _printable(text: str) -> str:
    """Text of a client as it may stand in a message."""
    return "".join(character if character.isprintable() else "?" for character in text[:80])
