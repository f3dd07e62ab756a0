"""Settings of the annotated data sets: where their files are, and what is read from them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from reorder_annotated_data.pipeline_settings import Name, PipelineSettings, SplitName
from reorder_core import DataFacts


def placed(root: str, name: str) -> Path:
    """The file or folder `name` in `root`; an absolute `name` stands for itself."""
    return Path(root).expanduser() / Path(name).expanduser()


class CocoSettings(PipelineSettings):
    """COCO JSON beside folders of images; the names of files and folders are COCO 2017's where they are left out."""

    target: Literal["boxes", "mask", "classes", "captions"] = "boxes"
    """boxes: objects; mask: the class of each pixel, 0 is the background; classes: which ones are seen; captions"""
    train_images: Name = "train2017"
    """the folder in `root` with the training images"""
    train_annotations: Name | None = None
    """their JSON file in `root`; annotations/instances_train2017.json (captions_… for captions) where left out"""
    validation_images: Name = "val2017"
    """the folder in `root` with the validation images"""
    validation_annotations: Name | None = None
    """their JSON file, likewise …_val2017.json"""
    classes: int | None = Field(default=None, ge=1)
    """how many categories there are: with it a recipe can be checked where the files are not. Counted where left out"""
    categories: Annotated[list[Name], Field(min_length=1)] | None = None
    """names of the categories to keep, numbered in this order; all, in the order of their ids, where left out"""
    masks: bool = False
    """target: boxes only: give each object's mask as well (polygons and run lengths, by pycocotools)"""
    drop_empty: bool = False
    """leave out training images that show no object, or crowds only"""
    min_area: float = Field(default=1.0, ge=0)
    """boxes of training images that keep fewer square pixels than this after cropping are left out"""
    faulty: Literal["stop", "repair"] = "stop"
    """stop at a box outside its image or of no area or a caption without words; or clip boxes, leave the rest out"""

    @property
    def target_type(self) -> str:
        return self.target

    @model_validator(mode="after")
    def _only_what_is_used(self) -> CocoSettings:
        if self.masks and self.target != "boxes":
            raise ValueError("masks: are given beside boxes; write target: boxes, or leave it out")
        if self.min_area != type(self).model_fields["min_area"].default and self.target != "boxes":
            raise ValueError("min_area: is about boxes; write target: boxes, or leave it out")
        if self.target == "captions":
            for name in ("categories", "classes"):
                if getattr(self, name) is not None:
                    raise ValueError(f"{name}: captions have none; leave it out, or choose another target")
            if self.drop_empty:
                raise ValueError("drop_empty: is about objects; leave it out, or choose another target")
        if self.categories is not None:
            if len(set(self.categories)) != len(self.categories):
                raise ValueError("categories: name each one once")
            if self.classes not in (None, len(self.categories)):
                raise ValueError(f"classes: {self.classes}, and `categories` names {len(self.categories)}: correct one")
        if self.target == "mask" and (self.classes or 0) > 254:
            raise ValueError("classes: a mask holds 254 at most beside the background; choose some by `categories`")
        return self

    def images(self, split: SplitName) -> Path:
        """The folder of a split's images."""
        return placed(self.root, self.train_images if split == "train" else self.validation_images)

    def annotations(self, split: SplitName) -> Path:
        """The JSON file of a split."""
        given = self.train_annotations if split == "train" else self.validation_annotations
        what = "captions" if self.target == "captions" else "instances"
        year = "train2017" if split == "train" else "val2017"
        return placed(self.root, given or f"annotations/{what}_{year}.json")

    def describe(self) -> DataFacts:
        """Reads the training JSON where it has to count. Raises `UsageError` for what is wrong with it."""
        if self.target == "captions":
            return self.facts_with(None, target=self.target_type)
        count = self.classes or (None if self.categories is None else len(self.categories))
        if count is None:
            from reorder_annotated_data.coco_file import coco_file

            count = len(coco_file(self, "train").classes)
        return self.facts_with(count + (self.target == "mask"), target=self.target_type)


class MaskFolderSettings(PipelineSettings):
    """Images in one folder, and in another one a PNG for each, whose pixels are class numbers (palette or grey)."""

    train_images: Name = "images/train"
    """the folder in `root` with the training images, in deeper folders too"""
    train_masks: Name = "masks/train"
    """the folder in `root` with their masks, in the same deeper folders"""
    validation_images: Name = "images/val"
    """the folder in `root` with the validation images"""
    validation_masks: Name = "masks/val"
    """the folder in `root` with their masks"""
    image_suffix: Name = ".jpg"
    """how the images' names end"""
    mask_suffix: Name = ".png"
    """what stands in the masks' names in its place: _L.png (CamVid), _labelTrainIds.png"""
    classes: Annotated[int, Field(ge=1, le=255)] | Annotated[list[Name], Field(min_length=1, max_length=255)] | Name
    """how many classes there are; or their names; or the text file in `root` that has one name a line"""
    ignore: tuple[Annotated[int, Field(ge=0, le=65535)], ...] = (255,)
    """values in the masks that mean 'not known': such pixels count neither in a loss nor in a metric"""
    offset: int = Field(default=0, ge=0, le=1)
    """1: the masks count their classes from 1, and 0 means 'not known' (ADE20K)"""

    @property
    def target_type(self) -> str:
        return "mask"

    @model_validator(mode="after")
    def _number_of_classes(self) -> MaskFolderSettings:
        if isinstance(self.classes, str) and self.classes.lstrip("-").isdigit():  # no number from 1 to 255, so a name
            raise ValueError(f"classes: a mask holds 1 to 255 classes, not {self.classes}")
        return self

    def folder(self, split: SplitName, what: Literal["images", "masks"]) -> Path:
        """The folder of a split's images, or that of their masks."""
        return placed(self.root, getattr(self, f"{split}_{what}"))

    def names(self) -> tuple[str, ...]:
        """The names of the classes. Raises `UsageError` where their file is missing or empty."""
        if isinstance(self.classes, int):
            return tuple(str(number) for number in range(self.classes))
        if isinstance(self.classes, str):
            from reorder_annotated_data.text_files import lines_of

            return lines_of("classes", placed(self.root, self.classes))
        return tuple(self.classes)

    def describe(self) -> DataFacts:
        return self.facts_with(len(self.names()), target=self.target_type)


class VqaSettings(PipelineSettings):
    """Questions and answers in the JSON layout of VQA v2; file names are VQA v2's where they are left out."""

    train_images: Name = "train2014"
    """the folder in `root` with the training images"""
    train_pattern: Name = "COCO_train2014_{id:012d}.jpg"
    """their file names; {id} is the image's number"""
    train_questions: Name = "v2_OpenEnded_mscoco_train2014_questions.json"
    """the JSON file in `root` with the training questions"""
    train_annotations: Name = "v2_mscoco_train2014_annotations.json"
    """the JSON file in `root` with their answers"""
    validation_images: Name = "val2014"
    """the folder in `root` with the validation images"""
    validation_pattern: Name = "COCO_val2014_{id:012d}.jpg"
    """their file names"""
    validation_questions: Name = "v2_OpenEnded_mscoco_val2014_questions.json"
    """the JSON file in `root` with the validation questions"""
    validation_annotations: Name = "v2_mscoco_val2014_annotations.json"
    """the JSON file in `root` with their answers"""
    kind: Literal["answer_type", "question_type"] = "answer_type"
    """what accuracy by type goes by: yes/no, number, other; or how the question begins"""

    @property
    def target_type(self) -> str:
        return "questions"

    @model_validator(mode="after")
    def _patterns(self) -> VqaSettings:
        for name in ("train_pattern", "validation_pattern"):
            pattern: Any = getattr(self, name)
            try:
                same = pattern.format(id=1) == pattern.format(id=2)
            except (LookupError, ValueError, AttributeError) as problem:
                raise ValueError(f"{name}: write the image's number as {{id}} or {{id:012d}}") from problem
            if same:
                raise ValueError(f"{name}: must hold the image's number: write {{id}} or {{id:012d}}")
        return self

    def path(self, split: SplitName, what: Literal["images", "questions", "annotations"]) -> Path:
        """The folder of a split's images, or one of its JSON files."""
        return placed(self.root, getattr(self, f"{split}_{what}"))

    def pattern(self, split: SplitName) -> str:
        """The file names of a split's images."""
        return self.train_pattern if split == "train" else self.validation_pattern

    def describe(self) -> DataFacts:
        return self.facts_with(None, target=self.target_type)


class MultilabelCsvSettings(PipelineSettings):
    """A CSV with a line for each image: its path, and its classes, in a column each or all in one."""

    train: Name = "train.csv"
    """the CSV in `root` with the training images"""
    validation: Name = "val.csv"
    """the CSV in `root` with the validation images"""
    images: str = ""
    """the folder in `root` that the paths start from"""
    path_column: Name = "path"
    """the column with the paths"""
    labels_column: Name | None = None
    """the column that lists an image's classes; where left out, every class has a column of 0 and 1"""
    separator: Annotated[str, Field(min_length=1)] = ";"
    """labels_column only: what stands between two classes: ';', ' '"""
    suffix: str = ""
    """what the paths lack at their end (.jpg)"""
    classes: Annotated[list[Name], Field(min_length=1)] | None = None
    """their names, in order; where left out all other columns, or all labels of the training CSV, sorted"""

    @property
    def target_type(self) -> str:
        return "classes"

    @model_validator(mode="after")
    def _only_what_is_used(self) -> MultilabelCsvSettings:
        if self.separator != type(self).model_fields["separator"].default and self.labels_column is None:
            raise ValueError("separator: has a meaning with labels_column only; name that column, or leave it out")
        if self.classes is not None and len(set(self.classes)) != len(self.classes):
            raise ValueError("classes: name each one once")
        return self

    def csv(self, split: SplitName) -> Path:
        """The CSV of a split."""
        return placed(self.root, self.train if split == "train" else self.validation)

    def describe(self) -> DataFacts:
        """Reads the training CSV where `classes` is left out. Raises `UsageError` for what is wrong with it."""
        if self.classes is not None:
            return self.facts_with(len(self.classes), target=self.target_type)
        from reorder_annotated_data.csv_file import csv_file

        return self.facts_with(len(csv_file(self, "train").classes), target=self.target_type)
