"""Images that a CSV names: any classifier of torchvision, for classes, numbers or points in the image."""

from dataclasses import dataclass, replace
from typing import Annotated, Literal, Self

import torch
import torch.nn.functional as F
import tyro
from torch import Tensor, nn

from blitz.data.csv.image_rows import CsvImages, ImageCsvData, ImageFit, fit_images, image_inputs, image_rows
from blitz.data.plan import Split
from blitz.errors import require
from blitz.metrics import Classification, Distance, Regression
from blitz.models.vision import require_fits, vision_model
from blitz.predictions import class_predictions, number_predictions
from blitz.recipe import Batch, Draws, Optim, Recipe

# ImageNet's, which torchvision's weights are made for.
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class VisionModel:
    """The network."""

    name: str = "resnet18"
    """Any classifier of torchvision, such as resnet50, mobilenet_v3_small, efficientnet_b0, convnext_tiny, vit_b_16."""


@dataclass(frozen=True)
class Augmentation:
    """What training does to images at random, by the seed, the epoch and the row."""

    flip: bool | None = None
    """Mirror half of them; by default where classes are learned."""
    min_area: float | None = None
    """Least share of the image that a crop takes, of which the model sees all: 1 is never to zoom in. By default 0.35
    where classes are learned, else 1."""
    color: float = 0.0
    """Change brightness and contrast by up to this share."""

    def __post_init__(self) -> None:
        area = self.min_area
        require(area is None or 0 < area <= 1, f"--augmentation.min-area is {area}; it must be above 0 and at most 1")
        require(0 <= self.color < 1, f"--augmentation.color is {self.color}; it must be in [0, 1)")


@dataclass(frozen=True)
class ImageCsv(Recipe):
    """A classifier of torchvision on the images of a CSV; it learns classes, numbers or points."""

    epochs: int = 10
    optim: Optim = Optim(name="adamw", lr=1e-3, weight_decay=0.01, schedule="cosine")
    data: ImageCsvData = ImageCsvData()
    model: VisionModel = VisionModel()
    augmentation: Augmentation = Augmentation()
    fitted_on: Annotated[ImageFit | None, tyro.conf.Suppress] = None

    def fitted(self) -> Self:
        fit = fit_images(self.data, self.seed)
        require(
            not (self.augmentation.flip and fit.task == "points"),
            "--augmentation.flip would make left points right ones, which only who marked them can name; leave it out",
        )
        recipe = replace(self, fitted_on=fit)
        require_fits(self.model.name, outputs=recipe.outputs, size=self.data.size)
        return recipe

    @property
    def fit(self) -> ImageFit:
        """What is known of the training rows."""
        assert self.fitted_on is not None
        return self.fitted_on

    @property
    def outputs(self) -> int:
        """Numbers that the model gives for an image."""
        return len(self.fit.classes) or len(self.fit.targets)

    @property
    def max_bad_fraction(self) -> float:
        return self.data.max_bad_fraction

    @property
    def loader_workers(self) -> Literal["auto"] | int:
        return self.data.loader_workers

    def dataset(self, split: Split) -> CsvImages:
        return image_rows(self.data, self.fit, split, self.seed)

    def inputs(self, csv: str) -> CsvImages:
        return image_inputs(self.data, self.fit, csv)

    def build_model(self) -> nn.Module:
        return vision_model(self.model.name, outputs=self.outputs, size=self.data.size)

    def augment(self, batch: Batch, draws: Draws) -> Batch:
        classifies = self.fit.task == "classification"
        flip = classifies if self.augmentation.flip is None else self.augmentation.flip
        min_area = self.augmentation.min_area or (0.35 if classifies else 1.0)
        crop = min_area < 1 or self.data.decoded > self.data.size
        u = draws(7)
        if crop or flip:
            batch = self._cropped(batch, u, min_area=min_area, flip=flip)
        if self.augmentation.color:
            batch = {**batch, "inputs": _recolored(batch["inputs"], u[:, 5:], self.augmentation.color)}
        return batch

    def _cropped(self, batch: Batch, u: Tensor, *, min_area: float, flip: bool) -> Batch:
        """A crop of each image, of random area, shape and place, as large as the model sees it.

        As torchvision's RandomResizedCrop (Szegedy et al. 2014) on the square that was decoded. Coordinates are in
        halves of that square, from its centre: a point u of the crop shows the point `centre + extent * u`.
        """
        size, decoded = self.data.size, self.data.decoded
        if min_area < 1:
            area = min_area + (1 - min_area) * u[:, 0]
            ratio = (3 / 4) * (16 / 9) ** u[:, 1]
            extent = torch.stack([(area * ratio).sqrt(), (area / ratio).sqrt()], dim=1).clamp(max=1)
        else:
            extent = u.new_full((len(u), 2), size / decoded)
        centre = (2 * u[:, 2:4] - 1) * (1 - extent)
        if flip:
            extent = extent * torch.stack([1 - 2 * (u[:, 4] < 0.5).float(), torch.ones_like(u[:, 4])], dim=1)
        theta = torch.cat([torch.diag_embed(extent), centre[:, :, None]], dim=2)
        grid = F.affine_grid(theta, [len(u), 3, size, size], align_corners=False)
        inputs = F.grid_sample(batch["inputs"].float(), grid, padding_mode="reflection", align_corners=False)
        return {**batch, "inputs": inputs, **self._moved(batch, centre, extent)}

    def _moved(self, batch: Batch, centre: Tensor, extent: Tensor) -> Batch:
        """Points, and the frame that they are told in, after a crop."""
        if "frame" not in batch:
            return {}
        frame = batch["frame"]
        seen = torch.cat([frame[:, :2] + centre * frame[:, 2:], frame[:, 2:] * extent], dim=1)
        if "targets" not in batch:
            return {"frame": seen}
        points = batch["targets"].reshape(len(frame), -1, 2)
        moved = (points - centre[:, None]) / extent[:, None]
        return {"frame": seen, "targets": moved.reshape(batch["targets"].shape)}

    def preprocess(self, batch: Batch) -> Batch:
        inputs, size = batch["inputs"].float().div(255), self.data.size
        moved: Batch = {}
        if inputs.shape[-1] > size:
            # The middle: training has cropped already.
            first = (inputs.shape[-1] - size) // 2
            side = inputs.shape[-1]
            inputs = inputs[:, :, first : first + size, first : first + size]
            extent = inputs.new_full((len(inputs), 2), size / side)
            moved = self._moved(batch, extent.new_full((len(inputs), 2), (2 * first + size) / side - 1), extent)
        mean, std = (inputs.new_tensor(each)[:, None, None] for each in (_MEAN, _STD))
        return {**batch, **moved, "inputs": (inputs - mean) / std}

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        if self.fit.task == "classification":
            return F.cross_entropy(outputs, batch["targets"], reduction="none")
        return (outputs - batch["targets"]).square().mean(1)

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
                    names=fit.targets if len(fit.targets) > 1 else (),
                )


def _recolored(inputs: Tensor, u: Tensor, most: float) -> Tensor:
    """Pixels from 0 to 255 with brightness and contrast times 1 - most to 1 + most, by `u` of shape (batch, 2)."""
    brightness, contrast = ((1 + most * (2 * u - 1))[:, :, None, None, None]).unbind(1)
    inputs = inputs.float() * brightness
    mean = inputs.mean(dim=(1, 2, 3), keepdim=True)
    return ((inputs - mean) * contrast + mean).clamp(0, 255)
