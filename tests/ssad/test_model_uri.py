"""What a model URI means."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from ssad.model_uri import ModelUri


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("models:/a b@champion", ModelUri("a b", alias="champion")),
        ("models:/a/12", ModelUri("a", version="12")),
        ("models:/a/latest", ModelUri("a", version="latest")),
    ],
)
def test_a_uri_of_a_registered_version_has_a_name_and_an_alias_or_a_number(uri: str, expected: ModelUri) -> None:
    assert ModelUri.of(uri) == expected
    assert str(expected) == uri
    assert ModelUri.of(uri.replace("models:/", "models://")) == expected


@pytest.mark.parametrize(
    "uri",
    ["models:/", "models:/a", "models:/m-0123", "models:/a@", "models:/a/", "models:/a@b@c", "runs:/a/model", "a/1"],
)
def test_another_uri_means_no_registered_version(uri: str) -> None:
    assert ModelUri.of(uri) is None


def test_latest_is_the_highest_number() -> None:
    versions = [SimpleNamespace(version=number) for number in ("9", "10", "2")]
    client = SimpleNamespace(
        search_model_versions=lambda filter_string: versions if filter_string == "name='a'" else [],
        get_model_version=lambda name, number: (name, number),
    )
    assert ModelUri("a", version="latest").find(client) == ("a", "10")
    assert ModelUri("b", version="latest").find(client) == ("b", "latest")  # of which the registry says what it likes
