"""What a config chooses by name, found in the packages that build it: a new file there is a new choice here.

The config stands below those packages and knows none of their files. It reads what they declare, by the name of the
package; the declarations import neither the config nor any library that takes long to load.
"""

from typing import Any

from segcore.component import Registry

SAMPLERS: Registry[Any] = Registry.of_package("sampler", "search.sampler", "search.sampling.samplers")
"""How the next configuration is chosen; the build is a `search.sampling.sampler.SamplerRule`."""

SCHEDULERS: Registry[Any] = Registry.of_package("scheduler", "search.scheduler.name", "search.schedulers.rules")
"""Which trials are stopped early; the build is a `search.schedulers.rule.SchedulerRule`."""

TARGETS: Registry[Any] = Registry.of_package("export target", "export.targets", "search.export.targets")
"""Where a sealed model may be sent; the build is a `search.export.target.Destination`."""


def secret_variables() -> tuple[str, ...]:
    """Environment variables whose values must not reach a log, an error or a file."""
    return tuple(sorted({"WANDB_API_KEY", *(variable for target in TARGETS for variable in target.build.secrets)}))


def choices_described(registry: Registry[Any]) -> str:
    """All components of a kind in one line each, for the description of the key that chooses one."""
    return "; ".join(f"{component.name}: {component.summary}" for component in registry) + "."
