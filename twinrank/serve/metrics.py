"""What a server tells Prometheus: requests by route and status, their times, queues, refusals, and how models were shared."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from fastapi import APIRouter, Response
from prometheus_client import CollectorRegistry, Counter, Histogram, PlatformCollector, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from twinrank.serve.state import State

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """The figures of one server, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self._requests = Counter(
            "twinrank_requests", "Requests that were answered.", ["method", "route", "status"], registry=self.registry
        )
        self._seconds = Histogram(
            "twinrank_request_seconds",
            "From a request's headers to the end of its answer.",
            ["route"],
            buckets=SECONDS,
            registry=self.registry,
        )

    def note(self, method: str, route: str, status: int, seconds: float) -> None:
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def page(self) -> bytes:
        return generate_latest(self.registry)


class StateCollector(Collector):
    """Reads the state when it is asked for: nothing is counted twice."""

    def __init__(self, state: State) -> None:
        self.state = state

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterable[Metric]:
        lanes = self.state.lanes
        inside = GaugeMetricFamily("twinrank_inside", "Requests at work or waiting.", labels=["lane"])
        waiting = GaugeMetricFamily("twinrank_waiting", "Requests that wait for a thread.", labels=["lane"])
        refused = CounterMetricFamily("twinrank_refused", "Requests refused because too many waited.", labels=["lane"])
        for name, lane in lanes.items():
            inside.add_metric([name], lane.inside)
            waiting.add_metric([name], lane.waiting)
            refused.add_metric([name], lane.refused)
        together = list(self.state.collection.assembly.loaded.together.items())
        calls = CounterMetricFamily("twinrank_model_calls", "Calls of a model.", labels=["model", "of"])
        served = CounterMetricFamily(
            "twinrank_model_parts", "What threads asked, served in these calls.", labels=["model", "of"]
        )
        for (fingerprint, what), asked in together:
            calls.add_metric([fingerprint[:16], what], asked.calls)
            served.add_metric([fingerprint[:16], what], asked.parts)
        documents = GaugeMetricFamily("twinrank_documents", "Documents in the collection.", len(self.state.collection))
        sequence = self.state.collection.store.sequence()
        changes = GaugeMetricFamily("twinrank_sequence", "The number of the collection's last change.", sequence)
        bodies = GaugeMetricFamily("twinrank_body_bytes", "Bytes of the bodies that are held.", self.state.bodies.held)
        return [inside, waiting, refused, calls, served, documents, changes, bodies]


def router(state: State) -> APIRouter:
    from twinrank.serve.state import reading_router

    routes = reading_router(None, tags=["health"])
    state.metrics.registry.register(StateCollector(state))

    @routes.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    def metrics() -> Response:
        """The server's figures in the text format of Prometheus."""
        return Response(state.metrics.page(), media_type=CONTENT_TYPE_LATEST)

    return routes
