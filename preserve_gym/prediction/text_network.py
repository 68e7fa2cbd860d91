"""A pretrained text encoder with learned prompt vectors before its input: building, training, evaluation.

Needs PyTorch and transformers, the extra ``text``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from preserve_gym.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor, nn

HUB = "hub:"
"""Before the name of an encoder on Hugging Face's hub, which alone is downloaded."""

# Batches are formed of rows alike in length inside pools of this many batches, in random order.
_POOL_BATCHES = 50

Report = Callable[[int, int], None]
"""Is told the rows done and all rows."""


@dataclass(frozen=True)
class TextTraining:
    """Training of a text encoder.

    Attributes:
        prompt_vectors: learned vectors before the embedded prompt.
        max_tokens: of a prompt; the first ones are read.
        epochs: passes over the training requests.
        batch_size: requests in a step of AdamW.
        learning_rate: of the prompt vectors and the head, falling to 0.
        encoder_learning_rate: of the encoder itself; 0: it stays as it is.
    """

    prompt_vectors: int = 20
    max_tokens: int = 256
    epochs: int = 5
    batch_size: int = 32
    learning_rate: float = 3e-2
    encoder_learning_rate: float = 0.0


def load_encoder(source: str) -> tuple[Any, Any]:
    """Tokenizer and encoder, without its heads, from a folder or from Hugging Face's hub.

    Args:
        source: the folder of a pretrained model, or ``hub:`` and its name on the hub.

    Raises:
        InputError: if there is none, or one that does not fit here.
    """
    import torch
    from transformers import AutoModel, AutoTokenizer

    name = source.removeprefix(HUB)
    local = name == source
    if local and not (Path(name) / "config.json").is_file():
        raise InputError(
            f"encoder: expected a folder with the config.json of a pretrained model, or {HUB} and a name on "
            f"Hugging Face's hub, got {source!r}"
        )
    try:
        # Layers draw first weights even where others are then loaded.
        with quiet(), torch.random.fork_rng(devices=[]):
            encoder = AutoModel.from_pretrained(name, local_files_only=local)
            tokenizer = AutoTokenizer.from_pretrained(name, local_files_only=local)
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        problem = (str(error).strip() or repr(error)).splitlines()[0]
        raise InputError(f"encoder {source!r}: cannot be loaded ({problem})") from None
    if tokenizer.pad_token_id is None or encoder.config.is_encoder_decoder:
        raise InputError(
            f"encoder {source!r}: expected an encoder such as DistilBERT, whose tokenizer has a padding token"
        )
    return tokenizer, encoder


def build(encoder: Any, prompt_vectors: int, seed: int) -> nn.ModuleDict:
    """The encoder with prompt vectors, copies of embedded words at first, and a head of two outputs."""
    import torch
    from torch import nn

    generator = torch.Generator().manual_seed(seed)
    words = encoder.get_input_embeddings().weight.detach()
    chosen = torch.randint(len(words), (prompt_vectors,), generator=generator)
    with torch.random.fork_rng(devices=[]):
        head = nn.Linear(words.shape[1], 2)
    nn.init.normal_(head.weight, std=0.02, generator=generator)
    nn.init.zeros_(head.bias)
    vectors = nn.ParameterDict({"vectors": nn.Parameter(words[chosen].clone())})
    return nn.ModuleDict({"encoder": encoder, "prompt": vectors, "head": head})


def tokens_of(tokenizer: Any, encoder: Any, prompts: Sequence[str], training: TextTraining) -> list[NDArray]:
    """The first tokens of each prompt, int32 of any length >= 1."""
    positions = getattr(encoder.config, "max_position_embeddings", training.max_tokens * 2)
    most = min(training.max_tokens, min(positions, tokenizer.model_max_length) - training.prompt_vectors)
    if most < 1:
        raise InputError(
            f"prompt_vectors: expected fewer than the {positions} positions of the encoder, "
            f"got {training.prompt_vectors!r}"
        )
    found: list[NDArray] = []
    for start in range(0, len(prompts), 1000):
        some = list(prompts[start : start + 1000])
        ids = tokenizer(some, truncation=True, max_length=most)["input_ids"]
        # A tokenizer without special tokens makes nothing of an empty prompt.
        found += [np.array(row or [tokenizer.pad_token_id], np.int32) for row in ids]
    return found


def train(
    layers: nn.ModuleDict,
    tokens: Sequence[NDArray],
    targets: NDArray[np.float64],
    level: float,
    training: TextTraining,
    seed: int,
    report: Report,
) -> None:
    """Train the layers in place to the median and a quantile of the targets.

    Equal arguments give equal weights on one machine, and no global generator moves.

    Args:
        layers: of ``build``.
        tokens: of n requests.
        targets: float64[n].
        level: of the quantile.
        training: how.
        seed: of the order of the requests and of dropout.
        report: told after each step.

    Raises:
        InputError: if the loss is no longer finite.
    """
    import torch
    from transformers import get_linear_schedule_with_warmup

    tuned = training.encoder_learning_rate > 0.0
    groups = [{"params": [*layers["prompt"].parameters(), *layers["head"].parameters()]}]
    if tuned:
        encoder = list(layers["encoder"].parameters())
        groups.append({"params": encoder, "lr": training.encoder_learning_rate})  # type: ignore[dict-item]
    layers["encoder"].requires_grad_(tuned)
    layers["encoder"].train(tuned)
    optimizer = torch.optim.AdamW(groups, training.learning_rate, weight_decay=0.01)
    steps = training.epochs * -(-len(tokens) // training.batch_size)
    schedule = get_linear_schedule_with_warmup(optimizer, steps // 10, steps)
    levels = torch.tensor([0.5, level])
    rng = np.random.default_rng(seed)
    done = 0
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        for _ in range(training.epochs):
            for rows in _training_batches(tokens, training.batch_size, rng):
                optimizer.zero_grad()
                outputs = _outputs(layers, [tokens[row] for row in rows]).cpu()
                error = torch.from_numpy(targets[rows].astype(np.float32))[:, None] - outputs
                loss = torch.maximum(levels * error, (levels - 1.0) * error).mean()
                if not torch.isfinite(loss):
                    raise InputError(
                        "text lengths: the training diverged: expected a smaller learning_rate than "
                        f"{training.learning_rate:g} and encoder_learning_rate than "
                        f"{training.encoder_learning_rate:g}"
                    )
                loss.backward()
                torch.nn.utils.clip_grad_norm_(layers.parameters(), 1.0)
                optimizer.step()
                schedule.step()
                done += len(rows)
                report(done, training.epochs * len(tokens))
    layers.eval()


def evaluate(
    layers: nn.ModuleDict, tokens: Sequence[NDArray], batch_size: int, report: Report
) -> NDArray[np.float64]:
    """The outputs of the layers for each request, float64[n, 2]; requests alike in length go together."""
    import torch

    outputs = np.empty((len(tokens), 2))
    order = np.argsort([len(row) for row in tokens], kind="stable")
    layers.eval()
    with torch.no_grad():
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            outputs[rows] = _outputs(layers, [tokens[row] for row in rows]).cpu().numpy()
            report(start + len(rows), len(order))
    return outputs


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers from showing bars, and from reporting that heads for other tasks are left out."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _training_batches(
    tokens: Sequence[NDArray], batch_size: int, rng: np.random.Generator
) -> Iterator[NDArray[np.int64]]:
    """Every row once, in batches of rows that are alike in length, so that little is padded."""
    lengths = np.array([len(row) for row in tokens])
    order = rng.permutation(len(tokens))
    pool = _POOL_BATCHES * batch_size
    batches = []
    for start in range(0, len(order), pool):
        rows = order[start : start + pool]
        rows = rows[np.argsort(lengths[rows], kind="stable")]
        batches += [rows[k : k + batch_size] for k in range(0, len(rows), batch_size)]
    for k in rng.permutation(len(batches)):
        yield batches[k]


def _outputs(layers: nn.ModuleDict, tokens: Sequence[NDArray]) -> Tensor:
    """From the tokens of a batch to float[batch, 2]: the mean of the encoder's last states, and the head."""
    import torch

    encoder: Any = layers["encoder"]
    vectors = layers["prompt"].get_parameter("vectors")
    device = vectors.device
    ids = np.zeros((len(tokens), max(map(len, tokens))), np.int64)
    known = np.zeros(ids.shape, np.int64)
    for k, row in enumerate(tokens):
        ids[k, : len(row)] = row
        known[k, : len(row)] = 1
    mask = torch.from_numpy(known).to(device)
    words = encoder.get_input_embeddings()(torch.from_numpy(ids).to(device))
    inputs = torch.cat([vectors.expand(len(tokens), -1, -1), words], dim=1)
    attended = torch.cat([mask.new_ones(len(tokens), len(vectors)), mask], dim=1)
    states = encoder(inputs_embeds=inputs, attention_mask=attended).last_hidden_state[:, len(vectors) :]
    weight = mask[:, :, None].to(states.dtype)
    return layers["head"]((states * weight).sum(1) / weight.sum(1))
