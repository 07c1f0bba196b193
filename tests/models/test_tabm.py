from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from blitz.models.number_embeddings import PiecewiseLinearEmbeddings, clipped, robust_scale, scaled_knots
from blitz.models.tabm import MembersLinear, TabM, averaged

NO_CATEGORIES = torch.zeros(7, 0, dtype=torch.long)


def edges_of(numbers: Tensor, bins: Sequence[int]) -> list[Tensor]:
    return [
        torch.linspace(float(column.min()) - 0.1, float(column.max()) + 0.1, count + 1, dtype=numbers.dtype)
        for column, count in zip(numbers.T, bins, strict=True)
    ]


def tabm(**settings: object) -> TabM:
    usual = {
        "numbers": 3,
        "codes": (),
        "outputs": 2,
        "members": 4,
        "hidden": (8, 8),
        "embedding_width": 5,
        "dropout": 0.0,
    }
    return TabM(**{**usual, "edges": edges_of(torch.randn(9, 3), (4, 1, 6)), "classifies": True, **settings})  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def float64() -> object:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def test_with_the_same_weights_it_computes_what_the_authors_package_does() -> None:
    package = pytest.importorskip("tabm", reason="pip install tabm: the authors' package, part of the extra dev")
    from rtdl_num_embeddings import PiecewiseLinearEmbeddings as Theirs

    numbers, categories = torch.randn(7, 3), torch.tensor([[1, 1], [2, 4], [3, 2], [1, 3], [2, 1], [3, 4], [1, 2]])
    edges = edges_of(numbers, (4, 2, 6))
    theirs = package.TabM.make(
        n_num_features=3,
        cat_cardinalities=[3, 4],
        d_out=2,
        num_embeddings=Theirs(edges, 5, activation=False, version="B"),
        k=4,
        d_block=8,
        dropout=0.0,
    )
    ours = tabm(edges=edges, codes=(4, 5))
    for one in theirs.parameters():
        nn.init.normal_(one)
    embeddings, blocks = theirs.num_module, theirs.backbone.blocks
    assert ours.embeddings is not None
    with torch.no_grad():
        ours.embeddings.weight.copy_(embeddings.linear0.weight)
        ours.embeddings.bias.copy_(embeddings.linear0.bias)
        for row, own in enumerate(edges):
            # Theirs has the last bin of each number in the last place, ours directly after its others.
            bins = len(own) - 1
            ours.embeddings.bin_weight[row, : bins - 1].copy_(embeddings.linear.weight[row, : bins - 1])
            ours.embeddings.bin_weight[row, bins - 1].copy_(embeddings.linear.weight[row, -1])
        for layer, block in zip(ours.layers, blocks, strict=True):
            assert isinstance(layer, MembersLinear)
            layer.weight.copy_(block[0].weight)
            layer.input_factors.copy_(block[0].r)
            layer.output_factors.copy_(block[0].s)
            layer.bias.copy_(block[0].bias)
        ours.last_weight.copy_(theirs.output.weight)
        ours.last_bias.copy_(theirs.output.bias)
    torch.testing.assert_close(ours(numbers, categories), theirs(numbers, categories - 1))


def test_the_probabilities_of_the_members_are_averaged() -> None:
    outputs = torch.randn(5, 4, 3)
    torch.testing.assert_close(averaged(outputs, classifies=True).softmax(1), outputs.softmax(2).mean(1))
    torch.testing.assert_close(averaged(outputs[..., :1], classifies=False), outputs[..., :1].mean(1))


def test_in_training_it_gives_the_outputs_of_every_member_and_otherwise_their_average() -> None:
    model, numbers = tabm(), torch.randn(7, 3)
    each = model(numbers, NO_CATEGORIES)
    assert each.shape == (7, 4, 2)
    torch.testing.assert_close(model.eval()(numbers, NO_CATEGORIES), averaged(each, classifies=True))


def test_an_embedding_is_linear_in_each_bin_and_for_a_bins_width_beyond_the_outer_ones() -> None:
    edges = [torch.tensor([0.0, 1.0, 4.0])]
    embeddings = PiecewiseLinearEmbeddings(edges, 2)
    nn.init.normal_(embeddings.bin_weight)
    at = embeddings(torch.tensor([[-1.0], [0.0], [1.0], [2.5], [4.0], [7.0], [8.0]]))[:, 0]
    torch.testing.assert_close(at[3], (at[2] + at[4]) / 2)
    torch.testing.assert_close(at[5] - at[4], at[4] - at[2])
    torch.testing.assert_close(at[1] - at[0], at[2] - at[1])
    # From there on only the part that is linear in the number goes on.
    torch.testing.assert_close(at[6] - at[5], embeddings.weight[0])


def test_a_constant_and_a_number_of_two_values_have_no_bin_and_one() -> None:
    embeddings = PiecewiseLinearEmbeddings([scaled_knots([5.0] * 49), scaled_knots([0.0] * 25 + [1.0] * 24)], 3)
    assert embeddings.encoding.bins == 1
    assert embeddings.encoding(torch.tensor([[0.0, 0.0]]))[0, 0] == 0


def test_scaling_takes_the_quartiles_and_for_a_number_that_has_none_its_range() -> None:
    assert robust_scale([float(n) for n in range(49)]) == (24.0, 1 / 24)
    assert robust_scale([0.0] * 48 + [8.0]) == (0.0, 0.25)
    assert robust_scale([3.0] * 49) == (3.0, 0.0)


def test_clipping_keeps_numbers_near_0_and_bounds_far_ones_in_order() -> None:
    far = clipped(torch.tensor([-1e300, -5.0, 0.0, 5.0, 1e7]))
    assert far.abs().max() <= 3
    assert (far.diff() > 0).all()
    assert far[0] == -clipped(torch.tensor(torch.inf))
    torch.testing.assert_close(clipped(torch.tensor([1e-4])), torch.tensor([1e-4]))
