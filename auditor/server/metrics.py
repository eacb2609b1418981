"""What Prometheus is told."""

from __future__ import annotations

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)

from auditor.models.host import Host
from auditor.models.row import Row
from auditor.models.weights import Weights
from auditor.models.worker import Line
from auditor.server.library import Library

SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """The figures of one server, in a registry of their own."""

    def __init__(self, library: Library) -> None:
        self._library, self.registry = library, CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        registry = self.registry
        self.requests = Counter("auditor_requests", "Requests answered", ["route", "status"], registry=registry)
        self.latency = Histogram(
            "auditor_request_seconds", "From request to end of answer", ["route"], buckets=SECONDS, registry=registry
        )
        self.first = Histogram(
            "auditor_first_token_seconds", "From request to first token", buckets=SECONDS, registry=registry
        )
        self.batch = Histogram("auditor_batch_rows", "Rows decoded in a step", buckets=ROWS, registry=registry)
        self.tokens = Counter("auditor_generated_tokens", "Tokens generated", registry=registry)
        self.prompt_tokens = Counter("auditor_prompt_tokens", "Tokens of prompts that were asked", registry=registry)
        self.refused = Counter("auditor_refused", "Requests turned away", ["reason"], registry=registry)
        gauges = {
            "auditor_queue_rows": ("Rows that wait", lambda: sum(line.waiting for line in self._lines())),
            "auditor_live_rows": ("Rows that are decoded now", lambda: sum(len(x.batch.rows) for x in self._lines())),
            "auditor_pairs_loaded": ("Pairs in memory", lambda: len(library.loaded)),
            "auditor_adapter_bytes": ("Memory of all adapters", lambda: sum(h.bank.nbytes for h, _ in self._hosts())),
            "auditor_cache_bytes": ("Memory of keys and values", lambda: sum(x.batch.nbytes for x in self._lines())),
        }
        for name, (about, read) in gauges.items():
            Gauge(name, about, registry=registry).set_function(read)

    def _hosts(self) -> list[tuple[Host, Weights]]:
        return list(self._library.hosts.values())

    def _lines(self) -> list[Line]:
        return list(self._library.worker.lines)

    def stepped(self, rows: int) -> None:
        """A step was made; called by the worker."""
        self.batch.observe(rows)
        self.tokens.inc(rows)

    def asked(self, rows: list[Row]) -> None:
        """Rows were put into the queue."""
        self.prompt_tokens.inc(sum(len(row.prompt) for row in rows))

    def answered(self, route: str, status: int, seconds: float) -> None:
        self.requests.labels(route, str(status)).inc()
        self.latency.labels(route).observe(seconds)

    def page(self) -> bytes:
        return generate_latest(self.registry)
