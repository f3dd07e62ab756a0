"""What this room promises."""

from __future__ import annotations

from reorder_core import Component, hookimpl


@hookimpl
def components() -> tuple[Component, ...]:
    return (
        Component(
            kind="dataset",
            name="digits",
            target="reorder_digits.digits:Digits",
            settings="reorder_digits.settings:DigitsSettings",
            summary="1,797 real handwritten digits of 8x8 pixels that come with scikit-learn",
            paper="Alpaydin & Kaynak, Optical Recognition of Handwritten Digits, UCI 1998",
        ),
        Component(
            kind="dataset",
            name="cluttered_digits",
            target="reorder_digits.cluttered:ClutteredDigits",
            settings="reorder_digits.settings:ClutteredDigitsSettings",
            summary="those digits on a larger canvas among pieces of other digits, at a place that is not uniform",
            paper="after cluttered MNIST: Mnih et al., Recurrent Models of Visual Attention, NeurIPS 2014, 4.1",
        ),
        Component(
            kind="dataset",
            name="digit_scenes",
            target="reorder_digits.scenes:DigitScenes",
            settings="reorder_digits.settings:DigitScenesSettings",
            summary="several of those digits on a canvas, with boxes, masks, classes, captions or questions",
            paper="captions and questions after CLEVR: Johnson et al., CVPR 2017; digits: Alpaydin & Kaynak, UCI 1998",
        ),
    )
