"""Where a result comes from: traces with their hashes, files of one's own, versions; and what has changed."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import preserve_gym
from agents.learned_policy import model_of
from agents.saved_model import WEIGHTS
from baselines.policy_name import is_learned, label_of
from baselines.router_name import router_file
from baselines.tuned import split_tuned
from preserve_gym.config import WorkloadConfig
from preserve_gym.traces import DATASETS, Mix
from preserve_gym.traces.dataset_files import dataset_path
from preserve_gym.traces.files import content_sha256
from preserve_gym.traces.generated import GENERATED

_PACKAGES = ("gymnasium", "numba", "numpy", "pandas", "pyarrow")
_MOST_CHANGES = 4


def versions() -> dict[str, str]:
    """Of the project, of Python and of the packages that decide a result."""
    return {
        "preserve_gym": preserve_gym.__version__,
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in _PACKAGES},
    }


def trace_source(trace: str) -> dict[str, Any]:
    """What a trace is made from, with SHA-256 of each file; the data sets are looked up and compared.

    Raises:
        InputError: if one is not on this machine, or not the original.
    """
    if trace in GENERATED:
        generated = GENERATED[trace]
        for name in generated.needs:
            dataset_path(name)
        return {
            "name": trace,
            "synthesis": f"{generated.about}; drawn anew for each seed",
            "needs": {name: DATASETS[name].sha256 for name in generated.needs},
        }
    if trace in DATASETS:
        dataset_path(trace)
        return {"name": trace, "sha256": DATASETS[trace].sha256}
    path = Path(trace)
    return {"name": path.name, "sha256": content_sha256(path)}


def trace_sources(workload: WorkloadConfig) -> list[dict[str, Any]]:
    """``trace_source`` of a workload's trace and of those that its transforms mix in."""
    mixed = [transform.trace for transform in workload.transforms if isinstance(transform, Mix)]
    return [trace_source(trace) for trace in (workload.trace, *mixed)]


def own_files(policies: Sequence[str], router: str | None) -> dict[str, str]:
    """SHA-256 of the files of one's own policies, and of a router that has one, by their names."""
    paths = [Path(name.rpartition(":")[0]) for name in policies if ":" in name]
    if router is not None and (path := router_file(router)) is not None:
        paths.append(path)
    return {path.name: content_sha256(path) for path in paths}


def model_files(policies: Sequence[str], workload: WorkloadConfig) -> dict[str, dict[str, str]]:
    """Of trained models, by label: folder's name and SHA-256 of the weights.

    Raises:
        InputError: if an algorithm has no model for the workload.
    """
    plain = {name: parts.policy if (parts := split_tuned(name)) else name for name in policies}
    models = {label_of(name): model_of(of, workload) for name, of in plain.items() if is_learned(of)}
    return {
        label: {"model": folder.name, "sha256": content_sha256(folder / WEIGHTS)}
        for label, folder in models.items()
    }


def changes(
    recorded: Mapping[str, Any], present: Mapping[str, Any], words: tuple[str, str] = ("then", "now")
) -> str:
    """What differs between two configurations, in words, as ``words`` calls the two; empty: nothing."""
    found = [
        f"{name}: {was!r} {words[0]}, {now!r} {words[1]}"
        for name, was, now in _differences(recorded, present, "")
    ]
    more = len(found) - _MOST_CHANGES
    return "; ".join(found[:_MOST_CHANGES]) + (f"; and {more} more" if more > 0 else "")


def _differences(was: Any, now: Any, name: str) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(was, Mapping) and isinstance(now, Mapping):
        for key in dict.fromkeys((*was, *now)):
            inner = f"{name}.{key}" if name else str(key)
            yield from _differences(was.get(key), now.get(key), inner)
    elif isinstance(was, list) and isinstance(now, list) and len(was) == len(now):
        for k, (one, other) in enumerate(zip(was, now, strict=True)):
            yield from _differences(one, other, f"{name}[{k}]")
    elif was != now:
        yield name, was, now
