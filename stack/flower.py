"""What Flower saw: the events it counted, by worker."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from stack.probes import get


def seen(url: str) -> dict[str, int]:
    """Finished jobs by worker's name, as Flower counted them; empty if it does not answer."""
    return count(get(f"{url}/metrics") or "")


def count(metrics: str) -> dict[str, int]:
    """The successes of ``flower_events_total`` by worker."""
    finished: dict[str, int] = {}
    for family in text_string_to_metric_families(metrics):
        for sample in family.samples:
            if sample.name == "flower_events_total" and sample.labels["type"] == "task-succeeded":
                worker = sample.labels["worker"]
                finished[worker] = finished.get(worker, 0) + int(sample.value)
    return finished
