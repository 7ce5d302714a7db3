"""Loading weights and states into PyTorch."""

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from iwcodec.models.runtime.torch import load_network, load_state, load_weights, to_uint8


def test_load_state_refuses_anything_but_a_dict_of_tensors(tmp_path: Path) -> None:
    file = tmp_path / "state.pt"
    torch.save({"a": torch.ones(2)}, file)
    assert torch.equal(load_state(file)["a"], torch.ones(2))
    torch.save([1, 2], file)
    with pytest.raises(ValueError, match="holds no weights"):
        load_state(file)
    file.write_bytes(b"not a checkpoint")
    with pytest.raises(ValueError, match="is damaged"):
        load_state(file)
    with pytest.raises(FileNotFoundError):
        load_state(tmp_path / "missing.pt")


def test_weights_of_a_model_include_those_of_its_base() -> None:
    base, larger = (load_weights(f"lite-{size}")[1] for size in (256, 512))
    assert all(larger[name].equal(value) for name, value in base.items())
    assert all(name.startswith("decoder.up.") for name in larger.keys() - base.keys())
    assert not load_network("lite-512").training


def test_to_uint8_rounds_and_clamps() -> None:
    assert to_uint8(torch.tensor([-0.1, 0.0, 0.499 / 255, 0.501 / 255, 1.0, 2.0])).tolist() == [0, 0, 0, 1, 255, 255]
