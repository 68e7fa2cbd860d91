"""Requests whose output length depends on the words of their prompts, and a tiny encoder of these words."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from preserve_gym.traces import Trace

TASKS = {
    4.0: ("who", "when", "where", "which", "date", "name", "number", "true"),
    4.6: ("list", "items", "options", "bullet", "names", "examples", "top", "ranked"),
    5.2: ("summarise", "article", "paper", "abstract", "points", "gist", "report", "digest"),
    5.6: ("explain", "why", "how", "theory", "reason", "concept", "proof", "works"),
    6.2: ("write", "story", "essay", "chapter", "poem", "letter", "scene", "draft"),
}
"""Words that go with a task, by the logarithm of the length of what comes, in tokens."""
MANNERS = {
    -0.6: ("briefly", "short", "concise", "quick"),
    0.0: ("please", "thanks", "kindly", "hello"),
    0.5: ("thorough", "detailed", "complete", "long"),
}
"""Words that go with a manner, by what it adds to the logarithm."""
FILLERS = (
    "the",
    "a",
    "of",
    "in",
    "on",
    "at",
    "to",
    "with",
    "and",
    "or",
    "is",
    "it",
    "this",
    "that",
    "for",
    "by",
)
SIGMA = 0.25
"""Standard deviation of what no word tells of the logarithm."""


def prompt_requests(count: int, seed: int = 0) -> tuple[Trace, list[str]]:
    """A trace of four requests per second, and the prompt of each.

    A prompt mixes words of one task, of one manner and without meaning. The output's length is log-normal
    round what task and manner say; it also grows with the prompt, and class 1 gets longer answers, so that
    there is something to learn without the text.
    """
    rng = np.random.default_rng(seed)
    request_class = rng.integers(0, 2, count)
    logs = 0.4 * request_class + SIGMA * rng.standard_normal(count)
    prompts = []
    for k in range(count):
        task, manner = (float(rng.choice(list(kinds))) for kinds in (TASKS, MANNERS))
        words = [
            *rng.choice(TASKS[task], rng.integers(3, 7)),
            *rng.choice(MANNERS[manner], rng.integers(2, 4)),
            *rng.choice(FILLERS, rng.integers(2, 12)),
        ]
        logs[k] += task + manner + 0.03 * len(words)
        prompts.append(" ".join(rng.permutation(words)))
    arrival_s = np.cumsum(rng.exponential(0.25, count))
    prompt_tokens = [prompt.count(" ") + 1 for prompt in prompts]
    output_tokens = np.rint(np.exp(logs)).astype(np.int32)
    return Trace(arrival_s, prompt_tokens, output_tokens, request_class, name="prompts"), prompts


def known_lengths(prompts: list[str]) -> NDArray[np.int32]:
    """Medians of the lengths, for who knows what each word adds but not the class, int32[n]."""
    logs = []
    for prompt in prompts:
        words = prompt.split()
        known = [log for kinds in (TASKS, MANNERS) for log, some in kinds.items() if {*some} & {*words}]
        logs.append(0.2 + sum(known) + 0.03 * len(words))
    return np.rint(np.exp(logs)).astype(np.int32)


def write_prompts(path: Path, trace: Trace, prompts: list[str]) -> None:
    """The requests as a CSV file of the project's own format with a column ``prompt``."""
    columns = {
        "arrival_s": trace.arrival_s,
        "prompt_tokens": trace.prompt_tokens,
        "output_tokens": trace.output_tokens,
        "class": trace.request_class,
        "prompt": prompts,
    }
    known = {name: column for name, column in columns.items() if column is not None}
    pd.DataFrame(known).to_csv(path, index=False)


def tiny_encoder(folder: Path, seed: int = 0) -> Path:
    """A DistilBERT of two layers in ``folder``, which has a token for each word and random weights."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import DistilBertConfig, DistilBertForMaskedLM, PreTrainedTokenizerFast

    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    words = [*special.values(), *chain(*TASKS.values(), *MANNERS.values()), *FILLERS]
    tokenizer = Tokenizer(models.WordLevel({word: k for k, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    config = DistilBertConfig(
        vocab_size=len(words), dim=48, n_layers=2, n_heads=4, hidden_dim=96, max_position_embeddings=64
    )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        # With its head for masked words, as encoders are published.
        DistilBertForMaskedLM(config).save_pretrained(folder)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=64, **special)
    fast.save_pretrained(folder)
    return folder
