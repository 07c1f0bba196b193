"""Images that a CSV names: any classifier of torchvision, for classes, numbers or points in the image."""

from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, Self

import torch
import tyro
from torch import Tensor, nn

from blitz.data.crops import Crops, middle, recolored
from blitz.data.csv.image_dataset import CsvImages, ImageFit, TrainingImages, fit_images, image_inputs, image_rows
from blitz.data.csv.image_source import ImageCsvData
from blitz.data.plan import Split
from blitz.errors import require
from blitz.fields import held
from blitz.losses import LearnsTargets
from blitz.models.vision import require_fits, vision_model
from blitz.optim import Optim
from blitz.outputs.metrics import Classification, Distance, Regression
from blitz.outputs.predictions import class_predictions, number_predictions
from blitz.recipe import Batch, Draws

# ImageNet's, which torchvision's weights are made for.
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class VisionModel:
    """The network."""

    name: str = "resnet18"
    """Any classifier of torchvision, such as resnet50, mobilenet_v3_small, efficientnet_b0, convnext_tiny, vit_b_16."""


@dataclass(frozen=True)
class Augmentation:
    """Random augmentation in training, by the seed, the epoch and the row."""

    flip: bool | None = None
    """Mirror half of the images; by default for classes only."""
    min_area: float | None = None
    """The smallest share of the image's area that a crop takes, which is scaled to the input size: 1 never zooms in. By
    default 0.35 for classes, else 1."""
    color: float = 0.0
    """Change brightness and contrast by up to this share."""

    def __post_init__(self) -> None:
        area = self.min_area
        require(area is None or 0 < area <= 1, f"--augmentation.min-area is {area}; it must be above 0 and at most 1")
        require(0 <= self.color < 1, f"--augmentation.color is {self.color}; it must be in [0, 1)")


@dataclass(frozen=True)
class ImageCsv(LearnsTargets):
    """A classifier of torchvision on the images of a CSV; it learns classes, numbers or points."""

    epochs: int = 10
    optim: Optim = Optim(name="adamw", lr=1e-3, weight_decay=0.01, schedule="cosine")
    data: ImageCsvData = ImageCsvData()
    model: VisionModel = VisionModel()
    augmentation: Augmentation = Augmentation()
    fitted_on: Annotated[ImageFit | None, tyro.conf.Suppress] = None
    opened: Annotated[TrainingImages | None, tyro.conf.Suppress] = held()

    def fitted(self) -> Self:
        # Before the check of all files, which may take minutes.
        require_fits(self.model.name, outputs=2, size=self.data.size)
        fit, images = fit_images(self.data, self.seed)
        require(
            not (self.augmentation.flip and fit.task == "points"),
            "--augmentation.flip would swap left and right points, whose names it cannot swap; leave it out",
        )
        fitted = replace(self, fitted_on=fit, opened=images)
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
        return len(self.fit.classes) or len(self.fit.targets)

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
        return vision_model(self.model.name, outputs=self.outputs, size=self.data.size)

    def augment(self, batch: Batch, draws: Draws) -> Batch:
        data, classifies = self.data, self.fit.task == "classification"
        flip = classifies if self.augmentation.flip is None else self.augmentation.flip
        min_area = self.augmentation.min_area or (0.35 if classifies else 1.0)
        u = draws(7)
        if flip or min_area < 1 or data.decoded > data.size:
            crops = Crops.random(u[:, :5], share=data.size / data.decoded, min_area=min_area, flip=flip)
            batch = {**self._moved(batch, crops), "inputs": crops.of(batch["inputs"], data.size)}
        if self.augmentation.color:
            batch = {**batch, "inputs": recolored(batch["inputs"], u[:, 5:], self.augmentation.color)}
        return batch

    def _moved(self, batch: Batch, crops: Crops) -> Batch:
        """Points and the frame that they are relative to, after a crop."""
        if self.fit.task != "points":
            return batch
        points = {"targets": crops.points(batch["targets"])} if "targets" in batch else {}
        return {**batch, **points, "frame": crops.frame(batch["frame"])}

    def preprocess(self, batch: Batch) -> Batch:
        inputs, size = batch["inputs"].float().div(255), self.data.size
        # Training has already cropped to that size.
        if inputs.shape[-1] > size:
            inputs, crops = middle(inputs, size)
            batch = self._moved(batch, crops)
        mean, std = (inputs.new_tensor(each)[:, None, None] for each in (_MEAN, _STD))
        return {**batch, "inputs": (inputs - mean) / std}

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        if self.fit.task == "classification":
            return self.loss_of_classes(outputs, batch["targets"])
        return self.loss_of_numbers(outputs, batch["targets"]).mean(1)

    def predictions(self, outputs: Tensor, batch: Batch) -> dict[str, list[str] | list[float]]:
        fit = self.fit
        match fit.task:
            case "classification":
                return class_predictions(outputs, fit.classes)
            case "points":
                frame = batch["frame"][:, None]
                pixels = outputs.reshape(len(outputs), -1, 2) * frame[:, :, 2:] + frame[:, :, :2]
                return number_predictions(pixels.reshape(outputs.shape), dict.fromkeys(fit.targets, (0.0, 1.0)))
            case "numbers":
                return number_predictions(outputs, {each.name: (each.mean, each.std) for each in fit.numbers})

    def deployed(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        images, fit = batch["inputs"], self.fit
        if fit.task == "classification":
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
        return {**super().signature(), **({} if self.fit.classes else {"targets": list(self.fit.targets)})}

    def metrics(self) -> Classification | Distance | Regression:
        fit = self.fit
        match fit.task:
            case "classification":
                return Classification(fit.classes)
            case "points":
                return Distance()
            case "numbers":
                return Regression(
                    units=tuple(number.std for number in fit.numbers),
                    means=tuple(number.mean for number in fit.numbers),
                    names=fit.targets if len(fit.targets) > 1 else (),
                    best=self.deciding_number,
                )
