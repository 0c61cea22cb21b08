"""The registry that the service's tests have."""

from tests.serving.conftest import bundle_folder, registry

__all__ = ["bundle_folder", "registry"]
