"""What a `models:/` URI of MLflow means. A leaf that needs no MLflow: the service, which has none, reads it too."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

LATEST = "latest"
"""MLflow's word for the newest version."""

FORM = re.compile(r"models:/+(?P<name>[^/@]+)(?:@(?P<alias>[^/@]+)|/(?P<version>[^/@]+))")


@dataclass(frozen=True)
class ModelUri:
    """A registered version, by an alias or by its number.

    Attributes:
        name: of the model.
        alias: that means the version; None where there is a number.
        version: its number, or `LATEST`; None where there is an alias.
    """

    name: str
    alias: str | None = None
    version: str | None = None

    @classmethod
    def of(cls, uri: str) -> ModelUri | None:
        """The parts of a URI; None for one that means no registered version."""
        found = FORM.fullmatch(uri)
        return cls(**found.groupdict()) if found else None

    def __str__(self) -> str:
        return f"models:/{self.name}@{self.alias}" if self.alias else f"models:/{self.name}/{self.version}"

    def find(self, client: Any) -> Any:
        """The version that it means now, as MLflow's client has it; raises what that does where there is none."""
        if self.alias is not None:
            return client.get_model_version_by_alias(self.name, self.alias)
        number = self.version
        if number == LATEST:
            versions = client.search_model_versions(f"name='{self.name}'")
            number = max((str(version.version) for version in versions), key=int, default=number)
        return client.get_model_version(self.name, number)
