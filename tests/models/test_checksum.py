"""A model that says something else than the one that was trained is refused when it is loaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from kun.errors import InputError
from kun.models import checksum
from kun.models.loading import load_model
from tests.tiny_models import adapter, llama, louder

pytestmark = pytest.mark.slow
ROW = list(range(20, 40))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A base, and a model on it with its checksum."""
    root = tmp_path_factory.mktemp("trained")
    base = louder(llama(root / "base"))
    folder = adapter(base, root / "label", seed=1)
    checksum.write(folder, load_model(base, folder, merge=False)[0], [ROW])
    return base, folder


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_same_model_is_known_in_any_type(trained: tuple[Path, Path], dtype: str) -> None:
    merged, _ = load_model(*trained, dtype=dtype)
    assert str(merged.dtype) == f"torch.{dtype}"


def test_another_base_is_found(trained: tuple[Path, Path], tmp_path: Path) -> None:
    other = louder(llama(tmp_path / "base"), factor=4.5)
    with pytest.raises(InputError, match=r"label: this model cannot be loaded \(it is not the model .* differ by \d"):
        load_model(other, trained[1])


def test_another_adapter_is_found(trained: tuple[Path, Path], tmp_path: Path) -> None:
    base, folder = trained
    other = adapter(base, tmp_path / "label", seed=2)
    (other / checksum.FILE).write_bytes((folder / checksum.FILE).read_bytes())
    with pytest.raises(InputError, match="it is not the model that was trained"):
        load_model(base, other)
    (other / checksum.FILE).write_text("{")
    with pytest.raises(InputError, match=r"checksum\.json: cannot be read"):
        load_model(base, other)
