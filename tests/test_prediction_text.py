"""The length predictor that reads prompts, on prompts whose words say how long the answer will be."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from preserve_gym.errors import InputError
from preserve_gym.prediction import (
    LengthAccuracy,
    LengthPrediction,
    TextLengths,
    TextTraining,
    length_accuracy,
    predict_length_bounds,
)
from tests import measure_text_lengths
from tests.measure_text_lengths import COUNT, TRAINED
from tests.prompt_requests import prompt_requests, tiny_encoder
from tests.test_docs import table_of
from tests.test_length_predictors_page import PAGE

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.usefixtures("one_thread_of_torch")

TRACE, PROMPTS = prompt_requests(COUNT)
FEW = TextTraining(prompt_vectors=4, epochs=1)


@pytest.fixture(scope="module")
def encoder(one_thread_of_torch: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="module")
def trained(encoder: Path) -> TextLengths:
    model = TextLengths(encoder)
    model.fit(PROMPTS[:TRAINED], TRACE.output_tokens[:TRAINED])
    return model


@pytest.fixture(scope="module")
def quick(encoder: Path) -> TextLengths:
    return fitted(encoder)


def fitted(encoder: Path, seed: int = 0, **training: Any) -> TextLengths:
    options = {"prompt_vectors": 4, "epochs": 1, **training}
    model = TextLengths(encoder, training=TextTraining(**options), seed=seed)
    model.fit(PROMPTS[:200], TRACE.output_tokens[:200])
    return model


def accuracy_of(prediction: LengthPrediction) -> LengthAccuracy:
    return length_accuracy(TRACE.output_tokens[TRAINED:], prediction)


def text_free() -> LengthAccuracy:
    bounds = predict_length_bounds("learned", TRACE, train=slice(0, TRAINED))
    return accuracy_of(LengthPrediction(bounds.tokens[TRAINED:], bounds.upper_tokens[TRAINED:]))


def test_it_beats_the_best_predictor_without_the_text(trained: TextLengths) -> None:
    without, text = text_free(), accuracy_of(trained.predict(PROMPTS[TRAINED:]))
    constant = np.full(COUNT - TRAINED, np.median(TRACE.output_tokens[:TRAINED]), np.int32)
    assert without.mae < accuracy_of(LengthPrediction(constant, constant)).mae
    assert without.kendall_tau > 0.05
    assert text.mae < 0.75 * without.mae
    assert text.kendall_tau > without.kendall_tau + 0.3
    assert text.coverage == pytest.approx(0.9, abs=0.03)


def test_what_it_knows_is_in_the_text(trained: TextLengths) -> None:
    others = np.random.default_rng(0).permutation(PROMPTS[TRAINED:])
    assert abs(accuracy_of(trained.predict(list(others))).kendall_tau) < 0.05


def test_the_encoder_stays_as_it_was(trained: TextLengths, encoder: Path, tmp_path: Path) -> None:
    from transformers import AutoModel

    trained.save(tmp_path)
    before = AutoModel.from_pretrained(encoder).state_dict()
    after = AutoModel.from_pretrained(tmp_path / "encoder").state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_the_prompt_vectors_learn(trained: TextLengths, encoder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file
    from transformers import AutoModel

    trained.save(tmp_path)
    vectors = load_file(tmp_path / "layers.safetensors")["prompt.vectors"]
    words = AutoModel.from_pretrained(encoder).get_input_embeddings().weight
    # They start as words; a step of AdamW moves each number by about the learning rate.
    distances = torch.cdist(vectors, words).min(dim=1).values
    assert vectors.shape == (20, 48)
    assert distances.min() > 0.1


def test_all_of_it_may_be_trained(encoder: Path, tmp_path: Path) -> None:
    from transformers import AutoModel

    model = fitted(encoder, encoder_learning_rate=1e-3)
    model.save(tmp_path)
    before = AutoModel.from_pretrained(encoder).state_dict()
    after = AutoModel.from_pretrained(tmp_path / "encoder").state_dict()
    assert not all(torch.equal(before[key], after[key]) for key in before)
    loaded = TextLengths.load(tmp_path).predict(PROMPTS[:50])
    np.testing.assert_array_equal(loaded.tokens, model.predict(PROMPTS[:50]).tokens)


@pytest.mark.slow
def test_the_page_tells_what_was_measured() -> None:
    shown = table_of(PAGE, "From the text of your prompts")
    measured = measure_text_lengths.rows()
    assert [row[0] for row in shown] == [row[0] for row in measured]
    for row, found in zip(shown, measured, strict=True):
        # Other processors round otherwise, and training makes more of it.
        np.testing.assert_allclose(np.array(row[1:], float), np.array(found[1:], float), rtol=0.1, atol=0.02)
    without, frozen, tuned, known = (float(row[1]) for row in measured)
    assert without > 1.3 * frozen > 1.3 * 1.2 * tuned > 1.3 * 1.2 * known


def test_saved_and_loaded(quick: TextLengths, tmp_path: Path) -> None:
    quick.save(tmp_path / "model")
    loaded = TextLengths.load(tmp_path / "model")
    expected, found = (model.predict(PROMPTS[200:400]) for model in (quick, loaded))
    np.testing.assert_array_equal(found.tokens, expected.tokens)
    np.testing.assert_array_equal(found.upper_tokens, expected.upper_tokens)
    assert (loaded.training, loaded.level, loaded.seed) == (quick.training, quick.level, quick.seed)


def test_equal_seeds_give_equal_predictions(quick: TextLengths, encoder: Path) -> None:
    expected = quick.predict(PROMPTS[200:400]).tokens
    state = torch.get_rng_state()
    for repeated in (fitted(encoder), quick):
        repeated.fit(PROMPTS[:200], TRACE.output_tokens[:200])
        np.testing.assert_array_equal(repeated.predict(PROMPTS[200:400]).tokens, expected)
    assert torch.equal(torch.get_rng_state(), state)
    assert not np.array_equal(fitted(encoder, seed=1).predict(PROMPTS[200:400]).tokens, expected)


def test_the_order_and_the_company_of_prompts_do_not_matter(quick: TextLengths) -> None:
    together = quick.predict(PROMPTS[:70])
    reverse = quick.predict(PROMPTS[:70][::-1])
    # Sums of another number of padded zeros may round otherwise.
    np.testing.assert_allclose(reverse.tokens[::-1], together.tokens, atol=1)
    alone = [quick.predict([prompt]).tokens[0] for prompt in PROMPTS[:10]]
    np.testing.assert_allclose(alone, together.tokens[:10], atol=1)
    assert (together.upper_tokens >= together.tokens).all()


def test_the_first_tokens_of_a_long_prompt_are_read(encoder: Path) -> None:
    # Ten words between [CLS] and [SEP].
    model = fitted(encoder, max_tokens=12)
    start, rest = " ".join(["poem"] * 10), " date" * 500
    found = model.predict([start, start + rest, "date " + start]).tokens
    assert found[0] == found[1] != found[2]
    # With more than the encoder's 64 positions it does not fail.
    assert len(fitted(encoder, max_tokens=1000).predict([start + rest]).tokens) == 1


def test_odd_prompts(quick: TextLengths) -> None:
    found = quick.predict(["", " ", "\n", "unheard of", "Grüße 你好"])
    assert (found.tokens >= 1).all()
    assert quick.predict([]).tokens.shape == (0,)


def test_equal_lengths_are_learned(encoder: Path) -> None:
    model = TextLengths(encoder, training=FEW)
    model.fit(PROMPTS[:100], np.full(100, 7))
    assert set(model.predict(PROMPTS[100:200]).tokens) == {7}


def test_the_latest_training_requests_correct_the_upper_quantile(encoder: Path) -> None:
    lengths = TRACE.output_tokens[:500] * np.where(np.arange(500) < 400, 1, 5)
    model = TextLengths(encoder, training=FEW)
    model.fit(PROMPTS[:500], lengths)
    upper = model.predict(PROMPTS[400:500]).upper_tokens
    assert (lengths[400:] <= upper).mean() == pytest.approx(0.9, abs=0.02)


def test_progress_is_told(encoder: Path) -> None:
    told: list[tuple[int, int]] = []
    model = TextLengths(encoder, training=TextTraining(prompt_vectors=2, epochs=2))
    model.fit(PROMPTS[:100], TRACE.output_tokens[:100], lambda *rows: told.append(rows))
    assert len(told) == 6
    assert told[2] == (80, 160)
    assert told[-1] == (160, 160)
    told.clear()
    model.predict(PROMPTS[:70], lambda *rows: told.append(rows))
    assert told == [(32, 70), (64, 70), (70, 70)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"encoder": "nowhere"}, r"encoder: expected a folder with the config\.json .* or hub: .*'nowhere'"),
        ({"level": 0.5}, r"level: expected a number in \(0\.5, 1\), got 0\.5"),
        ({"level": "high"}, "level: expected"),
        ({"seed": -1}, "seed: expected"),
        ({"device": "abacus"}, "device: expected one that PyTorch has here, got 'abacus'"),
        ({"training": TextTraining(epochs=0)}, r"epochs: expected an integer in \[1, 1e6\], got 0"),
        ({"training": TextTraining(batch_size=1.5)}, "batch_size: expected an integer"),  # type: ignore[arg-type]
        ({"training": TextTraining(learning_rate=-1.0)}, "learning_rate: expected a number in"),
        ({"training": TextTraining(encoder_learning_rate=float("nan"))}, "encoder_learning_rate: expected"),
    ],
)
def test_bad_arguments_are_named(encoder: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        TextLengths(**{"encoder": encoder, **options})


def test_bad_training_requests_are_named(encoder: Path) -> None:
    model = TextLengths(encoder, training=FEW)
    with pytest.raises(InputError, match="expected fit or load before"):
        model.predict(PROMPTS[:1])
    with pytest.raises(InputError, match=r"at least 100 training prompts .* got 99"):
        model.fit(PROMPTS[:99], TRACE.output_tokens[:99])
    with pytest.raises(InputError, match=r"as many output lengths, got 100 and shape \(99,\)"):
        model.fit(PROMPTS[:100], TRACE.output_tokens[:99])
    with pytest.raises(InputError, match="output_tokens: expected integers >= 1"):
        model.fit(PROMPTS[:100], np.zeros(100, np.int32))
    with pytest.raises(InputError, match="the training diverged: expected a smaller learning_rate than 1e"):
        fitted(encoder, learning_rate=1e6, encoder_learning_rate=1e6)
    with pytest.raises(InputError, match="prompt_vectors: expected fewer than the 64 positions"):
        fitted(encoder, prompt_vectors=64)


def test_encoders_that_do_not_fit_are_named(encoder: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "unheard-of"}')
    with pytest.raises(InputError, match=r"cannot be loaded \(.*unheard-of"):
        TextLengths(tmp_path)
    padless = shutil.copytree(encoder, tmp_path / "padless")
    settings = json.loads((padless / "tokenizer_config.json").read_text())
    del settings["pad_token"]
    (padless / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(InputError, match="whose tokenizer has a padding token"):
        TextLengths(padless)


def test_broken_folders_are_named(quick: TextLengths, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere: expected a folder that TextLengths\.save wrote"):
        TextLengths.load(tmp_path / "nowhere")
    from safetensors.torch import save_file

    quick.save(tmp_path)
    description = json.loads((tmp_path / "text_lengths.json").read_text())
    (tmp_path / "text_lengths.json").write_text(json.dumps({**description, "format": "other"}))
    with pytest.raises(InputError, match="format 'other'"):
        TextLengths.load(tmp_path)
    (tmp_path / "text_lengths.json").write_text(json.dumps(description))
    (tmp_path / "layers.safetensors").write_bytes(b"other")
    with pytest.raises(InputError, match=r"expected a folder that TextLengths\.save wrote"):
        TextLengths.load(tmp_path)
    save_file({"head.bias": torch.zeros(2)}, tmp_path / "layers.safetensors")
    with pytest.raises(InputError, match=r"lacks head\.weight"):
        TextLengths.load(tmp_path)


@pytest.mark.parametrize("module", ["torch", "transformers"])
def test_without_the_extra(module: str, encoder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InputError, match=rf"{module} is missing: pip install 'preserve-gym\[text\]"):
        TextLengths(encoder)
