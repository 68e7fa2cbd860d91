"""Inter-token latencies of vLLM servers that others measured, beside the laws.

Run as ``python -m tests.measured_servers``: prints the table of ``docs/bring-your-own-gpu.md``. Nothing is
fitted to these figures.

* silybench (tgarg01/silybench-data, derived/csv/perf_points.csv): vLLM 0.30.0, so many requests of the same
  lengths at a time; the median of the inter-token latency.
* inference-sim (inference-sim/sim-to-real-accuracy-validation, results_iter36/error_records.csv, column
  ``actual``): vLLM V1 of early 2026, Poisson arrivals; the mean. Requests in flight are the rate times the
  end-to-end latency. 45 prompts take turns, so that prefix caching spares nearly all prefills: an A100 server
  could not compute 6 prompts a second beside its decodes at the latency measured.
"""

from __future__ import annotations

from dataclasses import dataclass

from preserve_gym import InstanceConfig


@dataclass(frozen=True)
class Server:
    """A measured server: requests in flight, and the inter-token latency in ms at each.

    ``prompt`` and ``output`` are the tokens of a request; a decode attends to the prompt and half the output.
    """

    measured_by: str
    model: str
    gpu: str
    tp: int
    prompt: int
    output: int
    itl_ms: dict[float, float]

    def predicted_ms(self, in_flight: float) -> float:
        """An iteration that decodes so many requests, by the law."""
        law = InstanceConfig.from_preset(self.model, gpu=self.gpu, tp=self.tp).latency
        context = self.prompt + self.output / 2
        return 1e3 * law.iteration_s(in_flight, in_flight * context, 0.0)

    @property
    def errors(self) -> list[float]:
        """Of the law against each measurement, in percent."""
        return [100 * (self.predicted_ms(n) / ms - 1) for n, ms in self.itl_ms.items()]


QWEN = ("silybench", "qwen3-8b", "h100", 1)
SERVERS = (
    Server(*QWEN, 128, 1024, {1: 6.86, 4: 7.01, 16: 7.53, 32: 8.11, 64: 9.49, 128: 12.00, 256: 18.08}),
    Server(*QWEN, 1024, 128, {1: 6.89, 4: 7.12, 16: 7.90, 32: 8.84, 64: 10.9, 128: 14.9, 256: 23.7}),
    Server(*QWEN, 2048, 2048, {1: 7.00, 4: 7.53, 16: 9.46, 32: 11.87, 64: 17.05, 128: 25.5}),
    Server("inference-sim", "llama-3.1-8b", "h100", 1, 566, 247, {9.1: 7.59, 19.3: 8.08}),
    Server("inference-sim", "llama-3.1-8b", "a100-80gb", 1, 562, 248, {7.7: 12.80, 21.7: 15.08}),
    Server("inference-sim", "llama-3.1-8b", "l40s", 1, 562, 248, {15.8: 26.46, 47.6: 33.22}),
    Server("inference-sim", "llama-2-70b", "h100", 4, 575, 248, {10.2: 16.44, 26.4: 17.66}),
    Server("inference-sim", "llama-2-70b", "a100-80gb", 4, 575, 248, {20.1: 32.36, 56.7: 38.09}),
)


def row_of(server: Server) -> list[str]:
    """Who measured what, at how many requests; latencies, and errors of the law."""
    least, most = min(server.itl_ms), max(server.itl_ms)
    return [
        *(server.measured_by, server.model, server.gpu, str(server.tp)),
        f"{server.prompt:,} / {server.output:,}",
        f"{least:g} to {most:g}",
        f"{server.itl_ms[least]:.1f} to {server.itl_ms[most]:.1f}",
        ", ".join(f"{error:+.0f}" for error in server.errors),
    ]


def main() -> None:
    for server in SERVERS:
        print("|", " | ".join(row_of(server)), "|")


if __name__ == "__main__":
    main()
