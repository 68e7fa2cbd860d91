"""Configuration of a cluster: frozen, validated once, units in the names."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from preserve_gym.config_fields import check, check_bool, check_choice, check_numbers, from_mapping, nest
from preserve_gym.errors import InputError
from preserve_gym.latency.law import LatencyLaw
from preserve_gym.traces.transform import Transform
from preserve_gym.traces.transforms import make_transform, transform_mapping

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class PowerConfig:
    """What a GPU draws, in W.

    Attributes:
        idle_w: with a model loaded, or being loaded, and no iteration running.
        prefill_w: in iterations that prefill.
        decode_w: in iterations that only decode.
    """

    idle_w: float
    prefill_w: float
    decode_w: float

    def __post_init__(self) -> None:
        for name in ("idle_w", "prefill_w", "decode_w"):
            check(self, name, 0.0, 1e6)


@dataclass(frozen=True)
class InstanceConfig:
    """One model replica on its GPU(s), with vLLM's own names for its limits.

    Attributes:
        latency: time of an iteration.
        scheduler: ``vllm`` (V1, vLLM 0.19), ``vllm_v0`` (prefill first, vLLM up to 0.7) or ``sarathi``
            (chunked prefill after Sarathi-Serve).
        num_gpu_blocks: KV-cache blocks as vLLM reports them; block 0 is its null block and is never
            handed out, so ``num_gpu_blocks - 1`` are usable.
        block_size: tokens in a block, a power of two as in vLLM.
        max_num_seqs: most requests running at once.
        max_num_batched_tokens: token budget of an iteration, decodes and prefills together; of a prefill
            batch, padded to its longest prompt (``vllm_v0``); of prefills besides decodes (``sarathi``).
        max_model_len: longest prompt plus output, in tokens.
        enable_chunked_prefill: a prompt may be split over iterations (``vllm``; ``sarathi`` always does).
        async_scheduling: iteration k+1 is scheduled when iteration k starts (vLLM's default; ``vllm`` only).
        scheduler_reserve_full_isl: admit a request only if all its known tokens fit now (vLLM's
            default; a gate, nothing is reserved; ``vllm``, the others reserve).
        long_prefill_token_threshold: longest prefill chunk of one request; 0 = no limit (``vllm``).
        watermark: share of the KV blocks that admission leaves free (``vllm_v0``, ``sarathi``).
        gpus: GPUs that the instance occupies (tensor parallelism).
        cold_start_s: from the decision to start it until it is ready: a number, or measured cold starts, at
            most 10,000, of which each start draws one.
        power: what each of its GPUs draws; None: not known.
        usd_per_gpu_hour: price of a GPU; None: not known.
        name: what it is, for tables and files.
    """

    latency: LatencyLaw
    num_gpu_blocks: int
    block_size: int = 16
    max_num_seqs: int = 256
    max_num_batched_tokens: int = 2048
    max_model_len: int = 16384
    enable_chunked_prefill: bool = True
    async_scheduling: bool = True
    scheduler_reserve_full_isl: bool = True
    long_prefill_token_threshold: int = 0
    watermark: float = 0.01
    scheduler: Literal["vllm", "vllm_v0", "sarathi"] = "vllm"
    gpus: int = 1
    cold_start_s: float | tuple[float, ...] = 60.0
    power: PowerConfig | None = None
    usd_per_gpu_hour: float | None = None
    name: str = "custom"

    def __post_init__(self) -> None:
        nest(self, "latency", LatencyLaw)
        check_numbers(self, "cold_start_s", 10_000)
        if self.power is not None:
            nest(self, "power", PowerConfig)
        if self.usd_per_gpu_hour is not None:
            check(self, "usd_per_gpu_hour", 0.0, 1e6)
        for name in ("enable_chunked_prefill", "async_scheduling", "scheduler_reserve_full_isl"):
            check_bool(self, name)
        check(self, "num_gpu_blocks", 2, 2**31 - 1, integer=True)
        check(self, "block_size", 1, 1024, integer=True)
        if self.block_size & (self.block_size - 1):
            raise InputError(
                f"InstanceConfig.block_size: expected a power of two, as vLLM has, got {self.block_size}"
            )
        check(self, "max_num_seqs", 1, 2**20, integer=True)
        check(self, "max_num_batched_tokens", 1, 2**24, integer=True)
        check(self, "max_model_len", 2, 2**28, integer=True)
        check(self, "long_prefill_token_threshold", 0, 2**24, integer=True)
        check(self, "watermark", 0.0, 0.99)
        check(self, "gpus", 1, 1024, integer=True)
        check_choice(self, "scheduler", ("vllm", "vllm_v0", "sarathi"))
        if self.async_scheduling and self.scheduler != "vllm":
            raise InputError(f"InstanceConfig.async_scheduling: expected false, as {self.scheduler} has none")
        if self.max_num_seqs > self.max_num_batched_tokens:
            raise InputError(
                f"InstanceConfig.max_num_seqs: expected at most max_num_batched_tokens "
                f"({self.max_num_batched_tokens}), got {self.max_num_seqs}"
            )

        whole_prompts = self.scheduler == "vllm_v0" or not self.enable_chunked_prefill
        if whole_prompts and self.max_num_batched_tokens < self.max_model_len:
            raise InputError(
                f"InstanceConfig.max_num_batched_tokens: expected at least max_model_len "
                f"({self.max_model_len}) without chunked prefill, got {self.max_num_batched_tokens}"
            )
        if self.kv_blocks - self.watermark_blocks < 2 and self.scheduler != "vllm":
            raise InputError(
                f"InstanceConfig.num_gpu_blocks: expected at least 2 usable blocks above the watermark, "
                f"got {self.kv_blocks - self.watermark_blocks}"
            )

    @property
    def kv_blocks(self) -> int:
        """Usable KV-cache blocks."""
        return self.num_gpu_blocks - 1

    @property
    def kv_tokens(self) -> int:
        """KV-cache capacity in tokens."""
        return self.kv_blocks * self.block_size

    @property
    def watermark_blocks(self) -> int:
        """KV blocks that admission leaves free."""
        return int(self.watermark * self.kv_blocks)

    @property
    def max_request_tokens(self) -> int:
        """Longest prompt plus output that fits; the KV entry of the last output token is never computed."""
        blocks = self.kv_blocks
        if self.scheduler != "vllm":
            # It may have to be admitted again with all it has, and each decode needs a free block.
            blocks -= max(self.watermark_blocks, 1)
        return min(self.max_model_len, blocks * self.block_size + 1)

    @classmethod
    def from_preset(cls, model: str, gpu: str, tp: int = 1, **overrides: Any) -> InstanceConfig:
        """The instance of a measured model on a measured GPU, with any field overridden.

        Raises:
            InputError: if there is no such preset; the message lists those there are.
        """
        from preserve_gym.latency.presets import find_preset

        return from_mapping(cls, {**find_preset(model, gpu, tp).instance, **overrides})

    @staticmethod
    def expand(values: Mapping[str, Any], where: str) -> Mapping[str, Any]:
        """The fields that a mapping stands for: those of the ``preset`` it names, and what differs from it.

        Raises:
            InputError: naming the field, if there is no such preset.
        """
        from preserve_gym.latency.presets import find_preset

        if "preset" not in values:
            return values
        changes = dict(values)
        preset = changes.pop("preset")
        if not isinstance(preset, Mapping) or not {"model", "gpu"} <= set(preset) <= {"model", "gpu", "tp"}:
            raise InputError(f"{where}.preset: expected model, gpu and, if it is not 1, tp, got {preset!r}")
        for name in ("model", "gpu"):
            if not isinstance(preset[name], str):
                raise InputError(f"{where}.preset.{name}: expected a name, got {preset[name]!r}")
        return {**find_preset(preset["model"], preset["gpu"], preset.get("tp", 1)).instance, **changes}

    @classmethod
    def from_file(cls, path: str | Path, **overrides: Any) -> InstanceConfig:
        """The instance in a file that ``python -m preserve_gym.latency fit`` wrote; fields can be overridden.

        Raises:
            InputError: if there is no such file, or it holds something else.
        """
        from preserve_gym.latency.presets import read_preset

        return from_mapping(cls, {**read_preset(Path(path)).instance, **overrides})


@dataclass(frozen=True)
class SloConfig:
    """Deadlines of a request; the SLO is met when every deadline that is set is met.

    * first token by ``arrival + ttft_s + ttft_per_prompt_token_s * prompt_tokens``;
    * completion by that deadline plus ``tpot_s * (output_tokens - 1)``;
    * completion by ``arrival + normalized_latency_s * output_tokens`` (PreServe's form, 0.25 s).

    ``None`` switches a deadline off; ``tpot_s`` needs ``ttft_s``. A violation counts once, when the
    first missed deadline passes. Completion exactly at a deadline complies.
    """

    ttft_s: float | None = 2.0
    ttft_per_prompt_token_s: float = 0.0
    tpot_s: float | None = 0.1
    normalized_latency_s: float | None = None

    def __post_init__(self) -> None:
        for name in ("ttft_s", "tpot_s", "normalized_latency_s"):
            if getattr(self, name) is not None:
                check(self, name, 0.0)
        check(self, "ttft_per_prompt_token_s", 0.0)
        if self.ttft_s is None and self.tpot_s is not None:
            raise InputError(
                "SloConfig.tpot_s: needs ttft_s, as its deadline starts at that of the first token"
            )
        if self.ttft_s is None and self.normalized_latency_s is None:
            raise InputError("SloConfig: expected at least one of ttft_s and normalized_latency_s")


def default_instance() -> InstanceConfig:
    """Llama-3.1-8B on one RTX 4090: kernels and KV pool measured inside vLLM 0.19."""
    return InstanceConfig.from_preset("llama-3.1-8b", gpu="rtx-4090")


@dataclass(frozen=True)
class ClusterConfig:
    """A cluster: its instances, how they start and stop, and the SLO it serves under.

    Attributes:
        instance: what each instance is; all are alike.
        slo: deadlines of a request.
        min_instances, max_instances: bounds of the autoscaler; starting, ready and draining
            instances together never exceed ``max_instances``.
        cold_start_s: from the decision to start an instance until it is ready, in place of that of
            ``instance``; None: that one.
        too_long: what happens to a request that can never fit (prompt + output above
            ``max_model_len`` or the KV pool): ``reject`` counts it as one violation,
            ``clip_prompt`` shortens its prompt until it fits.
    """

    instance: InstanceConfig = field(default_factory=default_instance)
    slo: SloConfig = field(default_factory=SloConfig)
    min_instances: int = 1
    max_instances: int = 16
    cold_start_s: float | tuple[float, ...] | None = None
    too_long: Literal["reject", "clip_prompt"] = "reject"

    def __post_init__(self) -> None:
        nest(self, "instance", InstanceConfig)
        nest(self, "slo", SloConfig)
        check(self, "min_instances", 1, 2**20, integer=True)
        check(self, "max_instances", self.min_instances, 2**20, integer=True)
        if self.cold_start_s is not None:
            check_numbers(self, "cold_start_s", 10_000)
        check_choice(self, "too_long", ("reject", "clip_prompt"))

    @property
    def cold_starts_s(self) -> tuple[float, ...]:
        """The cold starts that each start draws from; at least one."""
        chosen = self.instance.cold_start_s if self.cold_start_s is None else self.cold_start_s
        return chosen if isinstance(chosen, tuple) else (chosen,)

    @property
    def mean_cold_start_s(self) -> float:
        """What a cold start takes in the mean."""
        return math.fsum(self.cold_starts_s) / len(self.cold_starts_s)

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> ClusterConfig:
        """Build from a nested mapping, as read from YAML.

        Raises:
            InputError: naming the field and what was expected.
        """
        return from_mapping(cls, values)

    def to_mapping(self) -> dict[str, Any]:
        """The nested mapping that ``from_mapping`` reads back."""
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class WorkloadConfig:
    """Traffic and what is predicted of it.

    Attributes:
        trace: name in the catalog, or path of a trace file.
        service_scale: size of a generated service relative to the recorded one, see ``load_trace``; 1 for a
            recorded trace.
        rate_scale: factor on the request rate: superposition of shifted copies above 1, thinning below.
        transforms: further changes of the trace, transforms or mappings such as
            ``{"kind": "step", "at_s": 3600, "factor": 2}``. First come those that need the whole
            recording, then rate scaling, then the others, in their order; with ``split``, rate scaling
            and the others happen within each split by itself.
        split: which part of the recording, by time, episodes may use; None: all of it.
        split_s: end of the training part and end of the validation part, on the trace's clock after
            the transforms that need the whole recording; None: 60 % and 80 % of its span, in whole
            seconds.
        split_gap_s: time after the training part, and after the validation part, that no episode uses.
        seed: of a synthetic trace, of rate scaling and transforms, of the errors of noisy predictions,
            and of cold starts and routers that are drawn.
        warmup_s: served before the scored part, with the initial fleet, so that queues and rates are
            those of a running service.
        horizon_s: length of the scored part; None: to the end of the trace or split.
        evaluation_horizon_s: the same of the splits ``validation`` and ``test``, where episodes are
            better longer; None: ``horizon_s``.
        start_s: where on the trace's clock the scored part starts, >= ``warmup_s``; None: drawn
            at each reset, of the evaluation windows if ``split`` is ``validation`` or ``test``.
        window_s: length of a forecast window; windows lie on the trace's clock.
        forecast_windows: windows in an observation's forecast, the current one included.
        forecaster: one of ``forecasting.FORECASTERS``, or ``sktime:`` and the name of a class of sktime;
            ``noisy`` and ``oracle`` know the future. Or a ``forecasting.Forecaster`` of one's own, or a
            forecaster object of sktime.
        predictor: of output lengths, one of ``preserve_gym.prediction.PREDICTORS``. What it learns comes
            from the training part; without ``split`` from the first fifth of the requests.
    """

    trace: str = "synthetic-chat"
    service_scale: float = 1.0
    rate_scale: float = 1.0
    transforms: tuple[Transform, ...] = ()
    split: Literal["train", "validation", "test"] | None = None
    split_s: tuple[float, float] | None = None
    split_gap_s: float = 600.0
    seed: int = 0
    warmup_s: float = 300.0
    horizon_s: float | None = 3600.0
    evaluation_horizon_s: float | None = None
    start_s: float | None = None
    window_s: float = 600.0
    forecast_windows: int = 3
    forecaster: Any = "profile-ar"
    predictor: str = "noisy"

    def __post_init__(self) -> None:
        check(self, "service_scale", 1e-6, 1e6)
        check(self, "rate_scale", 1e-6, 1e6)
        self._make_transforms()
        if self.split is not None:
            check_choice(self, "split", SPLITS)
        if self.split_s is not None:
            self._check_split_s()
        check(self, "split_gap_s", 0.0, 1e9)
        check(self, "seed", 0, 2**63 - 1, integer=True)
        check(self, "warmup_s", 0.0, 1e9)
        for name in ("horizon_s", "evaluation_horizon_s"):
            if getattr(self, name) is not None:
                check(self, name, 1e-3, 1e9)
        if self.start_s is not None:
            check(self, "start_s", self.warmup_s, 1e9)
        check(self, "window_s", 1.0, 1e9)
        check(self, "forecast_windows", 1, 1000, integer=True)

    def _make_transforms(self) -> None:
        if isinstance(self.transforms, (str, Mapping)) or not isinstance(self.transforms, Sequence):
            raise InputError(
                "WorkloadConfig.transforms: expected a list of transforms or of mappings, "
                f"got {self.transforms!r}"
            )
        made = []
        for k, transform in enumerate(self.transforms):
            try:
                made.append(make_transform(transform))
            except InputError as error:
                raise InputError(f"WorkloadConfig.transforms[{k}]: {error}") from None
        object.__setattr__(self, "transforms", tuple(made))

    def _check_split_s(self) -> None:
        given = self.split_s
        check_numbers(self, "split_s", 2)
        ends = self.split_s
        if not isinstance(ends, tuple) or len(ends) != 2 or not 0.0 < ends[0] < ends[1]:
            raise InputError(
                "WorkloadConfig.split_s: expected the end of training and the later one of validation, "
                f"in s, got {given!r}"
            )

    @property
    def scored_s(self) -> float | None:
        """Length of the scored part in the config's split; None: to the end of the trace or split."""
        if self.split in ("validation", "test") and self.evaluation_horizon_s is not None:
            return self.evaluation_horizon_s
        return self.horizon_s

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> WorkloadConfig:
        """Build from a mapping, as read from YAML.

        Raises:
            InputError: naming the field and what was expected.
        """
        return from_mapping(cls, values)

    def to_mapping(self) -> dict[str, Any]:
        """The mapping that ``from_mapping`` reads back.

        Raises:
            InputError: on a transform or a forecaster of the user's own, which has no name.
        """
        if not isinstance(self.forecaster, str):
            raise InputError(f"WorkloadConfig.forecaster: expected a name, got {self.forecaster!r}")
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        values["transforms"] = [transform_mapping(transform) for transform in self.transforms]
        values["split_s"] = None if self.split_s is None else list(self.split_s)
        return values


@dataclass(frozen=True)
class AnticipatorConfig:
    """PreServe's look-ahead map of each instance, as ``preserve_gym.sim.anticipator`` has it.

    Attributes:
        variant: ``paper`` or ``artifact``.
        look_ahead: length of the look-ahead window in iterations: 100 in PreServe's paper, 200 in its
            artifact.
        overload_use: KV use above which the map counts as overload.
    """

    variant: Literal["paper", "artifact"] = "paper"
    look_ahead: int = 100
    overload_use: float = 0.95

    def __post_init__(self) -> None:
        check_choice(self, "variant", ("paper", "artifact"))
        check(self, "look_ahead", 1, 2**20, integer=True)
        check(self, "overload_use", 0.0, 1e9)


@dataclass(frozen=True)
class RewardConfig:
    """Weights of the reward of ``Autoscale`` and ``Cluster``; formula: ``preserve_gym.envs.scale_reward``.

    Attributes:
        scale: of the whole, so that returns suit common learners.
        violation_weight: cost of violating every request, in units of the cost of the largest fleet; or a
            lowest and a highest one > 0, between which each reset draws, evenly in the logarithm. The weight
            is observed, so that one policy can learn a whole front of cost against attainment.
        baseline_headroom: the subtracted baseline cost, as a multiple of the forecast need; it does
            not depend on the actions.
    """

    scale: float = 0.05
    violation_weight: float | tuple[float, float] = 8.0
    baseline_headroom: float = 1.3

    def __post_init__(self) -> None:
        check_numbers(self, "violation_weight", 2)
        if isinstance(pair := self.violation_weight, tuple) and not (
            len(pair) == 2 and 0 < pair[0] <= pair[1]
        ):
            raise InputError(
                "RewardConfig.violation_weight: expected a number, or the lowest and the highest one, "
                f"above 0, got {pair!r}"
            )
        for name in ("scale", "baseline_headroom"):
            check(self, name, 0.0, 1e9)

    @property
    def violation_weights(self) -> tuple[float, float]:
        """The lowest and the highest violation weight."""
        weight = self.violation_weight
        return weight if isinstance(weight, tuple) else (weight, weight)


@dataclass(frozen=True)
class RouteRewardConfig:
    """Weights of the reward of ``Route``; ``preserve_gym.envs.route_reward`` gives the formula.

    Attributes:
        scale: of the whole, so that returns suit common learners.
        violation_weight: cost of a violation, in latencies of an unloaded request.
    """

    scale: float = 0.05
    violation_weight: float = 5.0

    def __post_init__(self) -> None:
        for name in ("scale", "violation_weight"):
            check(self, name, 0.0, 1e9)
