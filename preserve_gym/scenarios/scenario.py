"""A scenario: a workload, the cluster that serves it, and what it is for."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import yaml

from preserve_gym.config import ClusterConfig, WorkloadConfig
from preserve_gym.errors import InputError, did_you_mean
from preserve_gym.scenarios.frozen import FrozenWindows, frozen_windows, trace_digest
from preserve_gym.workload import Workload

FOLDER = Path(__file__).parent
FIELDS = ("description", "workload", "cluster")


@dataclass(frozen=True)
class Scenario:
    """A workload and the cluster that it is sized for.

    Attributes:
        name: of the scenario; that of its file.
        description: what it is and what it tests, in a sentence or two.
        workload: the traffic.
        cluster: what serves it.
    """

    name: str
    description: str
    workload: WorkloadConfig
    cluster: ClusterConfig

    def make_workload(
        self, split: Literal["train", "validation", "test"] | None = None, seed: int | None = None
    ) -> Workload:
        """The workload, ready for episodes.

        A named scenario has the evaluation windows that were fixed for it. Where its own seed gives
        another trace than the one they were fixed for, as another platform may, a ``UserWarning`` says so.

        Args:
            split: which part of the recording episodes may use; None: as the workload says.
            seed: in place of that of the workload; None: that one.

        Raises:
            InputError: if the trace is not on this machine, or a split is too short.
        """
        config = replace(
            self.workload,
            split=self.workload.split if split is None else split,
            seed=self.workload.seed if seed is None else seed,
        )
        frozen = None if config.split is None else self._frozen()
        if frozen is None:
            return Workload(config)
        fixed = {"validation": frozen.validation, "test": frozen.test}
        workload = Workload(config, windows_s=fixed.get(str(config.split)))
        if config.seed == self.workload.seed and trace_digest(workload.trace) != frozen.trace_sha256:
            warnings.warn(
                f"scenario {self.name!r}: the trace differs from the one that its evaluation windows were "
                f"fixed for (SHA-256 {frozen.trace_sha256[:12]}...), as on another platform it may",
                UserWarning,
                stacklevel=2,
            )
        return workload

    def _frozen(self) -> FrozenWindows | None:
        """The windows fixed for this scenario, if it is a named one as it stands in its file."""
        frozen = frozen_windows().get(self.name)
        return frozen if frozen is not None and self == load_scenario(self.name) else None


def scenario_names() -> tuple[str, ...]:
    """Every name that ``load_scenario`` knows."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.yaml")))


def load_scenario(name_or_path: str | Path) -> Scenario:
    """A scenario by name, or from a YAML file.

    The file has a ``description``, the fields of ``WorkloadConfig`` under ``workload`` and those of
    ``ClusterConfig`` under ``cluster``; what it leaves out has its default. The instance of the cluster may
    name a measured one, with fields that differ from it beside::

        cluster:
          instance:
            preset: {model: llama-2-7b, gpu: a100-80gb, tp: 1}
            num_gpu_blocks: 2307

    Raises:
        InputError: on an unknown name, or a file that cannot be read; the message names file and field.
    """
    names = scenario_names()
    if not isinstance(name_or_path, str | Path):
        raise InputError(f"scenario: expected a YAML file or one of {', '.join(names)}, got {name_or_path!r}")
    name, path = str(name_or_path), Path(name_or_path)
    if name in names:
        return _read(FOLDER / f"{name}.yaml")
    if name and (path.suffix in (".yaml", ".yml") or path.is_file()):
        return _read(path)
    hint = did_you_mean(name, names)
    raise InputError(f"scenario {name!r}: expected a YAML file or one of {', '.join(names)}{hint}")


def scenario_of(cluster: ClusterConfig, workload: WorkloadConfig) -> Scenario | None:
    """The named scenario that these are of; None: they are of none.

    Split, seed, start, forecaster and length predictor may be other than those of the scenario.
    """
    for name in scenario_names():
        scenario = load_scenario(name)
        own = scenario.workload
        same = replace(
            workload,
            split=own.split,
            seed=own.seed,
            start_s=own.start_s,
            forecaster=own.forecaster,
            predictor=own.predictor,
        )
        if scenario.cluster == cluster and same == own:
            return scenario
    return None


def _read(path: Path) -> Scenario:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path}: expected YAML: {' '.join(str(error).split())}") from None
    try:
        if not isinstance(values, Mapping):
            raise InputError(f"expected {', '.join(FIELDS)}, got {values!r}")
        for field in values:
            if field not in FIELDS:
                raise InputError(f"{field}: no such field; expected {', '.join(FIELDS)}")
        description = values.get("description", "")
        if not isinstance(description, str):
            raise InputError(f"description: expected text, got {description!r}")
        workload, cluster = (_mapping(values, field) for field in ("workload", "cluster"))
        return Scenario(
            name=path.stem,
            description=" ".join(description.split()),
            workload=WorkloadConfig.from_mapping(workload),
            cluster=ClusterConfig.from_mapping(cluster),
        )
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _mapping(values: Mapping[str, Any], field: str) -> Mapping[str, Any]:
    value = values.get(field)
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise InputError(f"{field}: expected a mapping of its fields, got {value!r}")
    return value
