"""The protocols by name: the values of their files in `conf/protocol`, with those that they take over from others."""

from __future__ import annotations

from typing import Any

from bench.config.paths import config_folder, group_names
from bench.config.yaml_file import read_yaml
from bench.errors import UsageError, no_such

#: What Hydra writes behind a file whose values are to stand where those of the reading file stand.
_HERE = "@_here_"
#: How a file of the group names another one from whatever folder it lies in.
_GROUP = "/protocol/"


def protocol_values(name: str) -> dict[str, Any]:
    """The values of a protocol, as Hydra would compose them.

    Args:
        name: as the command line has it: `quick`, `v2/quick`.

    Raises:
        UsageError: there is no such protocol.
    """
    names = group_names("protocol")
    if name not in names:
        raise UsageError(no_such("protocol", name, names))
    own = read_yaml(config_folder() / "protocol" / f"{name}.yaml")
    values: dict[str, Any] = {}
    for parent in own.pop("defaults", []):
        if parent != "_self_":
            values = protocol_values(parent.removeprefix(_GROUP).removesuffix(_HERE))
    for key, value in own.items():
        values[key] = {**values.get(key, {}), **value} if isinstance(value, dict) else value
    return values
