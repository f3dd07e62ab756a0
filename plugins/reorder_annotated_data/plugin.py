"""What this room promises."""

from __future__ import annotations

from reorder_core import Component, hookimpl


@hookimpl
def components() -> tuple[Component, ...]:
    return (
        Component(
            kind="dataset",
            name="coco",
            target="reorder_annotated_data.coco:Coco",
            settings="reorder_annotated_data.settings:CocoSettings",
            summary="COCO JSON beside a folder of images: boxes, masks, classes or captions",
        ),
        Component(
            kind="dataset",
            name="mask_folder",
            target="reorder_annotated_data.mask_folder:MaskFolder",
            settings="reorder_annotated_data.settings:MaskFolderSettings",
            summary="a PNG of class numbers for each image, in a folder of their own (ADE20K, CamVid, Cityscapes)",
        ),
        Component(
            kind="dataset",
            name="vqa",
            target="reorder_annotated_data.vqa:Vqa",
            settings="reorder_annotated_data.settings:VqaSettings",
            summary="questions about images with what people answered, in the JSON layout of VQA v2",
        ),
        Component(
            kind="dataset",
            name="multilabel_csv",
            target="reorder_annotated_data.multilabel:MultilabelCsv",
            settings="reorder_annotated_data.settings:MultilabelCsvSettings",
            summary="a CSV of paths and classes, several classes an image",
        ),
    )
