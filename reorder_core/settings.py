"""Settings of components: frozen pydantic models, and references from one component to another.

A room's settings class derives from `Settings` and imports nothing heavy, so that `reorder check` needs no torch:

    class ReverseSettings(Settings):
        of: Ref["ordering"] = Field(default="row_major", description="the ordering to read backwards")

In YAML a reference is written like any component: `of: hilbert`, or `of: {name: spiral, inward: false}`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict

from reorder_core.errors import UsageError

if TYPE_CHECKING:
    from reorder_core.grid import Grid


#: In the JSON Schema of a settings class: this setting names a component of that kind.
REF_KIND = "x-reorder-kind"


@dataclass(frozen=True, slots=True)
class ComponentRef:
    """A component that a recipe names: kind, name and the settings as written (checked against its class later)."""

    kind: str
    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RefKind:
    """Marks a field as a reference to a component of `kind` (carried in the field's metadata)."""

    kind: str

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> dict[str, Any]:
        return {REF_KIND: self.kind}


class Ref:
    """`Ref["ordering"]`: the type of a setting that names another component."""

    def __class_getitem__(cls, kind: str) -> Any:
        def read(value: object) -> object:
            if isinstance(value, str):
                return ComponentRef(kind, value)
            if isinstance(value, Mapping) and isinstance(value.get("name"), str):
                rest = {key: item for key, item in value.items() if key != "name"}
                return ComponentRef(kind, value["name"], rest)
            if isinstance(value, ComponentRef):
                return value
            raise ValueError(f"name an {kind}, as 'row_major' or {{name: …, settings}}")

        return Annotated[ComponentRef, BeforeValidator(read), RefKind(kind)]


@dataclass(frozen=True, slots=True)
class DataFacts:
    """What is known of a data set without reading it: sizes in pixels, channels, classes, target, licence.

    target: `class`, `classes`, `mask`, `boxes`, `captions` or `questions` (`interfaces/targets.py`).
    """

    height: int
    width: int
    channels: int
    target: str = "class"
    classes: int | None = None
    vocabulary: int | None = None
    train: int | None = None
    validation: int | None = None
    licence: str = ""


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What a component's settings are checked against before anything is built.

    width, depth: of the tokens that a component inside another one gets (a mixer in a backbone), and blocks of the
    backbone that holds it, where its holder says so.
    """

    data: DataFacts
    grid: Grid
    patch: int
    batch_size: int
    positions: str
    training: Any = None
    width: int | None = None
    depth: int | None = None


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a setting: the key inside the component's settings, and one sentence of advice."""

    key: str
    message: str


class Settings(BaseModel):
    """Base of every component's settings: frozen, unknown keys refused, defaults checked, numbers finite."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, use_attribute_docstrings=True, allow_inf_nan=False
    )

    def problems(self, facts: RunFacts) -> Iterable[Problem]:
        """What is wrong with these settings in this run; override to add checks that need no torch."""
        return ()

    def facts_of(self, key: str, facts: RunFacts) -> Iterable[RunFacts]:
        """What the component that the setting `key` names will meet: these facts, unless it stands on other grids.

        Override where it does: a hierarchy's mixer is checked once for each of its stages.
        """
        return (facts,)


class DatasetSettings(Settings):
    """Settings of a data set: they describe it without torch."""

    def describe(self) -> DataFacts:
        """Image size in pixels, channels, classes or vocabulary, target type, licence. May look at folders, no more."""
        raise UsageError(f"{type(self).__name__} must say what its data looks like: define describe()")


def order_problems(orders: int, batch_size: int) -> Iterable[Problem]:
    """What is wrong with reading a batch in so many orders (the setting `orders`): each needs an image at least."""
    if orders > batch_size:
        yield Problem(
            "orders", f"{orders} orders do not fit a batch of {batch_size}: lower orders or raise the batch size"
        )


if TYPE_CHECKING:
    OrderingRef = ComponentRef
else:
    OrderingRef = Ref["ordering"]


class PolicySettings(Settings):
    """Settings of a policy: every policy can start from another order than the recipe's `ordering`."""

    prior: OrderingRef | None = None
    """the ordering that the policy starts from; the recipe's `ordering` where it is left out"""
