"""GPUs: memory, peak rates, power and price."""

from __future__ import annotations

import dataclasses
import difflib
import math
from dataclasses import dataclass, fields
from pathlib import Path

import yaml

from preserve_gym.errors import InputError
from preserve_gym.latency.models import tidy


@dataclass(frozen=True)
class Gpu:
    """A card.

    Attributes:
        name: lower case.
        memory_bytes: as CUDA reports it, a little less than the data sheet.
        bandwidth: of its memory, bytes/s, from the data sheet.
        flops: dense bfloat16 operations/s with float32 accumulation, from the data sheet.
        idle_w, prefill_w, decode_w: what it draws with a model loaded and nothing to do, while prompts are
            computed, and while it only decodes, in W.
        usd_per_hour: what an hour of it costs on demand.
        source: where the figures come from.
    """

    name: str
    memory_bytes: int
    bandwidth: float
    flops: float
    idle_w: float
    prefill_w: float
    decode_w: float
    usd_per_hour: float
    source: str

    def roofline_s(self, flops: float, moved_bytes: float) -> float:
        """The least time for so many operations on so many bytes, s."""
        return max(flops / self.flops, moved_bytes / self.bandwidth)


_RUNPOD = "price: RunPod secure cloud, autumn of 2026"

GPUS: tuple[Gpu, ...] = (
    Gpu(
        name="a100-80gb",
        memory_bytes=84_987_740_160,
        bandwidth=2.039e12,
        flops=312e12,
        idle_w=75,
        prefill_w=400,
        decode_w=250,
        usd_per_hour=1.79,
        source=f"A100-SXM4-80GB; power: Splitwise, Llama-2-70B on four, decodes 240 to 320 W; {_RUNPOD}",
    ),
    Gpu(
        name="h100",
        memory_bytes=85_017_755_648,
        bandwidth=3.35e12,
        flops=989e12,
        idle_w=120,
        prefill_w=690,
        decode_w=560,
        usd_per_hour=3.99,
        source=f"H100 SXM 80GB; power: ML.ENERGY, 486 W with 8 requests to 691 with 256; {_RUNPOD}",
    ),
    Gpu(
        name="h200",
        memory_bytes=150_109_880_320,
        bandwidth=4.8e12,
        flops=989e12,
        idle_w=120,
        prefill_w=690,
        decode_w=560,
        usd_per_hour=4.59,
        source=f"H200 SXM 141GB; power assumed to be the H100's, which has the same limit; {_RUNPOD}",
    ),
    Gpu(
        name="l40s",
        memory_bytes=47_677_177_856,
        bandwidth=0.864e12,
        flops=362e12,
        idle_w=90,
        prefill_w=345,
        decode_w=260,
        usd_per_hour=1.09,
        source=f"L40S 48GB; power: idle seen, the rest assumed; {_RUNPOD}",
    ),
    Gpu(
        name="rtx-4090",
        memory_bytes=25_250_627_584,
        bandwidth=1.008e12,
        flops=165e12,
        idle_w=30,
        prefill_w=430,
        decode_w=320,
        usd_per_hour=0.74,
        source=f"GeForce RTX 4090 24GB, memory as in LLMServingSim's run; power assumed; {_RUNPOD}",
    ),
    Gpu(
        name="rtx-pro-6000",
        memory_bytes=101_976_440_832,
        bandwidth=1.792e12,
        flops=504e12,
        idle_w=85,
        prefill_w=590,
        decode_w=450,
        usd_per_hour=1.80,
        source="RTX PRO 6000 Blackwell 96GB; power: idle seen, the rest assumed; price: Nebius, 2026",
    ),
)
"""Memory as CUDA reports it; bandwidth and arithmetic from NVIDIA's data sheets; power with a model loaded.
Prices differ between clouds by a factor of three and more: set your own."""

_ALIASES = {
    "a100": "a100-80gb",
    "a100-80g": "a100-80gb",
    "a100-sxm": "a100-80gb",
    "a100-sxm-80gb": "a100-80gb",
    "a100-sxm4-80gb": "a100-80gb",
    "h100-sxm": "h100",
    "h100-80gb": "h100",
    "h100-80gb-hbm3": "h100",
    "h100-sxm5-80gb": "h100",
    "h200-sxm": "h200",
    "h200-141gb": "h200",
    "rtx4090": "rtx-4090",
    "4090": "rtx-4090",
    "rtxpro6000": "rtx-pro-6000",
    "pro-6000": "rtx-pro-6000",
    "rtx-pro-6000-blackwell": "rtx-pro-6000",
    "rtx-pro-6000-blackwell-server-edition": "rtx-pro-6000",
    "rtx-pro-6000-blackwell-workstation-edition": "rtx-pro-6000",
}


def gpu_name(name: str) -> str:
    """The short name of a GPU: ``NVIDIA A100-SXM4-80GB`` is ``a100-80gb``."""
    short = tidy(name).removeprefix("nvidia-").removeprefix("geforce-")
    return _ALIASES.get(short, short)


def find_gpu(name: str) -> Gpu:
    """The GPU of that name, or of a YAML file with the fields of ``Gpu``.

    Raises:
        InputError: if it is not known; the message lists those there are and says how to add one.
    """
    if Path(name).suffix in (".yaml", ".yml"):
        return _read(Path(name))
    short = gpu_name(name)
    for gpu in GPUS:
        if gpu.name == short:
            return gpu
    known = [gpu.name for gpu in GPUS]
    near = difflib.get_close_matches(short, known, n=1, cutoff=0.0)[0]
    raise InputError(
        f"gpu {name!r}: not known; expected one of {', '.join(known)} (nearest: {near}), "
        f"or the path of a YAML file with {', '.join(field.name for field in fields(Gpu))}"
    )


def _read(path: Path) -> Gpu:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        gpu = Gpu(**values)
    except (OSError, yaml.YAMLError, TypeError, ValueError) as error:
        wanted = ", ".join(field.name for field in fields(Gpu))
        raise InputError(
            f"{path}: expected a YAML file with {wanted}: {' '.join(str(error).split())}"
        ) from None
    numbers: dict[str, float] = {}
    for field in fields(Gpu):
        value = getattr(gpu, field.name)
        if field.name in ("name", "source"):
            continue
        number = _number(value)
        if number is None:
            raise InputError(f"{path}: {field.name}: expected a number > 0, got {value!r}")
        numbers[field.name] = number
    name = gpu_name(gpu.name).replace("/", "-")
    if not name:
        raise InputError(f"{path}: name: expected a name, got {gpu.name!r}")
    return dataclasses.replace(gpu, name=name, **numbers)  # type: ignore[arg-type]


def _number(value: object) -> float | None:
    """The number > 0 that it is, if it is one; YAML takes ``312e12`` for text."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value) if isinstance(value, str) else value
    except ValueError:
        return None
    return number if 0 < number < math.inf else None
