"""Prometheus metrics of one server process."""

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest


class Metrics:
    """Metrics in a registry of their own, so that several servers in one process (tests) count separately."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.connections = self._gauge("connections", "WebSockets open at this process")
        self.rooms = self._gauge("rooms", "Rooms with participants, over all processes")
        self.participants = self._gauge("participants", "Participants, over all processes")
        self.store_up = self._gauge("store_up", "1 while the shared state answers, else 0")
        self.joins = self._counter("joins", "Joins by outcome: joined, resumed, or the error's code", "outcome")
        self.messages = self._counter("messages", "Valid messages, by type", "type")
        self.dropped = self._counter("dropped", "Messages dropped, by the error's code", "reason")
        self.relayed_bytes = self._counter("relayed_bytes", "Bytes of signals relayed")
        self.closed = self._counter("closed", "Connections closed, by reason", "reason")
        self.lost = self._counter("lost", "Participants removed because their lease expired")
        self.refused = self._counter("refused_requests", "Connections and requests refused, by reason", "reason")
        self.store_errors = self._counter("store_errors", "Times the shared state could not be reached")

    def page(self) -> bytes:
        """Return the metrics in the text format that Prometheus scrapes."""
        return generate_latest(self.registry)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(f"iwcodec_{name}", text, registry=self.registry)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"iwcodec_{name}", text, labels, registry=self.registry)
