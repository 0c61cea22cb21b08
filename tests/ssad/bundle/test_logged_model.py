"""What a model's folder says of the bundle in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from ssad.bundle.logged_model import LoggedModel, read_logged
from ssad.errors import BundleError

OURS = "flavors: {python_function: {loader_module: ssad.bundle.pyfunc, data: %s}}\n"

NONE_OF_OURS = "is no model of this project, no MLmodel there says how to load one; name one"


def test_a_model_says_where_its_bundle_is_and_what_logged_it(tmp_path: Path) -> None:
    (tmp_path / "MLmodel").write_text(OURS % "data/bundle" + "run_id: a\nmodel_id: m-1\n")
    assert read_logged(tmp_path, "runs:/a/model") == LoggedModel(tmp_path / "data" / "bundle", "a", "m-1")
    (tmp_path / "MLmodel").write_text(OURS % "bundle")
    assert read_logged(tmp_path, "runs:/a/model") == LoggedModel(tmp_path / "bundle", None, None)


@pytest.mark.parametrize(
    ("written", "sentence"),
    [
        (None, NONE_OF_OURS),
        ("", NONE_OF_OURS),
        ("[1, 2", NONE_OF_OURS),
        ("flavors: {sklearn: {}}", NONE_OF_OURS),
        ("flavors: {python_function: {loader_module: mlflow.sklearn, data: model}}", NONE_OF_OURS),
        ("flavors: {python_function: {loader_module: ssad.bundle.pyfunc}}", NONE_OF_OURS),
        (OURS % '"\\0"', NONE_OF_OURS),
        (OURS % "../other", r"names '\.\./other' as its data, outside of it"),
        (OURS % "/etc", "names '/etc' as its data, outside of it"),
    ],
)
def test_a_model_of_anything_else_is_refused_by_its_uri_without_secrets(
    tmp_path: Path, written: str | None, sentence: str
) -> None:
    if written is not None:
        (tmp_path / "MLmodel").write_text(written)
    with pytest.raises(BundleError, match=sentence) as refusal:
        read_logged(tmp_path, "https://me:secret@host/model")
    assert "https://host/model" in str(refusal.value)
