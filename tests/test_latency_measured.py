"""What was measured on an H100, beside its presets."""

from __future__ import annotations

import pytest

from preserve_gym.latency.measure import default_grid
from preserve_gym.latency.models import find_model
from tests import measured_gpu
from tests.measured_gpu import KINDS, MODELS
from tests.pages import GPU, tables_of


@pytest.mark.parametrize("model", MODELS)
def test_file_holds_the_grid_but_what_is_too_large(model: str) -> None:
    grid = default_grid(find_model(model).max_model_len)
    found = [
        (*(batch.chunks or ((0, 0),))[0], len(batch.contexts), *(batch.contexts[:1] or (0,)))
        for batch in measured_gpu.measured(model).batches
    ]
    assert set(found) <= set(grid)
    assert len(found) == len(set(found)) == len(grid) - 16
    # The caches of these need less than those that do not fit.
    cached = [decodes * context for _, _, decodes, context in set(grid) - set(found)]
    assert min(cached) >= 300_000 > max(decodes * context for _, _, decodes, context in found)


@pytest.mark.parametrize("model", MODELS)
def test_preset_beside_the_measurement(model: str) -> None:
    """Decodes agree. The rest is measured at the limit of the card's power, and the preset is not."""
    errors = measured_gpu.errors_of(model, measured_gpu.preset_law(model))
    medians = errors.groupby("kind")["percent"].median()
    assert set(medians.index) == set(KINDS)
    for kind in ("up to 128 decodes", "prompts up to 128 tokens"):
        assert -10 < medians[kind] < 5
    for kind in ("prompts from 256 tokens on", "later chunks of prompts", "decodes and a chunk"):
        assert -26 < medians[kind] < -18


@pytest.mark.slow
def test_laws_of_the_measurement() -> None:
    """Also that a law fitted to one lies within 6 % of published servers of the model."""
    assert list(tables_of(GPU, "Measured on an H100")) == measured_gpu.tables()
    for server in measured_gpu.servers():
        if server.model == "qwen3-8b":
            errors = [int(error) for error in measured_gpu.server_row(server)[-1].split(", ")]
            assert max(map(abs, errors)) <= 6
