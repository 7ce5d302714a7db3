"""Training configurations."""

from pathlib import Path

import pytest

pytest.importorskip("torch")

from iwcodec import models
from iwcodec.models.training.config import load_config


def test_invalid_config_is_refused_with_the_reason(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text('model = "huge"\nstage = []\n')
    with pytest.raises(ValueError, match="huge"):
        load_config(file)


CONFIG_FILES = sorted((Path(models.__file__ or "").parent / "configs").glob("*.toml"))


@pytest.mark.parametrize(("name", "size"), [("lite", 256), ("lite512", 512), ("paper", 512)])
def test_shipped_config_is_valid(name: str, size: int) -> None:
    config = load_config(Path(models.__file__ or "").parent / "configs" / f"{name}.toml")
    assert config.model.name == name
    assert [s.plan.size for s in config.stages][-1] == config.model.size == config.cache_size == size


def test_paper_config_uses_the_losses_of_the_paper_alone() -> None:
    config = load_config(next(file for file in CONFIG_FILES if file.stem == "paper"))
    for plan in config.stages:
        used = {name for name, weight in vars(plan.weights).items() if weight}
        assert used == {"l1", "perceptual", "adversarial", "feature_matching", "equivariance"}
        assert not plan.wants_motion
        assert not plan.only
        assert not plan.motion_only
    sizes = [plan.plan.size for plan in config.stages]
    assert sizes == sorted(set(sizes))
