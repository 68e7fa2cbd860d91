"""Shapes of models: figures that their makers publish, config.json, and spellings."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from preserve_gym.errors import InputError
from preserve_gym.latency.models import MODELS, find_model, model_name, read_config

CONFIG = {
    "_name_or_path": "meta-llama/Llama-3.1-8B",
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "hidden_size": 4096,
    "num_key_value_heads": 8,
    "intermediate_size": 14336,
    "vocab_size": 128_256,
    "max_position_embeddings": 131_072,
}


def config_file(folder: Path, **changes: Any) -> Path:
    path = folder / "config.json"
    values = {key: value for key, value in {**CONFIG, **changes}.items() if value != "absent"}
    path.write_text(json.dumps(values), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("llama-3.1-8b", 8_030_261_248),
        ("llama-3.1-70b", 70_553_706_496),
        ("llama-3.2-3b", 3_212_749_824),
        ("llama-2-7b", 6_738_415_616),
        ("llama-2-70b", 68_976_648_192),
        ("qwen3-32b", 32_762_123_264),
    ],
)
def test_parameters_are_those_of_the_published_weights(name: str, parameters: int) -> None:
    assert find_model(name).parameters == parameters
    assert find_model(name).weight_bytes() == 2 * parameters
    assert find_model(name).weight_bytes(4) == 2 * parameters // 4


def test_every_model_is_found_by_its_name() -> None:
    assert [find_model(shape.name) for shape in MODELS] == list(MODELS)
    assert all(shape.source for shape in MODELS)


@pytest.mark.parametrize(
    ("name", "tp", "bytes_per_token"),
    [
        ("llama-3.1-8b", 1, 131_072),  # 32 layers x K and V x 8 heads x 128 x 2 bytes
        ("llama-3.1-8b", 2, 65_536),
        ("llama-2-7b", 1, 524_288),
        ("llama-2-7b", 4, 131_072),
        ("llama-3.1-70b", 4, 81_920),
        ("llama-3.1-70b", 16, 40_960),  # the 8 KV heads are on two GPUs each
        ("llama-3.2-3b", 1, 114_688),
        ("qwen3-32b", 2, 131_072),
    ],
)
def test_kv_cache_of_a_token(name: str, tp: int, bytes_per_token: int) -> None:
    assert find_model(name).kv_bytes_per_token(tp) == bytes_per_token


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("meta-llama/Llama-3.1-8B-Instruct", "llama-3.1-8b"),
        ("meta-llama/Meta-Llama-3.1-8B", "llama-3.1-8b"),
        ("meta-llama/Meta-Llama-3-8B", "llama-3.1-8b"),
        (" Llama_3.1 8B ", "llama-3.1-8b"),
        ("llama2-70b", "llama-2-70b"),
        ("meta-llama/Llama-2-7b-chat-hf", "llama-2-7b"),
        ("Llama-3.2-3B", "llama-3.2-3b"),
        ("llama3.2-3b", "llama-3.2-3b"),
        ("Qwen/Qwen3-32B", "qwen3-32b"),
    ],
)
def test_spellings(spelling: str, name: str) -> None:
    assert model_name(spelling) == name
    assert find_model(spelling).name == name


def test_unknown_model_lists_those_there_are_and_how_to_add_one() -> None:
    with pytest.raises(InputError) as caught:
        find_model("lama-3.1-70")
    for shape in MODELS:
        assert shape.name in str(caught.value)
    assert "nearest: llama-3.1-70b" in str(caught.value)
    assert "config.json" in str(caught.value)
    with pytest.raises(InputError, match="expected one of"):
        find_model("")


@pytest.mark.parametrize(
    ("name", "tp"), [("llama-3.1-8b", 3), ("llama-3.1-8b", 0), ("llama-3.1-8b", -1), ("llama-3.1-8b", True)]
)
def test_degree_that_does_not_divide_the_heads(name: str, tp: int) -> None:
    with pytest.raises(InputError, match=r"32 heads of llama-3.1-8b \(1, 2, 4, 8, 16\), got"):
        find_model(name).check_tp(tp)


def test_degree_that_would_split_a_kv_head() -> None:
    # 24 heads could be shared by three GPUs, 8 KV heads could not.
    with pytest.raises(InputError, match=r"\(1, 2, 4, 8\), got 3"):
        find_model("llama-3.2-3b").check_tp(3)
    find_model("llama-3.1-70b").check_tp(16)


def test_config_of_a_known_model_gives_its_shape(tmp_path: Path) -> None:
    path = config_file(tmp_path)
    assert read_config(path) == replace(find_model("llama-3.1-8b"), source=str(path))
    assert find_model(path) == find_model(str(path)) == read_config(path)


def test_config_of_qwen(tmp_path: Path) -> None:
    path = config_file(
        tmp_path,
        _name_or_path="absent",
        model_type="qwen3",
        head_dim=128,
        num_attention_heads=64,
        num_hidden_layers=64,
        hidden_size=5120,
        intermediate_size=25600,
        vocab_size=151_936,
        max_position_embeddings=40_960,
        tie_word_embeddings=False,
    )
    shape = read_config(path)
    assert shape.name == tmp_path.name.lower().replace("_", "-")  # of its folder
    assert replace(shape, name="qwen3-32b", source="") == replace(find_model("qwen3-32b"), source="")


def test_config_may_leave_out_what_follows_from_the_rest(tmp_path: Path) -> None:
    for missing in ("absent", None):
        path = config_file(tmp_path, num_key_value_heads=missing, head_dim=missing)
        assert (read_config(path).kv_heads, read_config(path).head_dim) == (32, 128)
    assert read_config(config_file(tmp_path, tie_word_embeddings=True)).tied_embedding


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"hidden_size": "absent"}, "hidden_size: expected an integer >= 1, got None"),
        ({"num_attention_heads": 0}, "num_attention_heads: expected an integer >= 1, got 0"),
        ({"vocab_size": "many"}, "vocab_size: expected an integer >= 1, got 'many'"),
        ({"vocab_size": 1.5}, "vocab_size: expected an integer >= 1, got 1.5"),
        ({"vocab_size": True}, "vocab_size: expected an integer >= 1, got True"),
        ({"num_key_value_heads": 7}, "kv_heads: expected a divisor of heads"),
        (
            {"num_local_experts": 8},
            r"expected a dense decoder, got a mixture of experts \(num_local_experts\)",
        ),
    ],
)
def test_config_that_cannot_be_used(tmp_path: Path, changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        find_model(config_file(tmp_path, **changes))


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"3", b"\xff\xfe\x00"])
def test_file_that_is_no_config(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(InputError, match=r"config\.json: .*expected"):
        find_model(tmp_path / "config.json")


def test_missing_config_and_folder(tmp_path: Path) -> None:
    (tmp_path / "x.json").mkdir()
    for name in ("config.json", "x.json"):
        with pytest.raises(InputError, match=f"{name}: expected a Hugging Face config.json"):
            find_model(tmp_path / name)
