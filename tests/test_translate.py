"""Translation: the models, the loss, BLEU, and runs on a few sentences that follow a rule."""

import dataclasses
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import sacrebleu
import torch
from torch import Tensor

from blitz.cli.evaluate import main as evaluate
from blitz.cli.export import main as export
from blitz.cli.predict import main as predict
from blitz.data.text.sentences import PairData
from blitz.data.text.vocabulary import END, PAD, Vocabulary
from blitz.errors import UserError
from blitz.models.gru_translator import GRUTranslator
from blitz.models.transformer import TransformerTranslator
from blitz.models.translator import GreedySearch, Translation, Translator
from blitz.optim import Optim
from blitz.outputs.bleu import Bleu
from blitz.recipes import recipe_to_json
from blitz.recipes.translate import Translate, TranslatorModel
from blitz.run_files.directory import RunDirectory
from tests.float64 import TOLERANCE, in_float64
from tests.running import losses, result, same_bits, train, weights

Name = Literal["gru", "transformer"]
NAMES: tuple[Name, ...] = ("gru", "transformer")

SUBJECTS = {"a man": "ein Mann", "two girls": "zwei Mädchen", "the dog": "der Hund", "a boy": "ein Junge"}
VERBS = {"sees": "sieht", "wants": "will"}
OBJECTS = {"a red ball.": "einen roten Ball.", "the street!": "die Straße!"}
PAIRS = {f"{s} {v} {o}": f"{SUBJECTS[s]} {VERBS[v]} {OBJECTS[o]}" for s in SUBJECTS for v in VERBS for o in OBJECTS}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """16 pairs to train on, of which the longer half also is `val`, and the others `test`."""
    folder = tmp_path_factory.mktemp("pairs")
    pairs = sorted(PAIRS.items(), key=lambda pair: len(pair[0]))
    for name, part in (("train", pairs), ("val", pairs[8:]), ("test", pairs[:8])):
        for index, language in enumerate(("en", "de")):
            (folder / f"{name}.{language}").write_text("".join(f"{pair[index]}\n" for pair in part))
    return folder


def recipe(root: Path, name: Name = "gru", **settings: Any) -> Translate:
    """A small one that overfits the pairs."""
    data = PairData(root=str(root), test="test", vocabulary=320, max_tokens=24, cache=str(root / "cache"))
    standard: dict[str, Any] = {
        "data": data,
        "model": TranslatorModel(name=name, width=64, layers=1, heads=2, dropout=0.0),
        "optim": Optim(lr=1e-2 if name == "gru" else 3e-3, grad_clip_norm=1.0, schedule="cosine", warmup_steps=10),
        "global_batch_size": 16,
        "epochs": 60,
        "evaluate_every_steps": 1000,
        "log_every_steps": 1,
    }
    return Translate(**standard | settings)


def model_of(name: Name, *, layers: int = 2, score: Literal["dot", "general"] = "general") -> Translator:
    torch.manual_seed(0)
    general: Any = {"vocabulary": 50, "width": 32, "layers": layers, "dropout": 0.1}
    model = GRUTranslator(**general, score=score) if name == "gru" else TransformerTranslator(**general, heads=4)
    return model.eval()


def rows_of(*lengths: int, width: int, seed: int = 0) -> Tensor:
    """Rows of random tokens, their end, and padding."""
    tokens = torch.randint(3, 50, (len(lengths), width), generator=torch.Generator().manual_seed(seed))
    for row, length in zip(tokens, lengths, strict=True):
        row[length - 1], row[length:] = END, PAD
    return tokens


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_padding_changes_nothing_and_is_not_looked_at(name: Name) -> None:
    model = model_of(name)
    source, target = rows_of(7, 3, 5, width=7), rows_of(4, 8, 2, width=8, seed=1)
    scores = model(source, target)
    assert scores.shape == (4 + 8 + 2, 50)
    padded = (torch.nn.functional.pad(each, (0, 3)) for each in (source, target))
    assert torch.allclose(model(*padded), scores, atol=1e-5)
    # And each row alone, without the padding that longer ones make.
    alone = [model(source[row : row + 1, :length], target[row : row + 1]) for row, length in enumerate((7, 3, 5))]
    assert torch.allclose(torch.cat(alone), scores, atol=1e-5)
    _, attention = GreedySearch(model, 6).search(source)
    assert torch.allclose(attention.sum(2), torch.ones(attention.shape[:2]))
    assert bool((attention[1, :, 3:] == 0).all())
    assert bool((attention[1, :, :3] > 0).all())


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_the_search_takes_the_best_token_of_each_position_step_by_step(name: Name) -> None:
    model, source = model_of(name), rows_of(7, 3, 5, width=7)
    tokens = GreedySearch(model, 9)(source)
    assert tokens.shape == (3, 9)
    # All positions at once, given what the search has found, must say the same.
    kept = tokens != PAD
    assert torch.equal(model(source, tokens).argmax(1), tokens[kept])
    for row in tokens.tolist():
        ended = row.index(END) + 1 if END in row else 9
        assert set(row[ended:]) <= {PAD}


@torch.no_grad()
def test_teacher_forcing_continues_from_the_target_or_from_what_was_predicted() -> None:
    model, source, target = model_of("gru"), rows_of(7, 3, width=7), rows_of(6, 6, width=6, seed=1)
    all_forced, none = torch.ones(2, 6, dtype=torch.bool), torch.zeros(2, 6, dtype=torch.bool)
    assert torch.allclose(model(source, target, all_forced), model(source, target), atol=1e-5)
    free = model(source, target, none).argmax(1).reshape(2, 6)
    found = GreedySearch(model, 6)(source)
    assert torch.equal(free[found != PAD], found[found != PAD])
    assert not torch.allclose(model(source, target, none), model(source, target), atol=1e-3)
    assert not torch.allclose(model_of("gru", score="dot")(source, target), model(source, target), atol=1e-3)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_loss_is_that_of_a_loop_over_tokens(root: Path, smoothing: float) -> None:
    trained = recipe(root, label_smoothing=smoothing).fitted()
    target = rows_of(4, 7, 2, width=9).int()
    scores = torch.randn(13, 50, generator=torch.Generator().manual_seed(1))
    found = trained.loss(Translation(scores), {"target": target})
    positions = iter(scores.log_softmax(1))
    for row, loss in zip(target.tolist(), found.tolist(), strict=True):
        total = 0.0
        for token in row:
            if token != PAD:
                logs = next(positions)
                total -= (1 - smoothing) * logs[token].item() + smoothing * logs.mean().item()
        assert loss == pytest.approx(total / trained.fit.target_tokens, rel=1e-5)
    # Evaluation is without smoothing.
    plain = dataclasses.replace(trained, label_smoothing=0.0).loss(Translation(scores), {"target": target})
    evaluated = trained.loss(Translation(scores, tokens=target), {"target": target})
    assert torch.equal(plain, evaluated)


def test_bleu_adds_up_to_sacrebleu_s_own_at_any_split_into_batches() -> None:
    texts = [*PAIRS.values(), "Ein Satz, der anders ist: 3,5 km!", "naïve Σ"]
    random = np.random.default_rng(0)
    said = [" ".join(random.permutation(text.split())[: random.integers(2, 9)]) for text in texts]
    vocabulary = Vocabulary.learned(texts, 300)
    metric = Bleu(vocabulary, 2.0)
    width = max(len(text.encode()) for text in texts)
    references = torch.tensor([list(text.encode().ljust(width, b"\0")) for text in texts], dtype=torch.uint8)
    tokens = torch.from_numpy(vocabulary.padded(said, 64))
    truth = sacrebleu.corpus_bleu(said, [texts]).score
    assert 10 < truth < 90
    for parts in (1, 2, 5, len(texts)):
        total: dict[str, Tensor] = {"loss": torch.tensor(36.0)}
        for chosen in torch.arange(len(texts)).chunk(parts):
            batch = {"reference": references[chosen], "target": tokens[chosen]}
            for name, value in metric.sums(Translation(None, tokens[chosen]), batch).items():
                total[name] = total.get(name, torch.tensor(0)) + value
        found = metric.compute(total)
        assert found["bleu"] == pytest.approx(truth, abs=1e-9)
        assert found["perplexity"] == pytest.approx(np.exp(36 * 2 / int((tokens != PAD).sum())))


@pytest.fixture(scope="module", params=NAMES)
def learned(request: pytest.FixtureRequest, root: Path, tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """A run that has overfitted the pairs, as `blitz train` leaves it."""
    fitted = recipe(root, request.param).fitted()
    run = train(fitted, tmp_path_factory.mktemp("run") / "run")
    run.write_json("recipe.json", recipe_to_json(fitted))
    return run


def test_a_batch_is_overfitted_and_translated_by_the_command(
    learned: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert result(learned)["metrics"]["val/bleu"] == pytest.approx(100)
    assert result(learned)["metrics"]["val/perplexity"] < 1.6
    evaluate([str(learned), "--split", "test", "--scale.num-workers", "0"])
    assert "8 rows of test" in capsys.readouterr().out
    found = json.loads(learned.read("evaluations/test-60.json"))
    assert found["figures"]["bleu"] == pytest.approx(100)

    # What was looked at, for people to see.
    shown = found["examples"]["random"]
    assert len(shown) == 8
    for example in shown:
        assert example["prediction"] == example["truth"] == PAIRS[example["source"]]
        looked = example["attention"]
        assert np.array(looked["weights"]).shape == (len(looked["prediction"]), len(looked["source"]))
        assert "".join(looked["source"]) == f" {example['source']}⏎"

    here = ["--scale.num-workers", "0"]
    sources = [*PAIRS]
    lines = [sources[3], "", "  ", "猫 is unseen", sources[0]]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("\n".join(lines).encode())))
    predict([str(learned), "-", *here])
    said = capsys.readouterr().out.splitlines()
    assert [said[0], said[1], said[2], said[4]] == [PAIRS[sources[3]], "", "", PAIRS[sources[0]]]
    assert len(said) == 5

    (tmp_path / "in.txt").write_text("\n".join(lines) + "\n")
    predict([str(learned), str(tmp_path / "in.txt"), str(tmp_path / "out.txt"), *here])
    assert (tmp_path / "out.txt").read_text().splitlines() == said
    assert not (tmp_path / "out.txt.parts").exists()

    (tmp_path / "in.csv").write_text(f'id,en\n7,"{sources[5]}"\n8,\n9,{sources[1]}\n')
    predict([str(learned), str(tmp_path / "in.csv"), str(tmp_path / "out.csv"), *here])
    assert (tmp_path / "out.csv").read_text().splitlines() == [
        "id,en,prediction,error",
        f"7,{sources[5]},{PAIRS[sources[5]]},",
        "8,,,column 'en' is empty; expected a label",
        f"9,{sources[1]},{PAIRS[sources[1]]},",
    ]


def test_what_cannot_be_translated_is_reported_in_one_line(learned: RunDirectory, tmp_path: Path) -> None:
    name, out = str(learned), str(tmp_path / "out.txt")
    (tmp_path / "in.txt").write_bytes(b"\xff\xfe\xff")
    (tmp_path / "in.csv").write_text("english\na\n")
    with pytest.raises(UserError, match=r"in\.txt is not encoded in UTF-8"):
        predict([name, str(tmp_path / "in.txt"), out])
    with pytest.raises(UserError, match=r"nosuch\.txt is not there; name a text file"):
        predict([name, str(tmp_path / "nosuch.txt"), out])
    with pytest.raises(UserError, match=r"in\.csv has no column 'en'; it has: english"):
        predict([name, str(tmp_path / "in.csv"), str(tmp_path / "out.csv"), "--scale.num-workers", "0"])
    with pytest.raises(UserError, match=r"--teacher-forcing is for the GRU"):
        recipe(tmp_path, "transformer", teacher_forcing=0.5)


@pytest.mark.parametrize("settings", [{"teacher_forcing": 0.5}, {"name": "transformer"}])
def test_a_run_that_stops_resumes_to_the_same_bits(root: Path, tmp_path: Path, settings: dict[str, Any]) -> None:
    dropout = TranslatorModel(name=settings.get("name", "gru"), width=32, layers=1, heads=2, dropout=0.2)
    # A cosine depends on how many steps there are in all.
    small = recipe(root, **settings, model=dropout, optim=Optim(grad_clip_norm=1.0), global_batch_size=6, epochs=2)
    whole = train(small, tmp_path / "whole")
    train(dataclasses.replace(small, max_steps=2), tmp_path / "halves")
    halves = train(small, tmp_path / "halves")
    assert same_bits(weights(whole), weights(halves))
    assert result(whole)["rows_digest"] == result(halves)["rows_digest"]


@pytest.mark.cluster
@pytest.mark.usefixtures("ray_runtime")
def test_two_workers_take_the_same_rows_and_learn_the_same(root: Path, tmp_path: Path) -> None:
    small = in_float64(recipe(root, global_batch_size=6, epochs=2, teacher_forcing=0.7))
    alone, together = train(small, tmp_path / "alone"), train(small, tmp_path / "together", num_workers=2)
    assert result(alone)["rows_digest"] == result(together)["rows_digest"]
    assert losses(alone) == pytest.approx(losses(together), rel=TOLERANCE)
    metrics = [result(run)["metrics"] for run in (alone, together)]
    assert metrics[0] == pytest.approx(metrics[1], rel=TOLERANCE)


def test_the_whole_search_is_exported_and_translates_without_this_project(
    learned: RunDirectory, tmp_path: Path
) -> None:
    artifact = str(tmp_path / "it.pt2")
    export([str(learned), "--output", artifact])
    script = Path(__file__).parents[1] / "docs" / "deploy" / "run_translate.py"
    lines, environment = [*PAIRS][:3], {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    said = subprocess.run(
        [sys.executable, str(script), artifact],
        input="\n".join(lines).encode(),
        stdout=subprocess.PIPE,
        cwd=tmp_path,
        env=environment,
        check=True,
    )
    assert said.stdout.decode().splitlines() == [PAIRS[line] for line in lines]
    with pytest.raises(UserError, match=r"cannot be exported as torchscript \(a loop whose number of iterations"):
        export([str(learned), "--format", "torchscript", "--output", str(tmp_path / "it.pt")])
