"""The resolved config, and what it ran on."""

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape

import yaml

from search.report.markup import facts_list
from search.report.section import Section, Subject
from search.runs.reading import Run


@dataclass(frozen=True)
class Configuration:
    """The resolved config, and what it ran on: versions by package, the host, the seed and the data's fingerprint."""

    config: Mapping[str, object]
    versions: Mapping[str, str]
    host: Mapping[str, object]
    seed: int | None
    data_fingerprint: str | None


def configuration(run: Run) -> Configuration:
    """What the run's files say of it; an early version's say less."""
    facts = run.record
    return Configuration(
        config=run.config_tree,
        versions=facts.versions,
        host=facts.host,
        seed=facts.seed,
        data_fingerprint=facts.data_fingerprint,
    )


def render(record: Configuration, subject: Subject) -> str:
    """Facts, and the config folded away."""
    text = yaml.safe_dump(record.config, sort_keys=False, allow_unicode=True)
    host = record.host
    machine = ", ".join(str(host[key]) for key in ("platform", "python") if key in host)
    facts = [
        ("versions", ", ".join(f"{name} {version}" for name, version in record.versions.items())),
        ("machine", f"{host.get('cpus', '?')} CPUs, {machine}"),
        ("seed", str(record.seed)),
        ("data", str(record.data_fingerprint or "unknown")[:16]),
    ]
    return f"{facts_list(facts)}<details><summary>The resolved config</summary><pre>{escape(text)}</pre></details>"


SECTION = Section("configuration", 120, "Config and versions", configuration, render, is_long=True)
