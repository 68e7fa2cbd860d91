"""``python -m preserve_gym.latency``: files written, tables printed, and what is refused."""

from __future__ import annotations

import dataclasses
import re
import struct
from pathlib import Path
from typing import Any

import pytest
import yaml

from experiments.options import Options, parse
from experiments.trace_setting import _instance
from preserve_gym.config import InstanceConfig
from preserve_gym.errors import InputError
from preserve_gym.latency import __main__ as command
from preserve_gym.latency.__main__ import main
from preserve_gym.latency.presets import DEFAULT, FOLDER, preset_names, read_preset
from tests import latency_files
from tests.latency_files import AICONFIGURATOR, LAW, LLMSERVINGSIM, drawn_once, target, write
from tests.test_latency_gpus import gpu_file
from tests.test_latency_models import config_file

NAME = "llama-3.1-8b_h100_tp1"


@pytest.fixture(autouse=True)
def _batches_drawn_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("preserve_gym.latency.fit.served_batches", drawn_once)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the command runs, with no file in it but those that a test puts there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    return tmp_path


def arguments(*paths: Path | str, **options: Any) -> list[str]:
    chosen = {"model": "llama-3.1-8b", "gpu": "h100", **options}
    words = [str(path) for path in paths]
    for name, value in chosen.items():
        words += [f"--{name.replace('_', '-')}", str(value)]
    return ["fit", *words]


def size_of_png(path: Path) -> tuple[int, int]:
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", data[16:24])
    return width, height


def cells_of(printed: str, columns: int) -> list[list[str]]:
    """First cells of the rows of a printed table of batches."""
    kinds = ("decode only", "prefill only", "mixed", "all")
    rows = [re.split(r" {2,}", line.strip()) for line in printed.splitlines() if line.startswith(kinds)]
    return [row[:columns] for row in rows]


def test_fit_of_an_own_profile(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (path,) = write(folder, "own")
    assert main(arguments(path)) == 0
    instance = InstanceConfig.from_file(folder / f"{NAME}.yaml")
    assert instance.latency == LAW
    assert (instance.name, instance.gpus, instance.max_num_seqs) == (NAME, 1, 1024)
    assert (instance.max_num_batched_tokens, instance.max_model_len) == (8192, 131_072)
    assert instance == InstanceConfig(**read_preset(folder / f"{NAME}.yaml").instance)
    width, height = size_of_png(folder / f"{NAME}.png")
    assert 800 <= width <= 1600
    assert 400 <= height <= 1000
    assert sorted(p.name for p in folder.iterdir()) == sorted([path.name, f"{NAME}.yaml", f"{NAME}.png"])
    printed = capsys.readouterr().out
    assert "llama-3.1-8b on 1 x h100" in printed
    for name, value in dataclasses.asdict(LAW).items():
        assert f"{name} {value:g}" in printed  # on one line
    assert cells_of(printed, 3) == [
        ["decode only", "18", "0.0"],
        ["prefill only", "10", "0.0"],
        ["mixed", "16", "0.0"],
        ["all", "44", "0.0, P95 0.0"],
    ]
    assert printed.splitlines()[-2:] == [f"{NAME}.yaml", f"{NAME}.png"]


def test_fit_of_operators_with_every_option(folder: Path) -> None:
    paths = write(folder, *LLMSERVINGSIM)
    words = arguments(
        *paths,
        gpu_memory_utilization=0.8,
        max_num_seqs=64,
        max_num_batched_tokens=1024,
        max_model_len=4096,
        out="sub.yaml",
        plot="picture.svg",
    )
    assert main(words) == 0
    preset = read_preset(folder / "sub.yaml")
    assert preset.instance["max_num_seqs"] == 64
    assert preset.instance["max_num_batched_tokens"] == 1024
    assert preset.instance["max_model_len"] == 4096
    assert preset.recipe.gpu_memory_utilization == 0.8
    assert list(preset.recipe.profiles) == [path.name for path in paths]
    assert all(path.name in preset.provenance for path in paths)
    assert preset.recipe.measured_on == "h100"
    assert b"<svg" in (folder / "picture.svg").read_bytes()
    assert not list(folder.glob("*.png"))
    # The same command writes the same file, over what it wrote before.
    before = (folder / "sub.yaml").read_bytes()
    assert main(words) == 0
    assert (folder / "sub.yaml").read_bytes() == before


def test_fit_for_another_card(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = write(folder, *AICONFIGURATOR)
    assert main(arguments(*paths)) == 0
    assert main(arguments(*paths, gpu="l40s", measured_on="h100")) == 0
    assert "extrapolated from a profile of h100" in capsys.readouterr().out
    here, there = (read_preset(folder / f"llama-3.1-8b_{gpu}_tp1.yaml") for gpu in ("h100", "l40s"))
    assert there.extrapolated
    assert not here.extrapolated
    ratio = there.instance["latency"]["base_s"] / here.instance["latency"]["base_s"]
    assert ratio == pytest.approx(3.35 / 0.864, rel=0.15)


def test_fit_with_a_model_and_a_card_of_one_s_own(folder: Path) -> None:
    config = config_file(folder, _name_or_path="me/Own-8B")
    card = gpu_file(folder, memory_bytes=80_000_000_000, bandwidth=3.35e12, flops=989e12)
    table = latency_files.own(target()).assign(model="own-8b", gpu="NVIDIA Toy 3090")
    table.to_csv(folder / "own.csv", index=False)
    assert main(arguments("own.csv", model=config, gpu=card)) == 0
    instance = InstanceConfig.from_file(folder / "own-8b_toy-3090_tp1.yaml")
    assert instance.latency == LAW
    assert instance.usd_per_gpu_hour == 0.3


def test_fit_of_two_gpus(folder: Path) -> None:
    paths = write(folder, "own", "collectives", of=target(tp=2))
    assert main(arguments(*paths, tp=2)) == 0
    instance = InstanceConfig.from_file(folder / "llama-3.1-8b_h100_tp2.yaml")
    assert instance.gpus == 2
    assert instance.latency.base_s == pytest.approx(LAW.base_s + 66 * 10e-6, rel=0.01)


def test_check_against_whole_instances(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (path,) = write(folder, "own")
    table = latency_files.own(target())
    table.assign(time_s=table["time_s"] / 1.25).to_csv(folder / "faster.csv", index=False)
    assert main([*arguments(path), "--check", "faster.csv"]) == 0
    shown = capsys.readouterr().out.split("Against faster.csv")[1]
    assert cells_of(shown, 4) == [
        ["decode only", "18", "25.0", "+25.0"],
        ["prefill only", "10", "25.0", "+25.0"],
        ["mixed", "16", "25.0", "+25.0"],
    ]


def test_check_against_splitwise(folder: Path, data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    profiles = data_dir / "profiles"
    names = [
        "vidur_mlp_h100_llama-2-70b",
        *(f"aiconfigurator_h100_vllm-0.14.0_{kind}" for kind in ("gemm", "context_attention")),
        "aiconfigurator_h100_vllm-0.14.0_generation_attention",
        "vidur_all_reduce_h100_dgx",
    ]
    words = arguments(*(profiles / f"{name}.csv.gz" for name in names), model="llama-2-70b", tp=4)
    assert main([*words, "--check", str(profiles / "splitwise_perf_model.csv.gz")]) == 0
    shown = capsys.readouterr().out.split("Against splitwise_perf_model.csv.gz")[1]
    rows = {row[0]: row[1:] for row in cells_of(shown, 4)}
    # Splitwise's stack of 2023 took longer by the software around the GPUs.
    assert set(rows) == {"decode only", "prefill only"}
    for number, mape, median in rows.values():
        assert int(number) >= 7
        assert 0 < float(mape) < 60
        assert -60 < float(median) < 0
    written = InstanceConfig.from_file(folder / "llama-2-70b_h100_tp4.yaml")
    assert written == InstanceConfig.from_preset("llama-2-70b", gpu="h100", tp=4)


def test_an_instance_goes_into_an_experiment(folder: Path) -> None:
    assert main(arguments(*write(folder, "own"))) == 0
    instance = _instance(Options(instance=folder / f"{NAME}.yaml"))
    assert instance == InstanceConfig.from_file(folder / f"{NAME}.yaml")
    with pytest.raises(InputError, match="--gpu: expected none beside --instance"):
        parse(["--instance", str(folder / f"{NAME}.yaml"), "--gpu", "a100"])


# What is refused


def refused(capsys: pytest.CaptureFixture[str], folder: Path, words: list[str], status: int = 2) -> str:
    """The one line that the command complains with; no file is written or changed."""
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert main(words) == status
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    return captured.err.removeprefix("error: ")


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"model": "gpt-5"}, "model 'gpt-5': not known; expected one of llama-3.1-8b, "),
        ({"gpu": "tpu"}, "gpu 'tpu': not known; expected one of a100-80gb, "),
        ({"measured_on": "tpu"}, "gpu 'tpu': not known"),
        ({"measured_on": ""}, "gpu '': not known"),
        ({"tp": 3}, "tp: expected a divisor of the 32 heads of llama-3.1-8b (1, 2, 4, 8, 16), got 3"),
        ({"tp": 0}, "tp: expected a divisor of the 32 heads"),
        ({"tp": "two"}, "two"),
        ({"tp": 2}, "own.csv: model, gpu, tp: expected rows of llama-3.1-8b on h100 with tp 2"),
        ({"gpu_memory_utilization": 0}, "gpu_memory_utilization: expected a share above 0, at most 1, got"),
        ({"gpu_memory_utilization": 2}, "gpu_memory_utilization: expected a share above 0, at most 1, got"),
        ({"gpu_memory_utilization": "nan"}, "gpu_memory_utilization: expected a share"),
        ({"gpu_memory_utilization": 0.05}, "leaves no KV cache beside 16.1 GB of weights"),
        ({"model": "llama-3.1-70b"}, "llama-3.1-70b on 1 x h100: 0.9 of 85.0 GB leaves no KV cache"),
        ({"max_num_seqs": 0}, "max_num_seqs: expected an integer in [2, 1048576], got 0"),
        ({"max_num_seqs": -5}, "max_num_seqs: expected an integer in [2, 1048576], got -5"),
        ({"max_num_batched_tokens": 0}, "max_num_batched_tokens: expected an integer in [2, 1048576], got 0"),
        ({"max_num_seqs": 99, "max_num_batched_tokens": 64}, "max_num_seqs: expected at most max_num"),
        ({"max_model_len": 1}, "max_model_len: expected an integer in [2, 1048576], got 1"),
        ({"max_model_len": 200_000}, "max_model_len: expected at most 131072, as llama-3.1-8b was made for"),
        ({"out": "none/x.yaml"}, "--out: none/x.yaml: expected a folder that exists, none does not"),
        ({"out": "."}, "--out: expected a file, got '.'"),
        ({"out": "taken"}, "--out: taken: expected a file, got a folder"),
        ({"out": "own.csv"}, "--out: own.csv: expected a new file, or one that `fit` wrote"),
        ({"out": "x.png"}, "--out: x.png: expected another file than the picture"),
        ({"plot": "none/x.png"}, "--plot: none/x.png: expected a folder that exists"),
        ({"plot": "own.csv"}, "--plot: own.csv: expected a file ending in .png, .svg, .pdf"),
        ({"plot": "taken"}, "--plot: taken: expected a file, got a folder"),
        ({"check": "none.csv"}, "none.csv: no such file"),
        ({"check": "dense.csv"}, "profile: no file has"),
        ({"wrong": 1}, "wrong"),
    ],
)  # fmt: skip
def test_options_that_cannot_be(
    options: dict[str, Any], complaint: str, folder: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("preserve_gym.latency.instance.fit", None)  # found before any work is done
    write(folder, "own", "dense")
    (folder / "taken").mkdir()
    assert complaint in refused(capsys, folder, arguments("own.csv", **options))


def test_no_profile_and_no_command(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "profile: expected at least one file" in refused(capsys, folder, arguments())
    assert refused(capsys, folder, [])
    assert "--model" in refused(capsys, folder, ["fit", "own.csv", "--gpu", "h100"])


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "own.csv: expected a CSV file: No columns"),
        (b"a,b\n1,2\n", "own.csv: unknown format; expected one of Vidur mlp, "),
        (b"\x1f\x8b\x08\xff", "own.csv: expected a CSV file"),
    ],
)
def test_bad_profile(
    content: bytes, complaint: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "own.csv").write_bytes(content)
    assert complaint in refused(capsys, folder, arguments("own.csv"))
    assert "none.csv: no such file" in refused(capsys, folder, arguments("none.csv"))


def test_row_of_a_bad_profile(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (path,) = write(folder, "own")
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:9], lines[9].replace(lines[9].split(",")[4], "slow"), *lines[10:]]))
    assert "own.csv: row 10, time_s: expected a time >= 0 in seconds, got 'slow'" in refused(
        capsys, folder, arguments(path)
    )


def test_only_attention(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(folder, "attention")
    message = refused(capsys, folder, arguments("attention.csv"))
    assert message.startswith("profile: no file has the linear layers (Vidur mlp, ")


def test_card_whose_power_no_instance_has(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    card = gpu_file(folder, name="h100", memory_bytes=8e10, bandwidth=3.35e12, flops=989e12, prefill_w=1e9)
    write(folder, "own")
    assert "prefill_w" in refused(capsys, folder, arguments("own.csv", gpu=card))


def test_interrupted(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    write(folder, "own")
    for step in ("fit_instance", "plot"):
        with monkeypatch.context() as patch:
            patch.setattr(command, step, interrupt)
            assert refused(capsys, folder, arguments("own.csv"), status=130) == "interrupted\n"


def test_disk_that_is_full(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    write(folder, "own")
    monkeypatch.setattr(Path, "write_text", full)
    assert "No space left" in refused(capsys, folder, arguments("own.csv"), status=1)


# The other commands


def test_list_shows_every_preset(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    printed = capsys.readouterr().out
    assert "…" not in printed
    assert max(map(len, printed.splitlines())) <= 80
    rows = [line.split() for line in printed.splitlines()]
    for name in preset_names():
        model, gpu, tp = name.split("_")
        preset = read_preset(FOLDER / f"{name}.yaml")
        (row,) = (r for r in rows if r[:2] == [model, gpu] and tp.removeprefix("tp") in r[2:4])
        assert ("*" in row) == preset.extrapolated
        values = [word for word in row if word != "*"][3:]
        error, instance = preset.fit_error, preset.instance
        assert [float(v) for v in values[:5]] == [
            error.overall, error.decode_only, error.prefill_only, error.mixed, error.p95,
        ]  # fmt: skip
        assert values[5] == f"{16 * (instance['num_gpu_blocks'] - 1):,}"
        assert float(values[6]) == instance["cold_start_s"]
        assert float(values[7]) == instance["usd_per_gpu_hour"]


def test_refit_of_one(data_dir: Path, capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    assert main(["refit", DEFAULT]) == 0
    printed = capsys.readouterr().out
    assert "llama-3.1-8b on 1 x rtx-4090" in printed
    assert "differ" not in printed
    assert not list(folder.iterdir())


def test_refit_that_differs(
    data_dir: Path, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (FOLDER / f"{DEFAULT}.yaml").read_text(encoding="utf-8")
    (folder / f"{DEFAULT}.yaml").write_text(text.replace("cold_start_s: 47.0", "cold_start_s: 50.0"))
    monkeypatch.setattr(command, "FOLDER", folder)
    assert main(["refit", DEFAULT]) == 1
    assert f"differ: {DEFAULT}" in capsys.readouterr().out
    assert main(["refit", DEFAULT, "--write"]) == 0
    assert f"written: {DEFAULT}" in capsys.readouterr().out
    assert (folder / f"{DEFAULT}.yaml").read_text(encoding="utf-8") == text


def test_refit_of_what_is_not_there(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    message = refused(capsys, folder, ["refit", DEFAULT, "llama-9"])
    assert message.startswith("preset 'llama-9': expected one of llama-3.1-8b_rtx-4090_tp1, ")
    monkeypatch.setenv("PRESERVE_GYM_DATA", str(folder))
    assert "set PRESERVE_GYM_DATA" in refused(capsys, folder, ["refit", DEFAULT])


def test_measure_passes_its_options_on(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = []
    monkeypatch.setattr(command, "measure", lambda options: given.append(options) or Path("x.csv"))
    assert main(["measure", "--model", "qwen3-32b", "--tp", "2", "--repeats", "5", "--device", "cpu"]) == 0
    assert capsys.readouterr().out == "x.csv\n"
    assert (given[0].model, given[0].tp, given[0].repeats) == ("qwen3-32b", 2, 5)


def test_measure_then_fit_says_that_a_cpu_is_no_gpu(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    latency_files.own(target()).assign(gpu="cpu").to_csv(folder / "own.csv", index=False)
    message = refused(capsys, folder, arguments("own.csv"))
    assert "expected rows of llama-3.1-8b on h100 with tp 1, found llama-3.1-8b cpu 1" in message


@pytest.mark.parametrize(
    ("words", "needed"),
    [
        ([], ["fit", "refit", "measure", "list"]),
        (
            ["fit"],
            ["--model", "--gpu", "--tp", "--measured-on", "--check", "--gpu-memory-utilization", "--out"],
        ),
        (["refit"], ["--write", "llama-3.1-8b_h100_tp1"]),
        (["measure"], ["--model", "--repeats", "--device"]),
        (["list"], ["presets"]),
    ],
)
def test_help(words: list[str], needed: list[str], folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([*words, "--help"])
    assert caught.value.code == 0
    printed = capsys.readouterr().out
    assert all(word in printed for word in needed)
    assert "`" not in printed.replace("`measure`", "")


def test_yaml_is_plain(folder: Path) -> None:
    assert main(arguments(*write(folder, "own"))) == 0
    values = yaml.safe_load((folder / f"{NAME}.yaml").read_text(encoding="utf-8"))
    assert list(values) == [
        *("model", "gpu", "tp", "instance", "provenance", "gpu_provenance", "fit_error", "recipe")
    ]
    assert all(isinstance(value, int | float) for value in values["instance"]["latency"].values())
