"""A model with its order baked in, as a file: torch.export (`.pt2`) or ONNX, compared with the model before it is kept.

B images, C channels, H W pixels, N patches.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from reorder_core.errors import ReorderError, RunError, UsageError, one_line
from reorder_core.layout import Layout
from reorder_core.opened import Opened

Format = Literal["torch", "onnx"]
_TOLERANCE = 1e-4


class Frozen(nn.Module):
    """Images [B, C, H, W] to what the task predicts (`task.predict`), or to the summary, in one fixed order.

    The order is a constant of the module: whoever loads the exported file needs neither it nor this package. Of a
    policy that gives each image an order of its own it is that of its mean scores: the policy is not exported.
    """

    order_N: Tensor

    def __init__(self, opened: Opened) -> None:
        super().__init__()
        self.model, self.task, self.grid = opened.model, opened.task, opened.grid
        self.register_buffer("order_N", torch.from_numpy(opened.order_N.copy()).to(opened.device))

    def forward(self, images_BCHW: Tensor) -> Tensor:
        features = self.model(images_BCHW, Layout.fixed(self.grid, self.order_N))
        predict = getattr(self.task, "predict", None)
        found: Tensor = features.summary_BD if predict is None else predict(features)
        return found


@dataclass(frozen=True)
class Exported:
    """difference: the largest between the exported model and the model itself, relative to the largest output."""

    path: Path
    format: Format
    difference: float
    outputs: tuple[int, ...]


def export(opened: Opened, path: Path, to: Format, batch: int | None = None) -> Exported:
    """Write `opened` with its order baked in; batch None: any number of images, else exactly that many.

    Raises `RunError` where the model cannot be exported or the exported one answers differently (nothing is kept then),
    and `UsageError` where a package for ONNX is missing.
    """
    module = Frozen(opened).eval()
    images_BCHW = _images(opened, batch or 2)
    shapes = None if batch else {"images_BCHW": {0: torch.export.Dim.DYNAMIC}}
    aside = path.with_name(f"part-{path.name}")
    try:
        with torch.no_grad():  # what is exported answers; it does not learn
            expected = module(images_BCHW)
        path.parent.mkdir(parents=True, exist_ok=True)
        write = {"torch": _write_torch, "onnx": _write_onnx}[to]
        with torch.no_grad():
            answer = write(module, images_BCHW, shapes, aside)
        difference = _difference(expected, answer(images_BCHW))
        if not batch:  # the number of images is free only if another number works
            one_BCHW = images_BCHW[:1]
            with torch.no_grad():
                difference = max(difference, _difference(module(one_BCHW), answer(one_BCHW)))
        if difference > _TOLERANCE:
            raise RunError(f"the exported model answers differently by {difference:.1e}: nothing was written")
        aside.replace(path)
    except ReorderError:
        raise
    except OSError as error:
        raise UsageError(f"{path} cannot be written ({error.strerror}): choose another --out") from error
    except Exception as error:
        kind = "a fixed number of images: add --batch 1" if not batch else "another format"
        reason = one_line(error, 300)
        name = opened.recipe.backbone.name
        raise RunError(f"the backbone '{name}' cannot be exported so ({reason}); try {kind}") from error
    finally:
        aside.unlink(missing_ok=True)
    return Exported(path, to, difference, tuple(expected.shape[1:]))


def _write_torch(module: nn.Module, images_BCHW: Tensor, shapes: Any, path: Path) -> Callable[[Tensor], Tensor]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch itself, about its own internals
        program = torch.export.export(module, (images_BCHW,), dynamic_shapes=shapes, strict=False)
        torch.export.save(program, str(path))  # by name: it wants the ending .pt2
        loaded: Callable[[Tensor], Tensor] = torch.export.load(str(path)).module()
    return loaded


def _write_onnx(module: nn.Module, images_BCHW: Tensor, shapes: Any, path: Path) -> Callable[[Tensor], Tensor]:
    try:
        import onnxruntime
        import onnxscript  # noqa: F401  (what torch.onnx needs)
    except ImportError as error:
        raise UsageError(
            f"ONNX needs a package that is not installed ({error.name}): pip install 'reorder[onnx]'"
        ) from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            (images_BCHW,),
            str(path),
            input_names=["images"],
            output_names=["prediction"],
            dynamic_shapes=shapes,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def answer(given_BCHW: Tensor) -> Tensor:
        (found,) = session.run(None, {"images": given_BCHW.cpu().numpy()})
        return torch.from_numpy(found)

    return answer


def _images(opened: Opened, count: int) -> Tensor:
    """The first validation image with some noise, `count` times over."""
    (batch,) = opened.batches(opened.dataset.validation, 1)
    generator = torch.Generator().manual_seed(0)
    noise_BCHW = torch.randn(count, *batch.images_BCHW.shape[1:], generator=generator)
    return batch.images_BCHW + 0.1 * noise_BCHW.to(opened.device)


def _difference(expected: Tensor, found: Tensor) -> float:
    expected, found = expected.detach().float().cpu(), found.detach().float().cpu()
    if expected.shape != found.shape:
        return float("inf")
    return float((expected - found).abs().max() / expected.abs().max().clamp(min=1e-12))
