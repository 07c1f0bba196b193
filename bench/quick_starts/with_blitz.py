"""The quick start of blitz."""

from torch import nn

import blitz
from bench.quick_starts.problem import TRAIN, VAL, Net

run = blitz.train(
    model=Net, train=TRAIN, val=VAL, loss=nn.CrossEntropyLoss(), optim=blitz.Optim("adam"), global_batch_size=64
)
print(run.metrics["val/loss"], run.metrics["val/accuracy"])
