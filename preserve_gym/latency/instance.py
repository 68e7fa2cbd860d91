"""From a profile to an instance: fits the law, sizes the KV cache, adds cold start, power and price."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from preserve_gym.data import data_dir
from preserve_gym.errors import InputError
from preserve_gym.latency.cold_start import cold_start_s
from preserve_gym.latency.fit import Fit, Limits, fit
from preserve_gym.latency.gpus import Gpu, find_gpu
from preserve_gym.latency.iterations import Iterations
from preserve_gym.latency.kv_cache import BLOCK_SIZE, num_gpu_blocks
from preserve_gym.latency.models import ModelShape, find_model
from preserve_gym.latency.parts import Operators, Target
from preserve_gym.latency.presets import Preset, Recipe
from preserve_gym.latency.profiles import read_profile

LINKS = Path(__file__).parent / "links"


@dataclass(frozen=True)
class Wanted:
    """What an instance shall be.

    Attributes:
        model: name, or path of a Hugging Face ``config.json``.
        gpu: name, or path of a YAML file with the fields of ``Gpu``.
        tp: tensor-parallel degree.
        measured_on: the GPU of the profile, if it is another one.
        gpu_memory_utilization: share of the memory that vLLM may use.
        max_num_seqs, max_num_batched_tokens, max_model_len: limits of vLLM; None: its defaults.
    """

    model: str
    gpu: str
    tp: int = 1
    measured_on: str | None = None
    gpu_memory_utilization: float = 0.9
    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None
    max_model_len: int | None = None

    def target(self) -> Target:
        """What the law is made for.

        Raises:
            InputError: an unknown model or GPU, or GPUs that cannot share the model.
        """
        gpu = find_gpu(self.gpu)
        measured_on = gpu if self.measured_on is None else find_gpu(self.measured_on)
        return Target(find_model(self.model), gpu, self.tp, measured_on)


def fit_instance(
    profiles: Sequence[Path], wanted: Wanted, provenance: str | None = None
) -> tuple[Preset, Fit, Target]:
    """Fit an instance to a profile.

    Args:
        profiles: files that together say how long an iteration takes.
        wanted: what it shall be.
        provenance: where the figures come from; None: the names of the files.

    Raises:
        InputError: an unknown model or GPU, a file that cannot be right, or a model that does not fit.
    """
    target = wanted.target()
    model, gpu = target.model, target.gpu
    if not 0.0 < wanted.gpu_memory_utilization <= 1.0:
        raise InputError(
            "gpu_memory_utilization: expected a share above 0, at most 1, "
            f"got {wanted.gpu_memory_utilization!r}"
        )
    instance = _limits(model, gpu, wanted)
    fitted = fit(
        read_profile(profiles, target),
        Limits(
            kv_tokens=(instance["num_gpu_blocks"] - 1) * BLOCK_SIZE,
            max_num_seqs=instance["max_num_seqs"],
            max_num_batched_tokens=instance["max_num_batched_tokens"],
            max_model_len=instance["max_model_len"],
        ),
    )
    name = f"{model.name}_{gpu.name}_tp{wanted.tp}"
    preset = Preset(
        model=model.name,
        gpu=gpu.name,
        tp=wanted.tp,
        instance={
            "name": name,
            "latency": dataclasses.asdict(fitted.law),
            **instance,
            "gpus": wanted.tp,
            "cold_start_s": cold_start_s(model, wanted.tp),
            "power": {"idle_w": gpu.idle_w, "prefill_w": gpu.prefill_w, "decode_w": gpu.decode_w},
            "usd_per_gpu_hour": gpu.usd_per_hour,
        },
        provenance=provenance or f"Fitted to {', '.join(path.name for path in profiles)}.",
        gpu_provenance=gpu.source,
        fit_error=fitted.error,
        recipe=Recipe(
            profiles={path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in profiles},
            measured_on=target.measured_on.name,
            gpu_memory_utilization=wanted.gpu_memory_utilization,
        ),
    )
    return preset, fitted, target


def _limits(model: ModelShape, gpu: Gpu, wanted: Wanted) -> dict[str, int]:
    """Limits of vLLM: those given, else its defaults for a server on such a card."""
    large = gpu.memory_bytes >= 70 * 2**30 and not gpu.name.startswith("a100")
    for name in ("max_num_seqs", "max_num_batched_tokens", "max_model_len"):
        value = getattr(wanted, name)
        if value is not None and not 2 <= value <= 2**20:
            raise InputError(f"{name}: expected an integer in [2, {2**20}], got {value!r}")
    budget = wanted.max_num_batched_tokens or (8192 if large else 2048)
    seqs = wanted.max_num_seqs or min(1024 if large else 256, budget)
    if seqs > budget:
        raise InputError(f"max_num_seqs: expected at most max_num_batched_tokens ({budget}), got {seqs}")
    blocks = num_gpu_blocks(
        model,
        gpu,
        wanted.tp,
        gpu_memory_utilization=wanted.gpu_memory_utilization,
        max_num_batched_tokens=budget,
        max_num_seqs=seqs,
    )
    most = min(model.max_model_len, (blocks - 1) * BLOCK_SIZE)
    longest = wanted.max_model_len or most
    if longest > most:
        raise InputError(
            f"max_model_len: expected at most {most}, as {model.name} was made for {model.max_model_len} "
            f"tokens and the KV cache holds {(blocks - 1) * BLOCK_SIZE}; got {longest}"
        )
    return {
        "num_gpu_blocks": blocks,
        "max_num_seqs": seqs,
        "max_num_batched_tokens": budget,
        "max_model_len": longest,
    }


def find_profile(name: str) -> Path:
    """The path of a file that a recipe names.

    Raises:
        InputError: if this machine does not have it.
    """
    for folder in (LINKS, data_dir() / "profiles"):
        if (folder / name).is_file():
            return folder / name
    raise InputError(
        f"{data_dir() / 'profiles' / name}: no such file; set PRESERVE_GYM_DATA to the data folder"
    )


def profile_paths(preset: Preset) -> list[Path]:
    """The files that a preset was fitted to.

    Raises:
        InputError: if one is missing, or is another one.
    """
    paths = [find_profile(name) for name in preset.recipe.profiles]
    for path, wanted in zip(paths, preset.recipe.profiles.values(), strict=True):
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        if found != wanted:
            raise InputError(f"{path}: expected the SHA-256 {wanted[:16]}..., got {found[:16]}...")
    return paths


def target_of(preset: Preset) -> Target:
    """What the law of a preset is made for."""
    return wanted_of(preset).target()


def profile_of(preset: Preset) -> Operators | Iterations:
    """What the files that a preset was fitted to say about its iterations.

    Raises:
        InputError: if one is missing, or is another one.
    """
    return read_profile(profile_paths(preset), target_of(preset))


def refit(preset: Preset) -> tuple[Preset, Fit, Target]:
    """Fit a preset again to the files that its recipe names.

    Raises:
        InputError: if one is missing, or is another one.
    """
    return fit_instance(profile_paths(preset), wanted_of(preset), preset.provenance)


def wanted_of(preset: Preset) -> Wanted:
    """What was asked for when ``preset`` was fitted."""
    limits: dict[str, Any] = {
        name: preset.instance[name] for name in ("max_num_seqs", "max_num_batched_tokens", "max_model_len")
    }
    recipe = preset.recipe
    return Wanted(
        model=preset.model,
        gpu=preset.gpu,
        tp=preset.tp,
        measured_on=recipe.measured_on,
        gpu_memory_utilization=recipe.gpu_memory_utilization,
        **limits,
    )


def as_yaml(preset: Preset) -> str:
    """The file of a preset."""
    values = dataclasses.asdict(preset)
    return yaml.safe_dump(values, sort_keys=False, width=100, allow_unicode=True)
