"""Instances of measured models on measured GPUs, by name.

Each is a file in ``instances/`` that ``python -m preserve_gym.latency fit`` wrote, and that
``python -m preserve_gym.latency refit`` reproduces.
"""

from __future__ import annotations

import copy
import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from preserve_gym.errors import InputError
from preserve_gym.latency.gpus import gpu_name
from preserve_gym.latency.models import model_name

FOLDER = Path(__file__).parent / "instances"
DEFAULT = "llama-3.1-8b_rtx-4090_tp1"


@dataclass(frozen=True)
class FitError:
    """How far a law lies from measured iteration times, in percent.

    Mean absolute relative error over batches that the fit has not seen: all of them, those of one kind,
    and the 95th percentile over all. NaN where the profile has none of a kind.
    """

    overall: float
    decode_only: float
    prefill_only: float
    mixed: float
    p95: float


@dataclass(frozen=True)
class Recipe:
    """What a law was fitted to.

    Attributes:
        profiles: names of the files in ``profiles/`` of the data folder, or in ``links/`` here, and the
            SHA-256 of each.
        measured_on: the GPU of the profile, if it is another one; the law is then an extrapolation.
        gpu_memory_utilization: share of the memory that vLLM may use.
    """

    profiles: Mapping[str, str]
    measured_on: str
    gpu_memory_utilization: float


@dataclass(frozen=True)
class Preset:
    """An instance known by the names of its model and GPU.

    Attributes:
        model, gpu: names, lower case.
        tp: tensor-parallel degree, hence GPUs.
        instance: fields of ``InstanceConfig``.
        provenance: public source of the timings, and the method.
        gpu_provenance: where memory, power and price of the GPU come from.
        fit_error: error of the law against the profile it was fitted to.
        recipe: how to fit it again.
    """

    model: str
    gpu: str
    tp: int
    instance: Mapping[str, Any]
    provenance: str
    gpu_provenance: str
    fit_error: FitError
    recipe: Recipe

    @property
    def name(self) -> str:
        """Model, GPU and tensor-parallel degree in one word."""
        return f"{self.model}_{self.gpu}_tp{self.tp}"

    @property
    def extrapolated(self) -> bool:
        """Whether the timings are carried over from another GPU."""
        return self.recipe.measured_on != self.gpu


def preset_names() -> list[str]:
    """The presets there are, the project's default first."""
    names = sorted(path.stem for path in FOLDER.glob("*.yaml"))
    return sorted(names, key=lambda name: name != DEFAULT)


def load_preset(name: str) -> Preset:
    """The preset of that name, such as ``llama-3.1-8b_h100_tp1``; the caller may change what is in it."""
    return copy.deepcopy(_packaged(name))


@cache
def _packaged(name: str) -> Preset:
    return read_preset(FOLDER / f"{name}.yaml")


def read_preset(path: Path) -> Preset:
    """Read a file as ``fit`` writes it.

    Raises:
        InputError: if it cannot be read or lacks something.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        fields = dict(values)
        fields["fit_error"] = FitError(**values["fit_error"])
        fields["recipe"] = Recipe(**values["recipe"])
        fields["instance"] = dict(values["instance"])
        return Preset(**fields)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path}: expected a file that `fit` wrote: {' '.join(str(error).split())}"
        ) from None


def find_preset(model: str, gpu: str, tp: int = 1) -> Preset:
    """The preset of a model on ``tp`` GPUs of a kind.

    Case does not matter; common spellings such as ``meta-llama/Llama-3.1-8B-Instruct``, ``rtx4090`` or
    ``a100`` are understood.

    >>> find_preset("llama-3.1-8b", gpu="rtx-4090").instance["num_gpu_blocks"]
    2588

    Raises:
        InputError: if there is no such preset; the message lists those there are.
    """
    wanted = f"{model_name(model)}_{gpu_name(gpu)}_tp{tp}"
    names = preset_names()
    if wanted in names:
        return load_preset(wanted)

    def likeness(name: str) -> float:
        other_model, other_gpu, _ = name.split("_")
        same_model = difflib.SequenceMatcher(None, model_name(model), other_model).ratio()
        return 2 * same_model + difflib.SequenceMatcher(None, gpu_name(gpu), other_gpu).ratio()

    nearest = _describe(max(names, key=likeness))
    raise InputError(
        f"preset: nothing measured for model {model!r} on gpu {gpu!r} with tp {tp!r}; "
        f"expected one of {', '.join(map(_describe, names))} (nearest: {nearest}), "
        "or an instance of your own: python -m preserve_gym.latency fit makes one of a profile"
    )


def _describe(name: str) -> str:
    model, gpu, tp = name.split("_")
    return f"{model} on {gpu} with tp {tp.removeprefix('tp')}"
