"""The recipe `language`: what its model sees, what its perplexity counts, and how lines are continued."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from blitz.errors import DataError, UserError
from blitz.models.language_model import LanguageModel, rotated
from blitz.outputs.metrics import Sums
from blitz.recipes.language import DecoderModel, Language
from blitz.training.batches import on_device
from tests.small_recipes import SMALL, DataFolders


@pytest.fixture
def recipe(tmp_path: Path) -> Language:
    small = SMALL["language"](DataFolders(tmp_path, tmp_path)).recipe
    assert isinstance(small, Language)
    return small.fitted()


def test_no_score_depends_on_a_later_token() -> None:
    torch.manual_seed(0)
    model = LanguageModel(vocabulary=11, width=8, layers=2, heads=2, dropout=0).eval()
    tokens = torch.randint(11, (1, 6))
    changed = tokens.clone()
    changed[0, 4] = (tokens[0, 4] + 1) % 11
    one, other = model(tokens), model(changed)
    torch.testing.assert_close(one[:, :4], other[:, :4], rtol=0, atol=0)
    assert not torch.equal(one[:, 4:], other[:, 4:])


def test_attention_sees_distances_and_not_positions() -> None:
    torch.manual_seed(0)
    query, key = torch.randn(2, 8, dtype=torch.float64)
    queries, keys = (rotated(one.expand(1, 1, 7, 8)) for one in (query, key))
    scores = (queries @ keys.transpose(2, 3))[0, 0]
    torch.testing.assert_close(scores[:-1, :-1], scores[1:, 1:])
    assert scores[0, 0] != pytest.approx(scores[1, 0].item())


def test_a_model_that_knows_nothing_has_the_perplexity_of_its_vocabulary(recipe: Language) -> None:
    rows = recipe.dataset("val")
    batch = on_device(rows.__getitems__(np.arange(len(rows))), torch.device("cpu"))
    model = recipe.build_model()
    assert isinstance(model, LanguageModel)
    nn.init.zeros_(model.head.weight)
    outputs = recipe.forward(model, batch)
    sums: Sums = {"loss": recipe.loss(outputs, batch).sum(), **recipe.metrics().sums(outputs, batch)}
    assert recipe.metrics().compute(sums)["perplexity"] == pytest.approx(len(recipe.vocabulary), rel=1e-4)


def continued(recipe: Language, lines: list[str], rows: list[int]) -> list[str | float]:
    torch.manual_seed(0)
    model = recipe.build_model().eval()
    # Far from uniform, so that a draw decides little and rounding nothing.
    for parameter in model.parameters():
        parameter.data.mul_(10)
    batch: dict[str, Tensor] = on_device(recipe.line_inputs(lines).__getitems__(np.array(rows)), torch.device("cpu"))  # type: ignore[assignment]
    with torch.no_grad():
        return [*recipe.predictions(recipe.forward(model, batch), batch)["prediction"]]


def test_a_line_is_continued_by_its_seed_and_row_whichever_rows_share_its_batch(recipe: Language) -> None:
    lines = ["a man", "a dog sees", "a man"]
    together = continued(recipe, lines, [0, 1, 2])
    assert together == [continued(recipe, lines, [row])[0] for row in range(3)]
    assert all(str(text).startswith(line) for text, line in zip(together, lines, strict=True))
    assert together[0] != together[2]
    assert continued(replace(recipe, seed=1), lines, [0, 1, 2]) != together
    greedy = continued(replace(recipe, temperature=0.0), lines, [0, 1, 2])
    assert greedy[0] == greedy[2]


def test_settings_and_files_that_cannot_be_used_are_refused(recipe: Language) -> None:
    with pytest.raises(UserError, match=r"--model\.width is 6; it must be a multiple of 2 · --model\.heads 2"):
        DecoderModel(width=6, heads=2)
    with pytest.raises(UserError, match=r"--data\.root DIR with train\.en"):
        Language().fitted()
    with pytest.raises(DataError, match=r"has neither train\.fr nor train\.fr\.gz"):
        replace(recipe, data=replace(recipe.data, suffix="fr")).fitted()
