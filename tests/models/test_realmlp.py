import pytest
import torch

from blitz.models.number_embeddings import Tuned
from blitz.models.realmlp import NtkLinear, RealMLP


def test_each_layers_outputs_vary_by_one_at_the_start() -> None:
    torch.manual_seed(0)
    layer, inputs = NtkLinear(30, 8), 5 * torch.randn(1000, 30) + 2
    outputs = layer.fit_start(inputs)
    torch.testing.assert_close(outputs.std(0, correction=0), torch.ones(8))
    # Each unit's kink lies among its outputs, so it is 0 for some of the rows.
    assert ((outputs.amin(0) < 0) & (outputs.amax(0) > 0)).all()


def test_a_tuned_tensor_moves_by_its_factor_under_adam() -> None:
    tuned, plain = Tuned(torch.ones(3), 0.1), torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.Adam([tuned.change, plain], lr=0.01)
    (tuned().square().sum() + plain.square().sum()).backward()
    optimizer.step()
    torch.testing.assert_close(1 - tuned(), 0.1 * (1 - plain.detach()), rtol=1e-4, atol=0)


@pytest.mark.parametrize(("quantiles", "codes"), [(1, ()), (0, (4, 3)), (2, (12,))])
def test_it_takes_numbers_flags_and_categories_or_some_of_these(quantiles: int, codes: tuple[int, ...]) -> None:
    model = RealMLP(
        numbers=quantiles + 1,
        quantiles=[torch.linspace(-1, 1, 5)] * quantiles,
        codes=codes,
        outputs=2,
        hidden=(16, 16),
        dropout=0.15,
        classifies=True,
    )
    rows = torch.randn(7, quantiles + 1), torch.zeros(7, len(codes), dtype=torch.long)
    assert model(*rows).shape == (7, 1, 2)
    assert model.eval()(*rows).shape == (7, 2)
