"""Cards: figures of the data sheets, spellings, and files of one's own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from preserve_gym.errors import InputError
from preserve_gym.latency.gpus import GPUS, find_gpu, gpu_name

OWN: dict[str, Any] = {
    "name": "NVIDIA Toy 3090",
    "memory_bytes": 25_000_000_000,
    "bandwidth": 0.936e12,
    "flops": 71e12,
    "idle_w": 25,
    "prefill_w": 350,
    "decode_w": 250,
    "usd_per_hour": 0.3,
    "source": "data sheet",
}


def gpu_file(folder: Path, **changes: Any) -> Path:
    path = folder / "gpu.yaml"
    values = {key: value for key, value in {**OWN, **changes}.items() if value != "absent"}
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("NVIDIA A100-SXM4-80GB", "a100-80gb"),
        ("A100", "a100-80gb"),
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("h100-80gb", "h100"),
        ("NVIDIA H200", "h200"),
        ("NVIDIA L40S", "l40s"),
        ("NVIDIA GeForce RTX 4090", "rtx-4090"),
        ("rtx4090", "rtx-4090"),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", "rtx-pro-6000"),
        ("RTXPRO6000", "rtx-pro-6000"),
    ],
)
def test_spellings(spelling: str, name: str) -> None:
    assert gpu_name(spelling) == name
    assert find_gpu(spelling).name == name


@pytest.mark.parametrize("gpu", GPUS, ids=lambda gpu: gpu.name)
def test_figures_are_those_of_a_card(gpu: Any) -> None:
    assert find_gpu(gpu.name) is gpu
    assert 20e9 < gpu.memory_bytes < 160e9
    assert 0.8e12 < gpu.bandwidth < 5e12
    assert 100e12 < gpu.flops < 1000e12
    assert gpu.idle_w < gpu.decode_w < gpu.prefill_w
    assert 0.5 < gpu.usd_per_hour < 5


def test_roofline_is_what_takes_longer() -> None:
    h100 = find_gpu("h100")
    assert h100.roofline_s(989e12, 1) == pytest.approx(1.0)
    assert h100.roofline_s(1, 6.7e12) == pytest.approx(2.0)


def test_unknown_card_lists_those_there_are_and_how_to_add_one() -> None:
    with pytest.raises(InputError) as caught:
        find_gpu("h20")
    for gpu in GPUS:
        assert gpu.name in str(caught.value)
    assert "nearest: h200" in str(caught.value)
    for field in OWN:
        assert field in str(caught.value)
    with pytest.raises(InputError, match="expected one of"):
        find_gpu("")


def test_card_of_one_s_own(tmp_path: Path) -> None:
    gpu = find_gpu(str(gpu_file(tmp_path)))
    assert gpu.name == "toy-3090"  # as `measure` would call it
    assert (gpu.memory_bytes, gpu.bandwidth, gpu.source) == (25_000_000_000, 0.936e12, "data sheet")
    assert find_gpu(str(gpu_file(tmp_path, name="a/b_C"))).name == "a-b-c"  # it becomes part of a file name


def test_exponents_that_yaml_takes_for_text(tmp_path: Path) -> None:
    path = gpu_file(tmp_path)
    path.write_text(path.read_text().replace("936000000000.0", "936e9"))
    assert yaml.safe_load(path.read_text())["bandwidth"] == "936e9"
    assert find_gpu(str(path)) == replace(find_gpu(str(gpu_file(tmp_path))), bandwidth=0.936e12)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"flops": "absent"}, "expected a YAML file with name, memory_bytes, .*'flops'"),
        ({"cores": 5}, "expected a YAML file with name, memory_bytes, .*'cores'"),
        ({"flops": "fast"}, "flops: expected a number > 0, got 'fast'"),
        ({"flops": 0}, "flops: expected a number > 0, got 0"),
        ({"bandwidth": -1.0}, "bandwidth: expected a number > 0, got -1.0"),
        ({"bandwidth": float("inf")}, "bandwidth: expected a number > 0, got inf"),
        ({"memory_bytes": float("nan")}, "memory_bytes: expected a number > 0, got nan"),
        ({"memory_bytes": True}, "memory_bytes: expected a number > 0, got True"),
        ({"idle_w": [1]}, r"idle_w: expected a number > 0, got \[1\]"),
        ({"name": ""}, "name: expected a name"),
    ],
)
def test_file_with_a_wrong_field(tmp_path: Path, changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InputError, match=f"gpu.yaml: {complaint}"):
        find_gpu(str(gpu_file(tmp_path, **changes)))


@pytest.mark.parametrize("content", [b"", b"- 1\n", b"a: [", b"5", b"\xff\xfe\x00", b"1: 2\n"])
def test_file_that_is_no_card(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "gpu.yaml").write_bytes(content)
    with pytest.raises(InputError, match=r"gpu\.yaml: expected a YAML file with name") as caught:
        find_gpu(str(tmp_path / "gpu.yaml"))
    assert "\n" not in str(caught.value)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    (tmp_path / "x.yml").mkdir()
    for name in ("gpu.yaml", "x.yml"):
        with pytest.raises(InputError, match=f"{name}: expected a YAML file"):
            find_gpu(str(tmp_path / name))
