"""Section `plugins`: the parts that a recipe takes from plug-ins, as a lock file records them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, Field

from bmcli import parts, plugins
from bmcli.quoting import quoted
from bmcli.recipe.fields import Kind, Options, fault_at


class PluginOptions(Options):
    """Origin of a part that is not built in."""

    source: str = Field(description="Name of an installed package, or the file that was given by `--plugin`.")
    version: str = Field(default="", description="Version of the package; empty for a file.")
    sha256: str = Field(description="SHA-256 of the Python files of the package, or of the file.")

    def __str__(self) -> str:
        return f"{self.source} {self.version}".strip()


def require_plugins(recorded: Mapping[str, PluginOptions]) -> None:
    """Raise fault_at() for the first part whose plug-in is not there."""
    for part, origin in recorded.items():
        room, _, kind = part.rpartition(".")
        if room not in plugins.ROOMS or kind not in parts.names(room):
            if origin.source.endswith(".py"):
                missing, advice = "was not given", f"Write `bmcli --plugin {origin.source} COMMAND ...`."
            else:
                missing, advice = "is not installed", f"Install {origin}."
            raise fault_at(
                (part,), f"{part} comes from the plug-in {quoted(str(origin), 400)}, which {missing}.", advice
            )


def list_changes(recorded: Mapping[str, PluginOptions]) -> list[str]:
    """List the plug-ins whose code differs from the recorded one, as sentences."""
    current = {part: plugins.describe(part) for part in recorded}
    return [
        f"the code of {part} in the plug-in {current[part]} differs from the code that the run was made with."
        for part, origin in recorded.items()
        if current[part].sha256 != origin.sha256
    ]


def list_used_plugins(recipe: BaseModel) -> dict[str, PluginOptions]:
    """List the plug-ins whose parts a recipe uses, by part."""
    kinds = [kind for kind in _list_kinds(recipe) if not type(kind).__module__.startswith("bmcli.")]
    if not kinds:
        return {}
    by_options = plugins.map_options()
    used = {by_options[type(kind)] for kind in kinds if type(kind) in by_options}
    return {
        each.part: PluginOptions(source=each.source, version=each.version, sha256=each.sha256)
        for each in sorted(used, key=lambda each: each.part)
    }


def _list_kinds(value: Any) -> Iterator[Kind]:
    """Yield every choice of a part in a recipe."""
    if isinstance(value, Kind):
        yield value
    if isinstance(value, BaseModel):
        value = {name: getattr(value, name) for name in type(value).model_fields}
    if isinstance(value, Mapping):
        value = value.values()
    elif not isinstance(value, (list, tuple)):
        return
    for each in value:
        yield from _list_kinds(each)
