"""Session of one client: what is heard and said, whichever connection carries it, and whichever worker."""

from __future__ import annotations

import asyncio
import copy
import json
import logging
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np

from echostream.audio.output import to_s16le
from echostream.serve.batcher import Step, Stream
from echostream.serve.journal import Entry, Journal
from echostream.serve.limits import Meter
from echostream.serve.protocol import (
    SAMPLE_FORMAT,
    VERSION,
    CloseCode,
    SessionError,
    Start,
    output_message,
    parse_start,
    pcm_to_samples,
)
from echostream.serve.resampler import Resampler
from echostream.serve.session_store import LostSessionError
from echostream.streaming.recomposer import NO_SAMPLES

if TYPE_CHECKING:
    from echostream.serve.app import Server
    from echostream.serve.connection import Connection

log = logging.getLogger(__name__)

SAVE_S = 2.0  # at most so much audio has to be heard again after a worker was killed
TOO_LATE = "this session can't be resumed (any more): start another one"


class Session:
    """What one client has started; it outlives its connection if the client has asked for that.

    Args:
        server: to which it belongs.
        start: what the client has asked for.
        resume_token: of a session that is restored; None: it is new.

    Raises:
        SessionError: settings that can't be used.
    """

    def __init__(self, server: Server, start: Start, resume_token: str | None = None) -> None:
        self.server, self.limits, self.start = server, server.limits, start
        self.id = uuid4().hex[:8]
        self.resume_token = resume_token or (uuid4().hex if start.resumable else None)
        try:
            self.stream = Stream(server.translator, start.settings, self._on_step, self._on_failure)
        except ValueError as error:
            raise SessionError(CloseCode.BAD_MESSAGE, str(error)) from error
        self.resampler = Resampler(start.sample_rate, server.translator.sample_rate)
        self.connection: Connection | None = None
        self.address = ""  # of the client, as far as one has connected to this process
        self.journal = Journal(1000 * self.limits.max_unsent_kb)
        self.received_samples = self.saved_samples = self.seq = 0
        self.end_code, self.end_message = CloseCode.DONE, "everything has been translated"
        self.final: tuple[CloseCode, str, dict[str, Any]] | None = None
        self.last_audio_s = time.monotonic()
        self._spoken_samples = 0
        self._client_seq = 0  # outputs that the client of a restored session has already got
        self._audio_meter = Meter(self.limits.max_speed, self.limits.max_buffer_s, time.monotonic())
        self._suspending = self._save_due = self._failed_to_save = False
        self.was_saved = resume_token is not None
        self._saving: asyncio.Task[None] | None = None
        self._saved_s = 0.0
        self._away_timer: asyncio.TimerHandle | None = None
        server.batcher.add(self.stream)

    @property
    def is_saved(self) -> bool:
        """Whether other workers could go on with it."""
        return self.resume_token is not None and self.server.store is not None

    @property
    def acknowledged_samples(self) -> int:
        """Samples of the source that the client need not keep: they will not be asked for again."""
        return self.saved_samples if self.is_saved else self.received_samples

    def describe(self, kind: str) -> dict[str, Any]:
        """The message that opens a connection, ``ready`` or ``resumed``."""
        message = {
            "type": kind,
            "version": VERSION,
            "session": self.id,
            **self.start.settings.of_client(),
            "format": SAMPLE_FORMAT,
            "output_sample_rate": self.server.translator.output_sample_rate,
            "limits": vars(self.limits),
        }
        if self.resume_token is not None:
            message |= {"resume_token": self.resume_token, "received_samples": self.received_samples}
        return message

    # --- connections ---------------------------------------------------------------------------------------------

    def attach(self, connection: Connection, seq: int | None = None) -> None:
        """Go on over this connection.

        Args:
            connection: the only one from now on.
            seq: number of the last output that the client has; None: the session is new.

        Raises:
            SessionError: output that the client lacks is no longer there.
        """
        entries = self.journal.since(seq or 0, self.seq)
        if entries is None:
            raise SessionError(CloseCode.GONE, TOO_LATE)
        if self.connection is not None:
            self.connection.session = None
            self.connection.end(SessionError(CloseCode.TAKEN_OVER, "the session goes on over another connection"))
        if self._away_timer is not None and self.final is None:
            self._away_timer.cancel()
        self.connection, connection.session = connection, self
        self.address = connection.address
        self.last_audio_s = time.monotonic()
        self._client_seq = seq or 0
        connection.outbox.put(self.describe("ready" if seq is None else "resumed"))
        for entry in entries:
            self._send(entry)
        if self.final is not None:
            connection.outbox.close(*self.final)
        elif self.is_saved:
            self.save_soon()

    def detach(self) -> None:
        """The connection was lost: wait for another one, if the client has asked for that."""
        self.connection = None
        if self.resume_token is None or self.server.draining:
            if not self._suspending:
                self.discard()
            return
        self.wait_for_client()
        self.server.keep_away(self)
        if self.is_saved and self.final is None:
            self.save_soon()

    def close(self) -> None:
        """Do nothing more for the session in this process."""
        self.server.batcher.remove(self.stream)
        if self._away_timer is not None:
            self._away_timer.cancel()

    def discard(self) -> None:
        """Forget the session."""
        self.close()
        self.server.forget(self)

    def wait_for_client(self) -> None:
        if self._away_timer is None or self._away_timer.cancelled():
            self._away_timer = asyncio.get_running_loop().call_later(self.limits.max_away_s, self.discard)

    # --- audio ---------------------------------------------------------------------------------------------------

    def hear(self, data: bytes) -> None:
        """Take in a message of audio.

        Raises:
            SessionError: it breaks a limit or the protocol.
        """
        if self._suspending:
            return  # not acknowledged: the worker that goes on will ask for it
        if self.stream.ended:
            if self.end_code != CloseCode.DONE:
                return  # sent before the client could know that its source was ended by the server
            raise SessionError(CloseCode.BAD_MESSAGE, "audio after the end: open another connection")
        samples = pcm_to_samples(data)
        if samples.size:
            self.last_audio_s = time.monotonic()
        if not self._audio_meter.take(len(samples) / self.start.sample_rate, time.monotonic()):
            raise SessionError(
                CloseCode.TOO_FAST,
                f"audio may come {self.limits.max_speed:g} times as fast as it is spoken and "
                f"{self.limits.max_buffer_s:g} s ahead of that: send it more slowly",
            )
        max_samples = round(self.limits.max_length_s * self.start.sample_rate) - self.received_samples
        samples = samples[:max_samples]
        self.received_samples += len(samples)
        self.server.metrics.audio_s.labels("in").inc(len(samples) / self.start.sample_rate)
        self.stream.push(self.resampler.push(samples))
        if self.stream.waiting_s > self.limits.max_buffer_s:
            raise SessionError(
                CloseCode.BUSY,
                f"{self.stream.waiting_s:.0f} s of audio wait for the model: the server is too busy, or the audio "
                "comes faster than it can be translated",
            )
        if len(samples) == max_samples:
            self.end_source(CloseCode.TOO_LONG, f"a session ends after {self.limits.max_length_s:g} s of audio")
        else:
            self.server.batcher.notify(self.stream)

    def end(self) -> None:
        """End the source; the resampler's remaining samples are pushed first."""
        if not self.stream.ended:
            self.stream.push(self.resampler.push(NO_SAMPLES, is_last=True))
            self.stream.end()
            self.server.batcher.notify(self.stream)

    def end_source(self, code: CloseCode, message: str) -> None:
        """End the source in place of the client; the audio received so far is still translated."""
        if not self.stream.ended:
            self.end_code, self.end_message = code, message
            self.end()

    # --- output --------------------------------------------------------------------------------------------------

    def _on_step(self, step: Step) -> None:
        """Give out the output of a step."""
        output, metrics = step.output, self.server.metrics
        self.seq += 1
        message = output_message(output, step.source_s, step.reaction_s, step.rtf, self.seq)
        if self.resume_token is not None:
            message["acknowledged_samples"] = self.acknowledged_samples
        entry = Entry(self.seq, message, to_s16le(output.samples))
        self._spoken_samples += output.samples.size
        metrics.audio_s.labels("out").inc(output.samples.size / self.server.translator.output_sample_rate)
        metrics.words.labels("source").inc(len(output.source_words))
        metrics.words.labels("target").inc(len(output.words))
        if self.resume_token is not None:
            self.journal.add(entry)
        if not self._send(entry):
            text = f"more than {self.limits.max_unsent_kb} kB of output were not taken: read faster"
            self.fail(SessionError(CloseCode.SLOW_CLIENT, text))
        elif step.is_last:
            self._finish(
                self.end_code,
                self.end_message,
                {
                    "type": "done",
                    "code": int(self.end_code),
                    "message": self.end_message,
                    "source_s": round(step.source_s, 3),
                    "speech_s": round(self._spoken_samples / self.server.translator.output_sample_rate, 3),
                    "rtf": round(step.rtf, 4),
                },
            )
        elif self._suspending:
            self._suspend_when_heard()
        elif self.is_saved and (self._save_due or time.monotonic() - self._saved_s > SAVE_S):
            self.save_soon()

    def _send(self, entry: Entry) -> bool:
        """Send an output, if the client is there and lacks it; False: it takes too little."""
        if self.connection is None or entry.seq <= self._client_seq:
            return True
        outbox = self.connection.outbox
        if outbox.is_full:  # before this output, which may be long: no client can take it sooner than it comes
            return False
        outbox.put(entry.message)
        if entry.speech:
            outbox.put(entry.speech)
        return True

    def _on_failure(self) -> None:
        self.fail(SessionError(CloseCode.INTERNAL_ERROR, "the translation failed; the server's log says why"))

    def fail(self, error: SessionError) -> None:
        """End the session and tell the client why, after sending the output that is still queued."""
        self.server.batcher.remove(self.stream)
        message = {"type": "error", "code": int(error.code), "message": error.message}
        self._finish(error.code, error.message, message)

    def _finish(self, code: CloseCode, reason: str, message: dict[str, Any]) -> None:
        if self.final is not None:
            return
        self.final = code, reason, message
        if self.connection is not None:
            self.connection.outbox.close(code, reason, message)
        if self.resume_token is None:
            self.discard()
        else:  # in case that the client does not get it, and asks again
            self.wait_for_client()
            self.server.delete_saved(self)

    # --- other processes -----------------------------------------------------------------------------------------

    def drain(self) -> None:
        """The server stops: translate what was heard, and be saved if another worker can go on, or else end."""
        if self.final is not None:
            return
        if self.is_saved:
            self._suspending = True
            self._suspend_when_heard()
        else:
            text = "the server is stopping; what it had heard has been translated"
            self.end_source(CloseCode.GOING_AWAY, text)

    def _suspend_when_heard(self) -> None:
        if not self.stream.is_ready and not self.server.batcher.is_stepping(self.stream):
            self.save_soon()

    def save_soon(self) -> None:
        """Save the session as soon as no step and no other saving is under way."""
        self._save_due = self._saving is not None or self.server.batcher.is_stepping(self.stream)
        if not self._save_due:
            is_last = self._suspending and not self.stream.is_ready
            # The content is put together now: when the task runs, the next step may have begun.
            saving = self._save(self._content(), self.received_samples, is_last)
            self._saving = asyncio.get_running_loop().create_task(saving)

    async def _save(self, content: dict[str, Any], received: int, is_last: bool) -> None:
        assert self.resume_token is not None and self.server.store is not None  # is_saved
        self._saved_s = time.monotonic()
        try:
            await asyncio.to_thread(self.server.store.save, self.resume_token, content, not self.was_saved)
            self.was_saved, self.saved_samples, self._failed_to_save = True, received, False
        except LostSessionError:
            self.let_go()
            return
        except (OSError, TypeError) as error:
            if not self._failed_to_save:  # said once, not every two seconds
                self._failed_to_save = True
                log.warning("session %s could not be saved: %s", self.id, error)
            if is_last:
                self.end_source(CloseCode.GOING_AWAY, "the server is stopping, and the session could not be saved")
            return
        finally:
            self._saving = None
        if is_last:
            self._close_saved()
        elif self._save_due or self._suspending:
            self._save_due = False
            if not self._suspending or not self.stream.is_ready:
                self.save_soon()

    def let_go(self) -> None:
        """Another worker has taken the session over."""
        self.was_saved = False  # the file is that worker's
        self.fail(SessionError(CloseCode.TAKEN_OVER, "the session goes on over another connection"))
        self.discard()

    def _close_saved(self) -> None:
        """The session goes on elsewhere: tell the client."""
        text = "the server is stopping; the session can be resumed"
        message = {"type": "suspended", "code": int(CloseCode.RESTARTING), "message": text}
        message |= {"acknowledged_samples": self.saved_samples}
        self.final = CloseCode.RESTARTING, text, message
        if self.connection is not None:
            self.connection.outbox.close(*self.final)
        self.discard()

    def _content(self) -> dict[str, Any]:
        """Everything that another process needs to go on."""
        stream = self.stream
        return {
            "id": self.id,
            "start": {"type": "start", "sample_rate": self.start.sample_rate, **self.start.settings.of_client()},
            "state": copy.copy(stream.state),  # a step replaces the fields of a state, and changes none of them
            "counts": [self.received_samples, self.seq, self._spoken_samples, stream.used_samples],
            "resampler": [self.resampler.heard_samples, self.resampler.given_samples],
            "history": self.resampler.history,
            "waiting": stream.waiting,
            "compute_s": stream.compute_s,
            "end": [stream.ended, int(self.end_code), self.end_message],
            "journal": [[entry.seq, json.dumps(entry.message), entry.speech] for entry in self.journal.entries],
        }


def restored(server: Server, token: str, content: dict[str, Any]) -> Session:
    """The session that was saved as ``content``.

    Raises:
        SessionError: its settings can't be used here.
        ValueError, KeyError, TypeError: it is damaged.
    """
    start = parse_start(content["start"], server.defaults)
    session = Session(server, replace(start, resumable=True), token)
    try:
        session.id = str(content["id"])
        received, seq, spoken, used = map(int, content["counts"])
        session.received_samples = session.saved_samples = received
        session.seq, session._spoken_samples = seq, spoken
        heard, given = map(int, content["resampler"])
        session.resampler = Resampler(
            start.sample_rate, server.translator.sample_rate, np.asarray(content["history"]), heard, given
        )
        ended, code, message = content["end"]
        session.end_code, session.end_message = CloseCode(code), str(message)
        for number, text, speech in content["journal"]:
            session.journal.add(Entry(number, json.loads(text), speech))
        session.stream.go_on(content["state"], used, content["waiting"], bool(ended), float(content["compute_s"]))
        server.batcher.notify(session.stream)
    except Exception:
        session.discard()
        raise
    return session
