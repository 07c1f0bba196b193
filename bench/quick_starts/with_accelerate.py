"""As Accelerate's quick start has it: the plain loop, with its objects prepared; evaluation written by hand."""

import torch
from accelerate import Accelerator
from torch import nn
from torch.utils.data import DataLoader

from bench.quick_starts.problem import TRAIN, VAL, Net

accelerator = Accelerator()
model, loss_fn = Net(), nn.CrossEntropyLoss()
optimizer = torch.optim.Adam(model.parameters())
train_loader = DataLoader(TRAIN, batch_size=64, shuffle=True)
val_loader = DataLoader(VAL, batch_size=64)
model, optimizer, train_loader, val_loader = accelerator.prepare(model, optimizer, train_loader, val_loader)
model.train()
for x, y in train_loader:
    optimizer.zero_grad()
    loss = loss_fn(model(x), y)
    accelerator.backward(loss)
    optimizer.step()
model.eval()
losses, right = [], []
with torch.no_grad():
    for x, y in val_loader:
        outputs, targets = accelerator.gather_for_metrics((model(x), y))
        losses.append(nn.functional.cross_entropy(outputs, targets, reduction="none"))
        right.append(outputs.argmax(1) == targets)
print(torch.cat(losses).mean().item(), torch.cat(right).float().mean().item())
