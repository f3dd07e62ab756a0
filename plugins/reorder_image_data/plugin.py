"""What this room promises."""

from __future__ import annotations

from reorder_core import Component, hookimpl


@hookimpl
def components() -> tuple[Component, ...]:
    return (
        Component(
            kind="dataset",
            name="image_folder",
            target="reorder_image_data.folder:ImageFolder",
            settings="reorder_image_data.settings:ImageFolderSettings",
            summary="your own images: {train,val}/<class>/*.jpg",
        ),
        Component(
            kind="dataset",
            name="torchvision",
            target="reorder_image_data.named:TorchvisionData",
            settings="reorder_image_data.settings:TorchvisionSettings",
            summary="a data set of torchvision by name: cifar10, cifar100, mnist, fashion_mnist, kmnist, imagenet",
        ),
        Component(
            kind="dataset",
            name="timm",
            target="reorder_image_data.named:TimmData",
            settings="reorder_image_data.settings:TimmSettings",
            summary="a data set by the name that timm gives it: hfds/… (of the hub), torch/…",
        ),
    )
