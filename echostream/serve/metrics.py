"""Figures of a server for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, PlatformCollector, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

CONTENT_TYPE = CONTENT_TYPE_LATEST
SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 2, 5, 10)


class Metrics:
    """Counters of one server, in a registry of its own so that several servers can live in a process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        registry = {"registry": self.registry}
        self.sessions = Gauge("echostream_sessions", "Sessions that are open", **registry)
        self.ended = Counter("echostream_sessions_ended", "Sessions that ended, by close code", ["code"], **registry)
        self.audio_s = Counter("echostream_audio_seconds", "Audio received and sent", ["direction"], **registry)
        self.words = Counter("echostream_words", "Words recognised and written", ["side"], **registry)
        self.step_s = Histogram("echostream_step_seconds", "A batched step", buckets=SECONDS, **registry)
        self.batch_size = Histogram(
            "echostream_batch_size", "Sessions in a step", buckets=(1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64), **registry
        )
        self.reaction_s = Histogram(
            "echostream_reaction_seconds",
            "From the arrival of the audio that completes a segment to its output",
            buckets=SECONDS,
            **registry,
        )
        self.waiting_s = Gauge("echostream_waiting_audio_seconds", "Audio that waits for the model", **registry)
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)

    def text(self) -> bytes:
        """All figures in Prometheus' text format."""
        return generate_latest(self.registry)
