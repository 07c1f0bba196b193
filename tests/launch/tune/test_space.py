"""What a space may say, and what it draws."""

from typing import Any

import pytest
from ray import tune

from blitz.cli.train import read_settings
from blitz.errors import UserError
from blitz.launch.tune.search import GridSearch, OptunaSearch, RandomSearch
from blitz.launch.tune.space import Space
from blitz.recipes import find_recipe
from blitz.recipes.parabola import Parabola
from blitz.settings import flags_of, setting_value, with_settings
from tune_spaces import about, find_space, space_names

NESTED = Space(
    recipe="parabola",
    parameters={
        "optim": tune.choice(
            [
                {"name": "sgd"},
                {"name": "momentum", "momentum": tune.uniform(0.5, 0.9)},
                {"name": "adam", "betas": (0.9, 0.99)},
            ]
        ),
        "optim.lr": tune.loguniform(1e-3, 1.0),
        "hidden": tune.choice([(8,), (16, 16)]),
    },
)


@pytest.mark.parametrize("name", space_names())
def test_every_space_that_ships_draws_settings_that_its_recipe_takes(name: str) -> None:
    space, recipe = find_space(name), find_space(name).base()
    assert about(name).endswith(".") or about(name).endswith("--data.train-csv.")
    search = RandomSearch(space, seed=0)
    draws = [search.draw(number) for number in range(50)]
    for draw in draws:
        assert draw is not None
        changed = with_settings(recipe, space.settings(draw))
        assert all(setting_value(changed, key) == value for key, value in space.settings(draw).items())
    assert set().union(*(space.settings(draw) for draw in draws if draw)) == set(space.names)


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        (
            {"optim.lrr": tune.uniform(0, 1)},
            "the space names optim.lrr, which is no setting of the recipe; perhaps optim.lr",
        ),
        (
            {"optim": tune.choice([{"nam": "sgd"}])},
            "names optim.nam, which is no setting of the recipe; perhaps optim.name",
        ),
        (
            {"optim": tune.choice(["sgd"])},
            "names optim, a group of settings; choose from dictionaries, or name optim.n",
        ),
        ({"epochs": tune.uniform(1, 9)}, "varies epochs by (1, 9) of float; it must be int"),
        ({"optim.lr": tune.choice([0.1, "low"])}, "has 'low' for optim.lr; it must be float"),
        ({"optim.name": tune.choice(["sdg"])}, "has 'sdg' for optim.name; it must be Literal"),
        ({"hidden": tune.choice([(20,), 20])}, "has 20 for hidden; it must be tuple[int, ...]"),
        ({"optim.lr": tune.sample_from(lambda _: 1.0)}, "by sample_from, which draws by itself"),
        ({"nosuch": 3}, "the space names nosuch, which is no setting of the recipe"),
    ],
)
def test_what_the_recipe_does_not_take_is_refused_by_name(parameters: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError) as refused:
        Space(recipe="parabola", parameters=parameters).base()
    assert says in str(refused.value)


def test_whole_numbers_fit_where_any_number_does() -> None:
    parameters = {"optim.momentum": tune.choice([None, 0.9, 0]), "optim.lr": tune.randint(1, 3)}
    assert Space(recipe="parabola", parameters=parameters).base() == Parabola()


def test_settings_that_belong_to_another_choice_are_not_set() -> None:
    assert NESTED.names == ["optim.name", "optim.momentum", "optim.betas", "optim.lr", "hidden"]
    draw = {"optim": 0, "optim[1].momentum": 0.7, "optim.lr": 0.1, "hidden": 1}
    assert NESTED.settings(draw) == {"optim.name": "sgd", "optim.lr": 0.1, "hidden": (16, 16)}
    assert NESTED.settings({**draw, "optim": 1})["optim.momentum"] == 0.7


def test_a_random_draw_depends_on_the_seed_and_the_number_alone() -> None:
    search = RandomSearch(NESTED, seed=3)
    assert [search.draw(n) for n in (5, 2, 5)] == [RandomSearch(NESTED, seed=3).draw(n) for n in (5, 2, 5)]
    assert search.draw(5) != search.draw(2)
    assert search.draw(5) != RandomSearch(NESTED, seed=4).draw(5)
    lrs = sorted(draw["optim.lr"] for n in range(200) if (draw := search.draw(n)))
    assert lrs[0] < 0.002
    assert 0.02 < lrs[100] < 0.06
    assert lrs[-1] > 0.5


def test_a_grid_has_every_combination_once() -> None:
    search = GridSearch(NESTED)
    draws = [search.draw(number) for number in range(len(search))]
    settings = [NESTED.settings(draw) for draw in draws if draw]
    # One of sgd and adam, five of momentum; five learning rates; two widths.
    assert len(settings) == 7 * 5 * 2
    assert len({repr(each) for each in settings}) == len(settings)
    assert sorted({each["optim.lr"] for each in settings}) == pytest.approx(
        [1e-3, 5.62e-3, 3.16e-2, 0.178, 1], rel=1e-2
    )
    assert search.draw(len(search)) is None


def test_a_grid_of_what_has_no_bounds_is_refused() -> None:
    with pytest.raises(UserError, match=r"--search grid: optim\.lr has no bounds"):
        GridSearch(Space(recipe="parabola", parameters={"optim.lr": tune.randn(1, 0.1)}))


def test_optuna_resumes_with_the_same_draws() -> None:
    def value(draw: dict[str, Any]) -> float:
        return abs(float(draw["optim.lr"]) - 0.03) + int(draw["optim"])

    whole, draws = OptunaSearch(NESTED, 1, "min"), []
    for number in range(20):
        draw = whole.draw(number)
        assert draw is not None
        draws.append(draw)
        whole.tell(number, draw, value(draw))
    resumed = OptunaSearch(NESTED, 1, "min")
    for number, draw in enumerate(draws[:15]):
        resumed.tell(number, draw, value(draw))
    assert resumed.draw(15) == draws[15]
    # By now it looks where it is best.
    assert [draw["optim"] for draw in draws[12:]].count(0) > 4


def test_flags_give_a_recipe_back() -> None:
    settings = {
        "optim.name": "momentum",
        "optim.momentum": 0.8,
        "optim.lr": 0.1 + 0.2,
        "optim.betas": (0.5, 0.75),
        "optim.grad_clip_norm": 1e-7,
        "hidden": (4, 8),
        "activation": "tanh",
        "max_steps": 7,
        "init_seed": 3,
        "channels_last": True,
        "on_nan": "skip",
    }
    recipe = with_settings(Parabola(), settings)
    assert read_settings(["parabola", *flags_of(recipe)], prog="train").recipe == recipe
    table = with_settings(
        find_recipe("table_csv")(),
        {"data.train_csv": "a file.csv", "data.ignore": ("a", "b c"), "data.types": {"a": "number"}},
    )
    assert read_settings(["table_csv", *flags_of(table)], prog="train").recipe == table
