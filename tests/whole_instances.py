"""Laws of kernels beside prompt and token times of whole instances, which no fit has seen.

Run as ``python -m tests.whole_instances`` with the data folder in ``PRESERVE_GYM_DATA``: prints the table of
``docs/bring-your-own-gpu.md``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from preserve_gym.data import data_dir
from preserve_gym.latency.instance import Wanted, fit_instance
from preserve_gym.latency.whole_check import compare, read_whole


@dataclass(frozen=True)
class Case:
    """A measured instance, and the profile of the same GPU that a law is fitted to."""

    measured_by: str
    table: str
    model: str
    gpu: str
    tp: int

    @property
    def profiles(self) -> list[str]:
        """Files in ``profiles/``."""
        layers = {"llama-2-70b": "llama-2-70b", "llama-3.1-8b": "llama-3-8b"}[self.model]
        operators = ("gemm", "context_attention", "generation_attention")
        return [
            f"vidur_mlp_{self.gpu}_{layers}.csv.gz",
            *(f"aiconfigurator_{self.gpu}_vllm-0.14.0_{name}.csv.gz" for name in operators),
            f"vidur_all_reduce_{self.gpu}_dgx.csv.gz",
        ]


CASES = (
    *(
        Case("Splitwise", "splitwise_perf_model.csv.gz", "llama-2-70b", gpu, tp)
        for gpu in ("a100", "h100")
        for tp in (2, 4, 8)
    ),
    *(
        Case("SageServe", f"sageserve_a100_llama-3.1-8b_tp{tp}.csv.gz", "llama-3.1-8b", "a100", tp)
        for tp in (2, 4)
    ),
)


def row_of(case: Case, data: Path) -> list[str]:
    """Measured and predicted ms of a prompt of 512 tokens and of one decode, and errors over all of each."""
    profiles = data / "profiles"
    wanted = Wanted(case.model, case.gpu, case.tp)
    _, fitted, target = fit_instance([profiles / name for name in case.profiles], wanted)
    table = compare(fitted.law, read_whole(profiles / case.table, target))
    table["percent"] = 100 * (table["predicted_s"] / table["measured_s"] - 1)
    prompts = table[table["region"] == "prefill_only"]
    decodes = table[table["region"] == "decode_only"]
    cells = []
    for rows, one in ((prompts, prompts["tokens"] == 512), (decodes, decodes["tokens"] == 1)):
        shown = rows[one].median(numeric_only=True)
        cells += [f"{1e3 * shown['measured_s']:.1f}", f"{1e3 * shown['predicted_s']:.1f}"]
        cells.append(f"{rows['percent'].median():+.0f}")
    return [case.measured_by, case.model, case.gpu, str(case.tp), *cells]


def main() -> None:
    for case in CASES:
        print("|", " | ".join(row_of(case, data_dir())), "|")


if __name__ == "__main__":
    main()
