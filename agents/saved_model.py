"""A trained model in a folder: its weights as plain arrays, and a card that says what it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from agents.network import Network
from preserve_gym.errors import InputError

MODELS = Path(__file__).parent / "models"
"""The models of the repository, a folder each."""
CARD, WEIGHTS = "card.yaml", "weights.npz"
_FIELDS = ("algorithm", "scenarios", "layout", "network", "router", "violation_weight", "training")


@dataclass(frozen=True)
class SavedModel:
    """A network and its card.

    The card, plain YAML, has ``algorithm``; ``scenarios``; ``layout``, that is ``env_id``, ``control`` and
    the ``features`` that the network reads; ``network``, what ``Network`` needs besides its arrays;
    ``router``; the chosen ``violation_weight``; ``validation``, its target and fronts; ``steps`` and
    ``wall_s``; ``training``, how.

    Attributes:
        name: of its folder.
        card: the card.
        network: the network.
    """

    name: str
    card: dict[str, Any]
    network: Network

    @property
    def layout(self) -> dict[str, Any]:
        """What the network reads, and what its actions mean."""
        layout: dict[str, Any] = self.card["layout"]
        return layout

    def check_layout(self, env_id: str, features: Sequence[str]) -> None:
        """Refuse another layout.

        Args:
            env_id: of the environment.
            features: those that it and the model's control give.

        Raises:
            InputError: naming both layouts.
        """
        own, given = list(self.layout["features"]), list(features)
        if self.layout["env_id"] == env_id and own == given:
            return
        own_id = self.layout["env_id"]
        message = f"model {self.name!r}: it was trained for {_layout_text(own_id, own, given)}, but is given "
        raise InputError(message + _layout_text(env_id, given, own))

    def save(self, folder: Path) -> None:
        """Write it to a folder, which is made if missing."""
        folder.mkdir(parents=True, exist_ok=True)
        partial = folder / f".{WEIGHTS}.partial"
        with partial.open("wb") as file:
            np.savez(file, **self.network.arrays)  # type: ignore[arg-type]  # its stub knows only allow_pickle
        partial.rename(folder / WEIGHTS)
        text = yaml.safe_dump(self.card, sort_keys=False, allow_unicode=True, width=110)
        partial = folder / f".{CARD}.partial"
        partial.write_text(text, encoding="utf-8")
        partial.rename(folder / CARD)


def load_model(folder: Path) -> SavedModel:
    """The model in a folder; nothing in it is run as code.

    Raises:
        InputError: if it holds no model.
    """
    for name in (CARD, WEIGHTS):
        if not (folder / name).is_file():
            raise InputError(f"model {str(folder)!r}: expected a folder with {CARD} and {WEIGHTS}: no {name}")
    card = load_card(folder)
    try:
        with np.load(folder / WEIGHTS, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        network = Network(arrays, **card["network"])
    except InputError as error:
        raise InputError(f"{folder / WEIGHTS}: {error}") from None
    except (ValueError, OSError, TypeError, EOFError) as error:
        raise InputError(f"{folder / WEIGHTS}: expected arrays: {' '.join(str(error).split())}") from None
    features = card["layout"]["features"]
    if network.inputs != len(features):
        raise InputError(
            f"{folder / WEIGHTS}: expected the {len(features)} features of its card, got {network.inputs}"
        )
    return SavedModel(folder.name, card, network)


def load_card(folder: Path) -> dict[str, Any]:
    """The card in a folder.

    Raises:
        InputError: if it is none.
    """
    path = folder / CARD
    try:
        card = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path}: expected YAML: {' '.join(str(error).split())}") from None
    for field in _FIELDS:
        if not isinstance(card, Mapping) or field not in card:
            raise InputError(f"{path}: {field}: expected a card with it, got none")
    for field, keys in (("layout", ("env_id", "control", "features")), ("network", ("activation", "head"))):
        if not isinstance(card[field], Mapping) or any(key not in card[field] for key in keys):
            raise InputError(f"{path}: {field}: expected {', '.join(keys)}, got {card[field]!r}")
    return dict(card)


def _layout_text(env_id: str, features: Sequence[str], others: Sequence[str]) -> str:
    """A layout, as far as it differs from the other one."""
    lacking = [name for name in others if name not in features]
    text = f"{env_id} with {len(features)} features"
    own = [name for name in features if name not in others]
    if own:
        text += f", among them {', '.join(own)}"
    if lacking:
        text += f", without {', '.join(lacking)}"
    if not own and not lacking and list(features) != list(others):
        k = next(k for k, pair in enumerate(zip(features, others, strict=False)) if pair[0] != pair[1])
        text += f", number {k} {features[k]}"
    return text
