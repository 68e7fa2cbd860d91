"""The public data sets by name."""

from __future__ import annotations

from preserve_gym.traces.dataset import Dataset

_CC_BY = "CC BY 4.0"
_APACHE = "Apache-2.0"
_MIT = "MIT"

_PATEL = 'Patel et al., "Splitwise: Efficient Generative LLM Inference Using Phase Splitting", ISCA 2024'
_STOJKOVIC = (
    'Stojkovic et al., "DynamoLLM: Designing LLM Inference Clusters for Performance and Energy '
    'Efficiency", HPCA 2025'
)
_QIN = (
    'Qin et al., "Mooncake: Trading More Storage for Less Computation - A KVCache-centric Architecture for '
    'Serving LLM Chatbot", FAST 2025'
)
_WANG = 'Wang et al., "BurstGPT: A Real-World Workload Dataset to Optimize LLM Serving Systems", KDD 2025'
_XIANG = (
    'Xiang et al., "ServeGen: Workload Characterization and Generation of Large Language Model Serving in '
    'Production", arXiv 2505.09999'
)
_AGRAWAL = 'Agrawal et al., "Vidur: A Large-Scale Simulation Framework For LLM Inference", MLSys 2024'
_SHARERS = "ShareGPT (conversations that users of ChatGPT shared) and the project of the source"

_COPY = "copy it from a data folder that has it"
_OWN = f"it was made for this project and is not published; {_COPY}"


def _raw(repository: str, commit: str, path: str) -> str:
    """Address of a file on GitHub at one commit."""
    return f"https://raw.githubusercontent.com/{repository}/{commit}/{path}"


def _source(repository: str, commit: str, path: str) -> str:
    return f"github.com/{repository}, {path}, commit {commit}"


def _azure_2023(service: str, rows: int, size_bytes: int, sha256: str) -> Dataset:
    original = f"AzureLLMInferenceTrace_{service}.csv"
    place = ("Azure/AzurePublicDataset", "b469a113cedca53ddc3bdea71a143dc4b7d8700c", f"data/{original}")
    return Dataset(
        files=(f"azure_llm_2023_{service}.csv.gz", original, f"{original}.gz"),
        holds="requests",
        source=_source(*place),
        url=_raw(*place),
        licence=_CC_BY,
        citation=_PATEL,
        rows=rows,
        size_bytes=size_bytes,
        sha256=sha256,
    )


def _azure_2024(service: str, rows: int, size_bytes: int, sha256: str) -> Dataset:
    original = f"AzureLLMInferenceTrace_{service}_1week.csv"
    return Dataset(
        files=(f"azure_llm_2024_{service}.csv.gz", original, f"{original}.gz"),
        holds="requests",
        source=f"github.com/Azure/AzurePublicDataset, {original} of the release dataset-llm-2024",
        url=f"https://github.com/Azure/AzurePublicDataset/releases/download/dataset-llm-2024/{original}",
        licence=_CC_BY,
        citation=_STOJKOVIC,
        rows=rows,
        size_bytes=size_bytes,
        sha256=sha256,
    )


def _mooncake(part: str, rows: int, size_bytes: int, sha256: str) -> Dataset:
    original = f"{part}_trace.jsonl"
    place = (
        "kvcache-ai/Mooncake",
        "3b5a594133958449a1feaf1c9e0fc1b553e34a28",
        f"FAST25-release/traces/{original}",
    )
    return Dataset(
        files=(f"mooncake_{part}.jsonl.gz", original, f"{original}.gz"),
        holds="requests",
        source=_source(*place),
        url=_raw(*place),
        licence=_APACHE,
        citation=_QIN,
        rows=rows,
        size_bytes=size_bytes,
        sha256=sha256,
    )


def _servegen(model: str, clients: int, size_bytes: int, sha256: str) -> Dataset:
    folder = f"data/language/{model}"
    commit = _SERVEGEN_COMMIT
    return Dataset(
        files=(f"servegen_{model}_traces.tar.gz", f"servegen_{model}_traces.tar"),
        holds="client windows",
        source=_source("alibaba/ServeGen", commit, f"{folder}/chunk-0-trace.csv to {clients - 1}"),
        url=_raw("alibaba/ServeGen", commit, folder + "/chunk-{client}-trace.csv"),
        licence=_APACHE,
        citation=_XIANG,
        rows=clients * 2_016,
        size_bytes=size_bytes,
        sha256=sha256,
        clients=clients,
    )


def _lengths(file: str, place: tuple[str, str, str], rows: int, size_bytes: int, sha256: str) -> Dataset:
    return Dataset(
        files=(f"{file}.csv.gz", place[2].rpartition("/")[2]),
        holds="lengths",
        source=_source(*place),
        url=_raw(*place),
        licence=_MIT,
        citation=_SHARERS if place[0] == _SHAREGPT else _AGRAWAL,
        rows=rows,
        size_bytes=size_bytes,
        sha256=sha256,
    )


_SERVEGEN_COMMIT = "f891d1189eb32b3868dfc443800c4150548c282a"
_AZURE_PLOTS = (
    "Azure/AzurePublicDataset",
    "b469a113cedca53ddc3bdea71a143dc4b7d8700c",
    "analysis/AzureLLMInferenceDataset2024.ipynb",
)
_AZURE_HOURLY = (
    "zhuyuxin0/dcflex",
    "6c6e8bd8818f65c8b4f406510d4b96e23fb32d49",
    "experiments/data/azure_llm_utc.csv",
)
_BURSTGPT = ("HPMLL/BurstGPT", "8345c824bf744e21692186af2835521ba75e5f6d", "data/BurstGPT_1.csv")
_BURSTGPT_HOURLY = (
    "diegohommer/tcc-offloading-ai-edge",
    "97abc7a44221ccedc76e8918315ed2f42a6a8eb1",
    "implementation/data/load_traces/burstgpt_hourly.csv",
)
_BURSTGPT_ANALYSIS = (
    "IsabellaLiu99/burstgpt_analysis",
    "745962caeb2aea0435760f79a1a0e1fec1217c58",
    "burstgpt_analysis.json inside 'data used.zip'",
)
_BURSTGPT_ZIPPED = f"it is published only as JSON inside a zip file, of which it is a table; {_COPY}"
_SHAREGPT = "AKafakA/vidur_opt_scheduler"

DATASETS: dict[str, Dataset] = {
    "azure-2023-conv": _azure_2023(
        "conv", 19_366, 719_188, "2f1e5b666d4e3055fdbba98598ce2ec307767b9064e03e2fa46676dbcc7d0bf8"
    ),
    "azure-2023-code": _azure_2023(
        "code", 8_819, 320_117, "54e9a6d2a4bd06ba1e060304b900abbc74cbea53de96506e60fe5bb4f2277fb6"
    ),
    # Microsoft prints the numbers of rows only; sizes and checksums are those that several projects which
    # downloaded the files record, and agree on. So it is for BurstGPT.
    "azure-2024-conv": _azure_2024(
        "conv",
        27_303_999,
        1_135_195_393,
        "a0cc9b969a9bbf0fd811802cbf4323edd3a209ace791e3799ad4f9207f213941",
    ),
    "azure-2024-code": _azure_2024(
        "code", 16_803_695, 691_989_454, "71de5c55cbc35f8f1ed0b6b7806b4cd1e9764b0058469725a6aac98023a1448f"
    ),
    "burstgpt": Dataset(
        files=("burstgpt_1.csv.gz", "BurstGPT_1.csv", "BurstGPT_1.csv.gz"),
        holds="requests",
        source=_source(*_BURSTGPT),
        url=_raw(*_BURSTGPT),
        licence=_CC_BY,
        citation=_WANG,
        rows=1_429_737,
        size_bytes=50_853_373,
        sha256="46fc9480ef0b748ecb2b51d512ff08c196b031782cbe6f78e28044d768e86d5a",
    ),
    "mooncake-conversation": _mooncake(
        "conversation",
        12_031,
        3_029_533,
        "b8cbb061a85206d729d91cdc2981f43c9e0d99209dce588d3af5f7934408b9df",
    ),
    "mooncake-synthetic": _mooncake(
        "synthetic", 3_993, 1_136_313, "bd070915a98fc0ed264d7cfef2ce746002eb3076a695ec31ba2674c0111ec131"
    ),
    "azure-2024-hourly": Dataset(
        files=("azure_llm_2024_hourly.csv.gz", "azure_llm_utc.csv"),
        holds="window counts",
        kind="aggregate",
        made=(
            "the authors of the source summed azure-2024-conv and azure-2024-code over each hour of one "
            "nominal week, Friday and Saturday a week apart in the two; the hours are in UTC+4"
        ),
        source=_source(*_AZURE_HOURLY),
        url=_raw(*_AZURE_HOURLY),
        licence=_CC_BY,
        citation=_STOJKOVIC,
        rows=168,
        size_bytes=11_739,
        sha256="d72873d90e3246254354e04e349458e9065e2a39e355ae8aebd9001efc6f72b5",
    ),
    "azure-2024-10min": Dataset(
        files=("azure_llm_2024_10min.csv.gz", "azure_llm_2024_10min.csv"),
        holds="window counts",
        kind="estimate",
        made=(
            "azure-2024-hourly, split over 10-minute windows by the rates and tokens read off Microsoft's "
            "plots; requests per hour are exact, those of a window are off by about 2 %, tokens are estimated"
        ),
        source=_source(*_AZURE_PLOTS) + ", and azure-2024-hourly",
        url=None,
        no_url=_OWN,
        licence=_CC_BY,
        citation=_STOJKOVIC,
        rows=2_016,
        size_bytes=114_335,
        sha256="809facc7ba6fc7e94c87a9588aa90132aa00ab03350d7438d7ce9be2744ef9ea",
    ),
    "azure-2024-length-percentiles": Dataset(
        files=("azure_llm_2024_length_percentiles.csv.gz", "azure_llm_2024_length_percentiles.csv"),
        holds="quantiles",
        kind="estimate",
        made=(
            "read off Microsoft's plots of the distributions of prompt and output tokens, to 18 and 11 "
            "tokens; output below about 20 tokens is not resolved"
        ),
        source=_source(*_AZURE_PLOTS),
        url=None,
        no_url=_OWN,
        licence=_CC_BY,
        citation=_STOJKOVIC,
        rows=396,
        size_bytes=10_542,
        sha256="6fe657bf7581a2f6fcd5f10f5233d2d6d44caeff5fa38fbf0c18316c4ddaa251",
    ),
    "burstgpt-hourly": Dataset(
        files=("burstgpt_hourly.csv.gz", "burstgpt_hourly.csv"),
        holds="window counts",
        kind="aggregate",
        made="the authors of the source counted the requests of burstgpt in each hour of its 61 days",
        source=_source(*_BURSTGPT_HOURLY),
        url=_raw(*_BURSTGPT_HOURLY),
        licence=_CC_BY,
        citation=_WANG,
        rows=1_464,
        size_bytes=22_918,
        sha256="36b5fef1fff0588b9fa78b44ac8364c03f5ad0d7311b7d77cea5e47fbb3057e4",
    ),
    "burstgpt-daily": Dataset(
        files=("burstgpt_daily.csv.gz", "burstgpt_daily.csv"),
        holds="window counts",
        kind="aggregate",
        made="the authors of the source summed requests and tokens of burstgpt over each of its 61 days",
        source=_source(*_BURSTGPT_ANALYSIS) + " (which has no licence of its own)",
        url=None,
        no_url=_BURSTGPT_ZIPPED,
        licence=_CC_BY,
        citation=_WANG,
        rows=61,
        size_bytes=1_058,
        sha256="2e7e855538e2671891b5bd1a4456816f1f9d5f4548eb992d6776b8c0f7e74be7",
    ),
    "burstgpt-minute": Dataset(
        files=("burstgpt_week1_minute.csv.gz", "burstgpt_week1_minute.csv"),
        holds="window counts",
        kind="aggregate",
        made=(
            "the authors of the source averaged the tokens/s of burstgpt over each minute of its first week, "
            "rounded to 0.1; minutes without a request are left out"
        ),
        source=_source(*_BURSTGPT_ANALYSIS) + " (which has no licence of its own)",
        url=None,
        no_url=_BURSTGPT_ZIPPED,
        licence=_CC_BY,
        citation=_WANG,
        rows=6_366,
        size_bytes=62_702,
        sha256="6c72ada5c410e9b7dc8b91a84c02411a7f23f2131e800771f5425933cf6d458d",
    ),
    "servegen-m-large": _servegen(
        "m-large", 162, 12_451_773, "0e5779f65af647978ea595758ddbcdefb9cd0a72935a33c5d295f292a874c93e"
    ),
    "servegen-m-mid": _servegen(
        "m-mid", 109, 11_127_976, "5f359271cf4acf9a5014c4d7dea7f5842fe2ce90199d1cfbd284dc6bb805df35"
    ),
    "servegen-m-small": _servegen(
        "m-small", 43, 4_279_105, "921cb2584a21a8133430e605f7acea5ccb836853182fb91363084ea07b36be18"
    ),
    "servegen-10min": Dataset(
        files=("servegen_10min.csv.gz", "servegen_10min.csv"),
        holds="window counts",
        kind="estimate",
        made=(
            "the client windows summed over clients: requests are exact; tokens are requests times the "
            "client's mean length of those 6 hours, or that of all clients where its lengths were not at hand"
        ),
        source=_source("alibaba/ServeGen", _SERVEGEN_COMMIT, "data/language"),
        url=None,
        no_url=_OWN,
        licence=_APACHE,
        citation=_XIANG,
        rows=6_048,
        size_bytes=333_187,
        sha256="7a646bd2fc03354f69163c0a05896e25984aebda415a056e1ce66c40244c02f7",
    ),
    "servegen-length-quantiles": Dataset(
        files=("servegen_length_quantiles.csv.gz", "servegen_length_quantiles.csv"),
        holds="quantiles",
        kind="aggregate",
        made=(
            "quantiles of the published distributions of tokens of each client and 6 hours; 55 of the 314 "
            "clients, with the most varied lengths, are missing"
        ),
        source=_source("alibaba/ServeGen", _SERVEGEN_COMMIT, "data/language, files chunk-<i>-dataset.json"),
        url=None,
        no_url=_OWN,
        licence=_APACHE,
        citation=_XIANG,
        rows=14_502,
        size_bytes=1_792_822,
        sha256="390aa3be2da69b59b110e8d87337ca83ba786da6eb37197844cb1b261a3673e0",
    ),
    "sharegpt-58k": _lengths(
        "sharegpt_lengths_v3_58k",
        (
            _SHAREGPT,
            "91c9e1f6c83f26a2fa7c47e6a8c24c458c9bb734",
            "data/processed_traces/sharegpt_V3_format_lens.csv",
        ),
        58_000,
        1_619_683,
        "7c658696a320c9ebfda8b149616532931ea6967279e26318d9afe2ab0aecf05a",
    ),
    "sharegpt-10k": _lengths(
        "sharegpt_lengths_val_10k",
        (
            _SHAREGPT,
            "20bdc49d6c1d23de84c9d4e7a8626ea33fe498f4",
            "data/trace_data/sharegpt/sharegpt_val_10k_llama2.csv",
        ),
        10_000,
        278_423,
        "e8eb6769b07f47a44fcb8caecf78dfc247103d65f84c4053bd9ae593caa01c63",
    ),
    "sharegpt-predicted": _lengths(
        "sharegpt_lengths_predicted_40k",
        (
            _SHAREGPT,
            "845f97cab98968fc9c1c2635c1d7feca7f98bf67",
            "data/processed_traces/sharegpt-val-10k-predicted-len.csv",
        ),
        40_000,
        1_260_189,
        "2223d94500106aeacf8f3a5f313ad24caa018cf28d89678a8276a6bcf0883915",
    ),
    "arxiv-summarization": _lengths(
        "vidur_arxiv_summarization",
        (
            "microsoft/vidur",
            "7d47513363ec447a741ac5e47241580b47724fbf",
            "data/processed_traces/arxiv_summarization_stats_llama2_tokenizer_filtered_v2.csv",
        ),
        28_257,
        884_932,
        "9d3580538d915ca75e4aaaa54590b42dbb17abc6d74c8913310cf07c232adcdc",
    ),
}
