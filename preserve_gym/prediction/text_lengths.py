"""A length predictor that reads the prompts: a pretrained text encoder with prompt tuning."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike

from preserve_gym.errors import InputError, missing_extra
from preserve_gym.prediction.learned_lengths import MIN_ROWS
from preserve_gym.prediction.lengths import LengthPrediction
from preserve_gym.prediction.text_network import (
    Report,
    TextTraining,
    build,
    evaluate,
    load_encoder,
    quiet,
    tokens_of,
    train,
)
from preserve_gym.streams import check_seed

if TYPE_CHECKING:
    from torch import nn

# Share of the training requests, the latest ones, that the upper quantile is corrected on.
_HELD_OUT = 0.2
_FORMAT = "preserve_gym text lengths 1"
_DESCRIPTION, _LAYERS, _ENCODER = "text_lengths.json", "layers.safetensors", "encoder"


@dataclass(frozen=True)
class _Scale:
    """From the outputs of the network to logarithms of lengths."""

    mean: float
    deviation: float
    upper_shift: float = 0.0


class TextLengths:
    """Output lengths from the text of the prompts: their median, and an upper quantile.

    A pretrained encoder such as DistilBERT reads learned prompt vectors and then the prompt; a linear head on
    the mean of its last states gives both quantiles of the logarithm of the length. The encoder itself
    stays frozen, as in PreServe (arXiv 2504.03702), unless ``training.encoder_learning_rate`` is above 0.
    Equal seeds and data give equal predictions on one machine.

    Args:
        encoder: folder of the pretrained encoder and its tokenizer, as ``save_pretrained`` of
            transformers writes it; or ``hub:`` and a name on Hugging Face's hub, which is downloaded.
        level: of the upper quantile, in (0.5, 1).
        training: how it is trained.
        seed: of the prompt vectors and of the order of the requests.
        device: of PyTorch, such as ``cpu`` or ``cuda``.

    Raises:
        InputError: on an argument out of range, an encoder that cannot be loaded, or without the extra
            ``text``.
    """

    def __init__(
        self,
        encoder: str | Path,
        *,
        level: float = 0.9,
        training: TextTraining | None = None,
        seed: int = 0,
        device: str = "cpu",
    ) -> None:
        check_seed(seed)
        if not (isinstance(level, float) and 0.5 < level < 1.0):
            raise InputError(f"text lengths: level: expected a number in (0.5, 1), got {level!r}")
        self.level = level
        self.training = training or TextTraining()
        self.seed = seed
        _check(self.training)
        _check_installed(device)
        self._device = device
        self._tokenizer, self._encoder = load_encoder(str(encoder))
        self._layers: nn.ModuleDict | None = None
        self._scale = _Scale(0.0, 1.0)

    def fit(
        self, prompts: Sequence[str], output_tokens: ArrayLike, report: Report = lambda done, total: None
    ) -> None:
        """Train on requests, in order of arrival.

        The last fifth of them is not learned from: it corrects the upper quantile, so that it holds for
        requests that the model has not seen.

        Args:
            prompts: texts of n requests, n >= 100.
            output_tokens: integers >= 1 of shape (n,).
            report: told after each step how many of all rows are done.

        Raises:
            InputError: on too few requests, another number of lengths, a length below 1, or a training that
                diverges.
        """
        lengths = np.asarray(output_tokens)
        if len(prompts) < MIN_ROWS or lengths.shape != (len(prompts),):
            raise InputError(
                f"text lengths: expected at least {MIN_ROWS} training prompts and as many output lengths, "
                f"got {len(prompts)} and shape {lengths.shape}"
            )
        if lengths.dtype.kind not in "iu" or lengths.min() < 1:
            raise InputError("text lengths: output_tokens: expected integers >= 1")
        logs = np.log(lengths)
        fitted = int(len(logs) * (1.0 - _HELD_OUT))
        scale = _Scale(float(logs[:fitted].mean()), float(logs[:fitted].std()) or 1.0)
        tokens = tokens_of(self._tokenizer, self._encoder, prompts, self.training)
        layers = build(copy.deepcopy(self._encoder), self.training.prompt_vectors, self.seed)
        layers.to(self._device)
        targets = (logs[:fitted] - scale.mean) / scale.deviation
        train(layers, tokens[:fitted], targets, self.level, self.training, self.seed, report)
        self._layers = layers
        outputs = evaluate(layers, tokens[fitted:], self.training.batch_size, lambda done, total: None)
        above = (logs[fitted:] - scale.mean) / scale.deviation - outputs[:, 1]
        self._scale = _Scale(scale.mean, scale.deviation, float(np.quantile(above, self.level)))

    def predict(self, prompts: Sequence[str], report: Report = lambda done, total: None) -> LengthPrediction:
        """The predicted lengths of requests, of any number.

        Args:
            prompts: texts of the requests.
            report: told after each batch how many of all are done.

        Raises:
            InputError: before ``fit``.
        """
        layers = self._trained()
        tokens = tokens_of(self._tokenizer, self._encoder, prompts, self.training)
        outputs = evaluate(layers, tokens, self.training.batch_size, report)
        outputs[:, 1] += self._scale.upper_shift
        lengths = np.exp(np.minimum(outputs * self._scale.deviation + self._scale.mean, 21.0))
        median, upper = np.clip(np.rint(lengths), 1, 2**31 - 1).astype(np.int32).T
        return LengthPrediction(median, np.maximum(median, upper))

    def save(self, folder: str | Path) -> None:
        """Write the trained predictor, its encoder included, to a folder, made if it is missing.

        Raises:
            InputError: before ``fit``.
        """
        from safetensors.torch import save_file

        layers, folder = self._trained(), Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        encoder: Any = layers["encoder"]
        with quiet():
            self._tokenizer.save_pretrained(folder / _ENCODER)
            encoder.save_pretrained(folder / _ENCODER)
        own = {k: v.cpu() for k, v in layers.state_dict().items() if not k.startswith("encoder.")}
        save_file(own, folder / _LAYERS)
        description = {
            "format": _FORMAT,
            "level": self.level,
            "seed": self.seed,
            "training": asdict(self.training),
            "scale": asdict(self._scale),
        }
        (folder / _DESCRIPTION).write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: str | Path, *, device: str = "cpu") -> Self:
        """Read a predictor that ``save`` wrote.

        Raises:
            InputError: if the folder holds none, or a broken one.
        """
        _check_installed(device)
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        folder = Path(folder)
        try:
            description: dict[str, Any] = json.loads((folder / _DESCRIPTION).read_text(encoding="utf-8"))
            if description["format"] != _FORMAT:
                raise ValueError(f"format {description['format']!r}")
            loaded = cls(
                folder / _ENCODER,
                level=description["level"],
                training=TextTraining(**description["training"]),
                seed=description["seed"],
                device=device,
            )
            layers = build(loaded._encoder, loaded.training.prompt_vectors, loaded.seed)
            missing = layers.load_state_dict(load_file(folder / _LAYERS), strict=False).missing_keys
            if not all(key.startswith("encoder.") for key in missing):
                raise ValueError(f"{_LAYERS} lacks {missing[-1]}")
            loaded._scale = _Scale(**description["scale"])
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
            problem = " ".join(str(error).split())
            raise InputError(f"{folder}: expected a folder that TextLengths.save wrote ({problem})") from None
        loaded._layers = layers.to(device).eval()
        return loaded

    def _trained(self) -> nn.ModuleDict:
        if self._layers is None:
            raise InputError("text lengths: expected fit or load before a prediction")
        return self._layers


def _check(training: TextTraining) -> None:
    for field in fields(training):
        value = getattr(training, field.name)
        whole = not field.name.endswith("learning_rate")
        least = 0 if field.name == "encoder_learning_rate" else 1 if whole else 1e-9
        kind: Any = Integral if whole else Real
        if isinstance(value, bool) or not isinstance(value, kind) or not least <= value <= 1e6:
            expected = f"{'an integer' if whole else 'a number'} in [{least}, 1e6]"
            raise InputError(f"text lengths: {field.name}: expected {expected}, got {value!r}")


def _check_installed(device: str) -> None:
    try:
        import torch
        import transformers  # noqa: F401
    except ModuleNotFoundError as error:
        raise missing_extra("text lengths", str(error.name), "text") from None
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        problem = str(error).splitlines()[0]
        raise InputError(f"device: expected one that PyTorch has here, got {device!r} ({problem})") from None
