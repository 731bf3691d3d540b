"""Session of one client: receives audio, enforces the limits, and sends the translation."""

from __future__ import annotations

import asyncio
import time
from typing import Any
from uuid import uuid4

import soxr
from aiohttp import WSMsgType, web

from echostream.audio.output import to_s16le
from echostream.serve.batcher import Batcher, Step, Stream
from echostream.serve.limits import Limits, Meter
from echostream.serve.metrics import Metrics
from echostream.serve.outbox import Outbox
from echostream.serve.protocol import (
    SAMPLE_FORMAT,
    VERSION,
    CloseCode,
    SessionError,
    Settings,
    output_message,
    parse,
    parse_start,
    pcm_to_samples,
)
from echostream.streaming import StreamingTranslator
from echostream.streaming.recomposer import NO_SAMPLES

BURST_S = 1.0  # the messages of this time, at the maximum rate, may come at once
NO_CLOSE_FRAME = 1006  # RFC 6455, section 7.4.1: the connection ended without a close frame


class Session:
    """Serves one client from its start message to the close frame.

    Args:
        socket: socket of the client, already prepared.
        transport: transport of the socket.
        translator, batcher, metrics: those of the server.
        limits: limits of every session.
        defaults: values for settings that the client does not give.
    """

    def __init__(
        self,
        socket: web.WebSocketResponse,
        transport: asyncio.Transport | None,
        translator: StreamingTranslator,
        batcher: Batcher,
        metrics: Metrics,
        limits: Limits,
        defaults: Settings,
    ) -> None:
        self.id = uuid4().hex[:8]
        self.socket, self._transport = socket, transport
        self.translator, self.batcher = translator, batcher
        self.metrics, self.limits, self.defaults = metrics, limits, defaults
        self.outbox = Outbox(socket, 1000 * limits.max_unsent_kb, limits.max_stall_s)
        self.end_code, self.end_message = CloseCode.DONE, "everything has been translated"
        self._stream: Stream | None = None
        self._resampler: soxr.ResampleStream | None = None
        self._sample_rate = 0
        self._source_samples = self._spoken_samples = 0
        now = time.monotonic()
        self._message_meter = Meter(limits.max_messages_per_s, limits.max_messages_per_s * BURST_S, now)
        self._audio_meter = Meter(limits.max_speed, limits.max_buffer_s, now)

    async def run(self) -> int:
        """Serve the client; returns the close code."""
        sending = asyncio.create_task(self.outbox.run())
        # A client that reads nothing would not read a close frame either, so its connection is aborted.
        sending.add_done_callback(lambda task: self._abort() if not task.cancelled() and task.exception() else None)
        try:
            await self._receive()
            if self.outbox.is_closing:
                await asyncio.wait([sending], timeout=self.limits.max_stall_s)
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
            if self._stream is not None:
                self.batcher.remove(self._stream)
            if not self.socket.closed:
                self._abort()
        if self.outbox.sent_code is not None:
            return self.outbox.sent_code
        if sending.done() and not sending.cancelled() and isinstance(sending.exception(), TimeoutError):
            return CloseCode.SLOW_CLIENT
        return self.socket.close_code or NO_CLOSE_FRAME

    def stop(self) -> None:
        """End the session because the server is stopping."""
        self._end_with_error(SessionError(CloseCode.GOING_AWAY, "the server is stopping"))

    async def _receive(self) -> None:
        while True:
            input_ended = self.outbox.is_closing or (self._stream is not None and self._stream.ended)
            try:
                message = await self.socket.receive(timeout=None if input_ended else self.limits.max_idle_s)
            except TimeoutError:
                self._on_idle()
                continue
            if message.type not in (WSMsgType.TEXT, WSMsgType.BINARY):
                return
            if self.outbox.is_closing:
                continue  # sent before the client could know that the session has ended
            try:
                self._handle_message(message.data)
            except SessionError as error:
                self._end_with_error(error)

    def _handle_message(self, data: str | bytes) -> None:
        if len(data) > 1000 * self.limits.max_message_kb:
            raise SessionError(
                CloseCode.TOO_BIG,
                f"messages may have {self.limits.max_message_kb} kB: send the audio in smaller pieces",
            )
        if not self._message_meter.take(1, time.monotonic()):
            raise SessionError(
                CloseCode.TOO_FAST,
                f"at most {self.limits.max_messages_per_s:g} messages a second: send the audio in larger pieces",
            )
        if isinstance(data, bytes):
            self._handle_audio(data)
            return
        message = parse(data)
        if message["type"] == "start":
            self._start(message)
        elif message["type"] == "end":
            self._end()
        else:
            raise SessionError(CloseCode.BAD_MESSAGE, 'the type of a message must be "start" or "end"')

    def _start(self, message: dict[str, Any]) -> None:
        if self._stream is not None:
            raise SessionError(CloseCode.BAD_MESSAGE, "the session was started already: open another connection")
        start = parse_start(message, self.defaults)
        try:
            self._stream = Stream(self.translator, start.settings, self._on_step, self._on_failure)
        except ValueError as error:
            raise SessionError(CloseCode.BAD_MESSAGE, str(error)) from error
        self._sample_rate = start.sample_rate
        if start.sample_rate != self.translator.sample_rate:
            self._resampler = soxr.ResampleStream(start.sample_rate, self.translator.sample_rate, 1, dtype="float32")
        self.batcher.add(self._stream)
        self.outbox.put(
            {
                "type": "ready",
                "version": VERSION,
                "session": self.id,
                **start.settings.of_client(),
                "format": SAMPLE_FORMAT,
                "output_sample_rate": self.translator.output_sample_rate,
                "limits": vars(self.limits),
            }
        )

    def _require_stream(self) -> Stream:
        if self._stream is None:
            raise SessionError(CloseCode.BAD_MESSAGE, 'the first message must be a "start"')
        return self._stream

    def _handle_audio(self, data: bytes) -> None:
        stream = self._require_stream()
        if stream.ended:
            if self.end_code != CloseCode.DONE:
                return  # sent before the client could know that its source was ended by the server
            raise SessionError(CloseCode.BAD_MESSAGE, "audio after the end: open another connection")
        samples = pcm_to_samples(data)
        if not self._audio_meter.take(len(samples) / self._sample_rate, time.monotonic()):
            raise SessionError(
                CloseCode.TOO_FAST,
                f"audio may come {self.limits.max_speed:g} times as fast as it is spoken and "
                f"{self.limits.max_buffer_s:g} s ahead of that: send it more slowly",
            )
        max_samples = round(self.limits.max_length_s * self._sample_rate) - self._source_samples
        samples = samples[:max_samples]
        self._source_samples += len(samples)
        self.metrics.audio_s.labels("in").inc(len(samples) / self._sample_rate)
        stream.push(samples if self._resampler is None else self._resampler.resample_chunk(samples))
        if stream.waiting_s > self.limits.max_buffer_s:
            raise SessionError(
                CloseCode.BUSY,
                f"{stream.waiting_s:.0f} s of audio wait for the model: the server is too busy, or the audio comes "
                "faster than it can be translated",
            )
        if len(samples) == max_samples:
            self._end_source(CloseCode.TOO_LONG, f"a session ends after {self.limits.max_length_s:g} s of audio")
        else:
            self.batcher.notify(stream)

    def _end(self) -> None:
        """End the source; the resampler's remaining samples are pushed first."""
        stream = self._require_stream()
        if not stream.ended:
            if self._resampler is not None:
                stream.push(self._resampler.resample_chunk(NO_SAMPLES, last=True))
            stream.end()
            self.batcher.notify(stream)

    def _end_source(self, code: CloseCode, message: str) -> None:
        """End the source in place of the client; the audio received so far is still translated."""
        self.end_code, self.end_message = code, message
        self._end()

    def _on_idle(self) -> None:
        message = f"nothing came from the client for {self.limits.max_idle_s:g} s"
        if self._stream is None:
            self._end_with_error(SessionError(CloseCode.IDLE, message))
        else:
            self._end_source(CloseCode.IDLE, message)

    def _on_step(self, step: Step) -> None:
        """Send the output of a step."""
        output = step.output
        fits = self.outbox.put(output_message(output, step.source_s, step.reaction_s, step.rtf))
        if output.samples.size:
            fits = self.outbox.put(to_s16le(output.samples))
        self._spoken_samples += output.samples.size
        self.metrics.audio_s.labels("out").inc(output.samples.size / self.translator.output_sample_rate)
        self.metrics.words.labels("source").inc(len(output.source_words))
        self.metrics.words.labels("target").inc(len(output.words))
        if not fits:
            text = f"more than {self.limits.max_unsent_kb} kB of output were not taken: read faster"
            self._end_with_error(SessionError(CloseCode.SLOW_CLIENT, text))
        elif step.is_last:
            done = {
                "type": "done",
                "code": int(self.end_code),
                "message": self.end_message,
                "source_s": round(step.source_s, 3),
                "speech_s": round(self._spoken_samples / self.translator.output_sample_rate, 3),
                "rtf": round(step.rtf, 4),
            }
            self.outbox.close(self.end_code, self.end_message, done)

    def _on_failure(self) -> None:
        self._end_with_error(
            SessionError(CloseCode.INTERNAL_ERROR, "the translation failed; the server's log says why")
        )

    def _end_with_error(self, error: SessionError) -> None:
        """End the session and tell the client why, after sending the output that is still queued."""
        if self._stream is not None:
            self.batcher.remove(self._stream)
        message = {"type": "error", "code": int(error.code), "message": error.message}
        self.outbox.close(error.code, error.message, message)

    def _abort(self) -> None:
        """Abort the connection without a close frame."""
        if self._transport is not None:
            self._transport.abort()
