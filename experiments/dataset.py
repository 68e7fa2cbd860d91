"""``python -m experiments.dataset``: episodes of policies as Minari datasets, for learning offline."""

from __future__ import annotations

import copy
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import gymnasium as gym
import numpy as np
from rich.console import Console

from baselines.policy_name import label_of
from experiments.policies import build_policy, policy_parameters
from experiments.provenance import versions
from experiments.recording import Recorded, Recording, record
from preserve_gym.command_line import parse, status_of
from preserve_gym.errors import InputError
from preserve_gym.scenarios import Scenario, load_scenario
from preserve_gym.workload import Workload

PROGRAM = "python -m experiments.dataset"
ENV_ID = "preserve/Autoscale-v0"


@dataclass(frozen=True)
class Options:
    """Record policies on a scenario: a Minari dataset of each, <out>/<policy>-v0."""

    scenario: str = "flash-crowd"
    """Scenario, a name or a YAML file."""
    policies: tuple[str, ...] = ("preserve",)
    """Policies, as `python -m experiments.run` knows them."""
    router: str | None = None
    """Built-in router of all policies, in place of their own."""
    action_mode: Literal["target", "delta"] = "target"
    """Actions of the dataset: the number of instances, or its change by at most 2, which the fleet then
    follows the policy by."""
    split: Literal["train", "validation", "test"] = "train"
    """Part of the recording. Episodes of train start anywhere in it; of the others the evaluation windows are
    played, one after another."""
    episodes: int = 20
    """Episodes of each policy, at most."""
    seed: int = 0
    """Of the scenario's workload, and of the first episode; each has the next one."""
    out: str | None = None
    """Namespace of the datasets. Default: preserve-gym/<scenario>. Minari keeps them in ~/.minari/datasets,
    or in the folder that MINARI_DATASETS_PATH names."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit status: 0, 1 (cannot write), 2 (bad input) or 130 (interrupted)."""

    def command() -> int:
        options: Options = parse(Options, arguments, PROGRAM)
        for dataset_id in export(options):
            print(dataset_id)
        return 0

    return status_of(command)


def export(options: Options) -> list[str]:
    """Record and write the datasets; their ids.

    Raises:
        InputError: on options that do not fit, before anything is written; or without the extra ``offline``.
    """
    minari = _minari()
    _check(options)
    scenario = load_scenario(options.scenario)
    namespace = options.out or f"preserve-gym/{scenario.name}"
    ids = {name: f"{namespace}/{label_of(name)}-v0" for name in options.policies}
    _check_ids(minari, ids.values())
    with Console(stderr=True).status("making the workload") as status:
        workload = scenario.make_workload(options.split, options.seed)
        recordings = [
            (dataset_id, _recording(options, scenario, workload, name)) for name, dataset_id in ids.items()
        ]
        for dataset_id, recording in recordings:
            status.update(f"recording {dataset_id}")
            episodes = list(record(recording))
            _write(minari, options, scenario.name, recording, episodes, dataset_id)
    return list(ids.values())


def _recording(options: Options, scenario: Scenario, workload: Workload, name: str) -> Recording:
    policy = build_policy(name, scenario.cluster, workload, scenario.name, options.router)
    workload = workload.with_predictions(policy.forecaster, policy.predictor)
    return Recording(policy, workload, options.action_mode, _seeds_and_starts(workload, options))


def _write(
    minari: Any,
    options: Options,
    scenario: str,
    recording: Recording,
    episodes: Sequence[Recorded],
    dataset_id: str,
) -> None:
    arguments, policy = recording.arguments, recording.policy
    env = gym.make(ENV_ID, **arguments | {"workload": recording.workload})
    assert env.spec is not None
    env.spec.kwargs = arguments
    watched = {"split": "validation"} if options.split == "train" else {}
    evaluated = copy.deepcopy(gym.spec(ENV_ID))
    evaluated.kwargs = arguments | {"workload": arguments["workload"] | watched}
    with warnings.catch_warnings():
        # That nobody is named as its author, and no code is linked.
        warnings.filterwarnings("ignore", message=r"`(author|author_email|code_permalink)` is set to None")
        dataset = minari.create_dataset_from_buffers(
            dataset_id,
            [_buffer(k, episode) for k, episode in enumerate(episodes)],
            env=env,
            eval_env=evaluated,
            algorithm_name=policy.name,
            description=f"The autoscaler {policy.name} on the split {options.split} of {scenario}.",
            requirements=[f"preserve-gym=={versions()['preserve_gym']}"],
        )
    about = {
        "scenario": scenario,
        "split": options.split,
        "policy": policy_parameters(policy),
        "feature_names": list(env.unwrapped.feature_names),  # type: ignore[attr-defined]
        "versions": versions(),
    }
    dataset.storage.update_metadata(about)


def _seeds_and_starts(workload: Workload, options: Options) -> list[tuple[int, float]]:
    """Seed and start of each episode."""
    seeds = range(options.seed, options.seed + options.episodes)
    if options.split == "train":
        return [(seed, workload.episode(np.random.default_rng(seed)).start_s) for seed in seeds]
    return list(zip(seeds, workload.evaluation_windows.tolist(), strict=False))


def _buffer(k: int, episode: Recorded) -> Any:
    from minari.data_collector import EpisodeBuffer

    steps = len(episode.rewards)
    return EpisodeBuffer(
        id=k,
        seed=episode.seed,
        options={"start_s": episode.start_s},
        observations=episode.observations,
        actions=episode.actions,
        rewards=episode.rewards,
        terminations=np.zeros(steps, bool),
        truncations=np.arange(1, steps + 1) == steps,
        infos=episode.infos,
    )


def _minari() -> Any:
    try:
        import h5py  # noqa: F401  (Minari asks for it late)
        import minari
    except ImportError:
        raise InputError("datasets need the extra 'offline': pip install 'preserve-gym[offline]'") from None
    return minari


def _check(options: Options) -> None:
    for name, least, most in (("episodes", 1, 100_000), ("seed", 0, 2**32)):
        value = getattr(options, name)
        if not least <= value <= most:
            raise InputError(f"--{name}: expected an integer in [{least}, {most}], got {value}")
    labels = [label_of(name) for name in options.policies]
    if not labels or len(set(labels)) < len(labels):
        raise InputError(
            f"--policies: expected policies of different names, got {' '.join(labels) or 'none'}"
        )


def _check_ids(minari: Any, ids: Any) -> None:
    """Refuse what Minari would refuse after the work is done."""
    from minari.dataset.minari_dataset import parse_dataset_id
    from minari.storage import get_dataset_path

    for dataset_id in ids:
        try:
            parse_dataset_id(dataset_id)
        except ValueError:
            raise InputError(
                "--out: expected two or more letters, digits, '-', '_' and '/', "
                f"got the dataset id {dataset_id!r}"
            ) from None
        if get_dataset_path(dataset_id).exists():
            raise InputError(
                f"--out: dataset {dataset_id} exists; choose another namespace, or "
                f"`minari delete {dataset_id}`"
            )


if __name__ == "__main__":
    sys.exit(main())
