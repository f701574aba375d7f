"""bench/tables.py - samples as Markdown tables, with ratios against haproxy in the same run."""
import statistics

from candidates import FLOOR
from scenarios import GROUPS, Scenario

YARDSTICK = "haproxy"
TRAFFIC = ("scenario", "balancer", "CPU us/request", "best", "ratio to haproxy", "best ratio",
           "over floor", "over plain", "requests/s", "ratio", "p50 ms", "p99 ms", "p99.9 ms", "CPU busy",
           "RSS MiB", "PSS MiB", "errors")
MEMORY = ("scenario", "balancer", "bytes/connection (PSS)", "ratio to haproxy",
          "bytes/connection (RSS)", "RSS MiB", "errors")


class Samples:
    """All samples of a run. Void ones count as errors and nowhere else."""

    def __init__(self, samples: list[dict]):
        self.samples = samples

    def values(self, scenario: str, candidate: str, key: str) -> list[float]:
        return [sample[key] for sample in self.samples
                if sample["scenario"] == scenario and sample["candidate"] == candidate
                and sample["errors"] == 0 and key in sample]

    def median(self, scenario: str, candidate: str, key: str) -> float | None:
        values = self.values(scenario, candidate, key)
        return statistics.median(values) if values else None

    def best(self, scenario: str, candidate: str, key: str) -> float | None:
        return min(self.values(scenario, candidate, key), default=None)

    def errors(self, scenario: str, candidate: str) -> int:
        return sum(sample["errors"] for sample in self.samples
                   if sample["scenario"] == scenario and sample["candidate"] == candidate)

    def candidates(self, scenario: str) -> list[str]:
        return list(dict.fromkeys(sample["candidate"] for sample in self.samples
                                  if sample["scenario"] == scenario))


def shown(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def ratio(value: float | None, base: float | None) -> str:
    return "-" if value is None or not base else f"{value / base:.2f}"


def above(value: float | None, base: float | None) -> str:
    return "" if value is None or base is None else f"{value - base:+.1f}"


def mib(value: float | None) -> str:
    return "-" if value is None else f"{value / (1 << 20):.1f}"


def traffic_row(samples: Samples, scenario: Scenario, candidate: str) -> list[str]:
    def median(key, who=candidate, what=scenario.name):
        return samples.median(what, who, key)

    best = samples.best(scenario.name, candidate, "cpu_us")
    over = ratio(median("cpu_us"), median("cpu_us", what=scenario.over)) if scenario.over else ""
    floor = above(median("cpu_us"), median("cpu_us", FLOOR)) if candidate != FLOOR else ""
    return [scenario.name, candidate, shown(median("cpu_us"), ".1f"), shown(best, ".1f"),
            ratio(median("cpu_us"), median("cpu_us", YARDSTICK)),
            ratio(best, samples.best(scenario.name, YARDSTICK, "cpu_us")), floor, over,
            shown(median("rps"), ",.0f"), ratio(median("rps"), median("rps", YARDSTICK)),
            shown(median("p50"), ".2f"), shown(median("p99"), ".2f"), shown(median("p999"), ".2f"),
            shown(median("cpu_busy"), ".0%"), mib(median("rss")), mib(median("pss")),
            str(samples.errors(scenario.name, candidate))]


def memory_row(samples: Samples, scenario: Scenario, candidate: str) -> list[str]:
    def median(key, who=candidate):
        return samples.median(scenario.name, who, key)

    pss = "bytes_per_connection_pss"
    return [scenario.name, candidate, shown(median(pss), ",.0f"),
            ratio(median(pss), median(pss, YARDSTICK)),
            shown(median("bytes_per_connection_rss"), ",.0f"), mib(median("rss")),
            str(samples.errors(scenario.name, candidate))]


def line(cells: list[str] | tuple[str, ...]) -> str:
    return "| " + " | ".join(cells) + " |"


def markdown(samples: Samples, scenarios: list[Scenario], order: list[str]) -> str:
    """One table per group that was measured."""
    parts = []
    for group in GROUPS:
        rows = [(memory_row if scenario.memory else traffic_row)(samples, scenario, candidate)
                for scenario in scenarios if scenario.group == group
                for candidate in sorted(samples.candidates(scenario.name), key=order.index)]
        if not rows:
            continue
        head = TRAFFIC if len(rows[0]) == len(TRAFFIC) else MEMORY
        rule = ["---", "---", *["---:"] * (len(head) - 2)]
        parts.append("\n".join([f"### {group}", "", line(head), line(rule), *map(line, rows)]))
    return "\n\n".join(parts)
