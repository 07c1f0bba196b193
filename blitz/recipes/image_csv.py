"""Images that a CSV names: any classifier of torchvision, for classes, numbers or points in the image."""

from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, Self

import torch
import tyro
from torch import Tensor, nn

from blitz.augmentation import AugmentsImages, loss_of_mixed
from blitz.data.crops import Crops, five_crops, middle
from blitz.data.csv.image_dataset import CsvImages, ImageFit, TrainingImages, fit_images, image_inputs, image_rows
from blitz.data.csv.image_source import ImageCsvData
from blitz.data.plan import Split
from blitz.fields import held
from blitz.losses import LearnsTargets
from blitz.models.vision import normalisation, own_size, require_fits, vision_model
from blitz.optim import Optim
from blitz.outputs.metrics import Classification, Distance, Regression
from blitz.outputs.multi_label import MultiLabel, label_predictions
from blitz.outputs.predictions import class_predictions, number_predictions
from blitz.recipe import Batch, Draws


@dataclass(frozen=True)
class VisionModel:
    """The network."""

    name: str = "resnet18"
    """Any classifier of torchvision, such as resnet50, mobilenet_v3_small, efficientnet_b0, convnext_tiny, vit_b_16; or
    of timm, such as timm:convnextv2_atto."""


@dataclass(frozen=True)
class ImageCsv(LearnsTargets, AugmentsImages):
    """A classifier of torchvision or timm on the images of a CSV; it learns classes, labels, numbers or points."""

    epochs: int = 10
    optim: Optim = Optim(name="adamw", lr=1e-3, weight_decay=0.01, schedule="cosine")
    data: ImageCsvData = ImageCsvData()
    model: VisionModel = VisionModel()
    fitted_on: Annotated[ImageFit | None, tyro.conf.Suppress] = None
    opened: Annotated[TrainingImages | None, tyro.conf.Suppress] = held()

    def __post_init__(self) -> None:
        super().__post_init__()
        # Here, because a trained run is not fitted again, and --augmentation.views may change.
        if self.fitted_on is not None:
            points = self.fit.task == "points"
            self.augmentation.check(size=self.data.side, decoded=self.data.decoded, has_points=points)

    def fitted(self) -> Self:
        data = replace(self.data, size=self.data.size or own_size(self.model.name) or self.data.side)
        # Before the check of all files, which may take minutes.
        first_size = self.augmentation.first_size
        require_fits(self.model.name, outputs=2, size=data.side, first_size=first_size)
        fit, images = fit_images(data, self.seed)
        fitted = replace(self, data=data, fitted_on=fit, opened=images)
        rows = fitted.dataset("train")
        return fitted.checked_losses(fit.classes, len(rows), rows.labels)

    @property
    def fit(self) -> ImageFit:
        """What was fitted on the training rows."""
        assert self.fitted_on is not None
        return self.fitted_on

    @property
    def outputs(self) -> int:
        """The number of the model's outputs for an image."""
        return len(self.fit.labels.names if self.fit.labels else self.fit.classes or self.fit.targets)

    @property
    def max_bad_fraction(self) -> float:
        return self.data.max_bad_fraction

    @property
    def loader_workers(self) -> Literal["auto"] | int:
        return self.data.loader_workers

    @property
    def is_tested(self) -> bool:
        return self.data.has_test

    def dataset(self, split: Split) -> CsvImages:
        return self.sampled(image_rows(self.data, self.fit, split, self.seed, self.opened), split)

    def inputs(self, csv: str) -> CsvImages:
        return image_inputs(self.data, self.fit, csv)

    def build_model(self) -> nn.Module:
        return vision_model(self.model.name, outputs=self.outputs, size=self.data.side)

    def augment(self, batch: Batch, draws: Draws) -> Batch:
        classifies = self.fit.task in ("classification", "multilabel")
        return self.augmentation.applied(batch, draws, size=self.data.side, classifies=classifies, moved=self._moved)

    def _moved(self, batch: Batch, crops: Crops) -> Batch:
        """Points and the frame that they are relative to, after a crop."""
        if self.fit.task != "points":
            return batch
        points = {"targets": crops.points(batch["targets"])} if "targets" in batch else {}
        return {**batch, **points, "frame": crops.frame(batch["frame"])}

    def preprocess(self, batch: Batch) -> Batch:
        inputs, size = batch["inputs"].float().div(255), self.data.side
        # Training has already cropped to that size.
        if inputs.shape[-1] > size:
            whole, (inputs, crops) = inputs, middle(inputs, size)
            batch = self._moved(batch, crops)
            inputs = five_crops(whole, inputs) if self.augmentation.views == "crops" else inputs
        mean, std = (inputs.new_tensor(each)[:, None, None] for each in normalisation(self.model.name))
        return {**batch, "inputs": (inputs - mean) / std}

    def forward(self, model: nn.Module, batch: Batch) -> Tensor:
        return self.augmentation.outputs(model, batch["inputs"], classifies=self.fit.task == "classification")

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        if self.fit.task == "classification":
            return loss_of_mixed(self.loss_of_classes, outputs, batch)
        if self.fit.task == "multilabel":
            return loss_of_mixed(lambda *values: self.loss_of_labels(*values).mean(1), outputs, batch)
        return loss_of_mixed(lambda *values: self.loss_of_numbers(*values).mean(1), outputs, batch)

    def predictions(self, outputs: Tensor, batch: Batch) -> dict[str, list[str] | list[float]]:
        fit = self.fit
        match fit.task:
            case "classification":
                return class_predictions(outputs, fit.classes)
            case "multilabel":
                assert fit.labels is not None
                return label_predictions(outputs, fit.labels.names, fit.labels.separator)
            case "points":
                frame = batch["frame"][:, None]
                pixels = outputs.reshape(len(outputs), -1, 2) * frame[:, :, 2:] + frame[:, :, :2]
                return number_predictions(pixels.reshape(outputs.shape), dict.fromkeys(fit.targets, (0.0, 1.0)))
            case "numbers":
                return number_predictions(outputs, {each.name: (each.mean, each.std) for each in fit.numbers})

    def deployed(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        images, fit = batch["inputs"], self.fit
        if fit.task in ("classification", "multilabel"):
            return super().deployed(model, batch)
        if fit.task == "numbers":
            outputs = self.forward(model, self.preprocess(batch))
            stds, means = (
                outputs.new_tensor(each) for each in zip(*((n.std, n.mean) for n in fit.numbers), strict=True)
            )
            return {"predictions": outputs * stds + means}
        # In pixels of the given image: the frame is the whole image, one unit is half a side.
        half = images.shape[-1] / 2
        batch = self.preprocess({**batch, "frame": images.new_full((images.shape[0], 4), half, dtype=torch.float32)})
        points = self.forward(model, batch).reshape(-1, len(fit.targets) // 2, 2)
        frame = batch["frame"][:, None]
        return {"points": points * frame[:, :, 2:] + frame[:, :, :2]}

    def signature(self) -> dict[str, Any]:
        return {
            **super().signature(),
            **({} if self.fit.classes or self.labels else {"targets": list(self.fit.targets)}),
        }

    def metrics(self) -> Classification | Distance | MultiLabel | Regression:
        fit = self.fit
        match fit.task:
            case "classification":
                return Classification(fit.classes)
            case "multilabel":
                assert fit.labels is not None
                return MultiLabel(fit.labels.names)
            case "points":
                return Distance()
            case "numbers":
                return Regression(
                    units=tuple(number.std for number in fit.numbers),
                    means=tuple(number.mean for number in fit.numbers),
                    names=fit.targets if len(fit.targets) > 1 else (),
                    best=self.deciding_number,
                )
