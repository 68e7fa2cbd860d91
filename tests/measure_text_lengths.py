"""Measures the text model on generated prompts, as the docs record it.

Run as ``python -m tests.measure_text_lengths``: prints the table of docs/length-predictors.md.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from preserve_gym.prediction import LengthPrediction, TextLengths, TextTraining, length_accuracy
from preserve_gym.prediction.lengths import predict_length_bounds
from tests.prompt_requests import known_lengths, prompt_requests, tiny_encoder

COUNT, TRAINED = 4000, 2400
TUNED = TextTraining(learning_rate=3e-3, encoder_learning_rate=1e-3)


def rows() -> list[list[str]]:
    """One row a predictor: its name and three measures on the requests that none has seen."""
    trace, prompts = prompt_requests(COUNT)
    true = trace.output_tokens

    def row(name: str, tokens: np.ndarray) -> list[str]:
        found = length_accuracy(true[TRAINED:], LengthPrediction(tokens, tokens))
        return [name, f"{found.mae:.1f}", f"{100 * found.acc_100:.1f}", f"{found.kendall_tau:.2f}"]

    learned = predict_length_bounds("learned", trace, train=slice(0, TRAINED))
    table = [row("`learned`, without the text", learned.tokens[TRAINED:])]
    with tempfile.TemporaryDirectory() as folder:
        encoder = tiny_encoder(Path(folder))
        for name, training in (
            ("text, encoder frozen", TextTraining()),
            ("text, encoder trained too", TUNED),
        ):
            model = TextLengths(encoder, training=training)
            model.fit(prompts[:TRAINED], true[:TRAINED])
            table.append(row(name, model.predict(prompts[TRAINED:]).tokens))
    table.append(row("whoever knows what each word adds", known_lengths(prompts[TRAINED:])))
    return table


if __name__ == "__main__":
    for cells in rows():
        print(f"| {' | '.join(cells)} |")
