"""reorder: the order of the patches as a plugin. What a plugin author may import, loaded on first use (PEP 562)."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reorder_core.component import Command as Command
    from reorder_core.component import Component as Component
    from reorder_core.component import Kind as Kind
    from reorder_core.errors import ReorderError as ReorderError
    from reorder_core.errors import RunError as RunError
    from reorder_core.errors import UnsupportedGrid as UnsupportedGrid
    from reorder_core.errors import UsageError as UsageError
    from reorder_core.grid import Grid as Grid
    from reorder_core.hookspecs import hookimpl as hookimpl
    from reorder_core.interfaces.backbone import Backbone as Backbone
    from reorder_core.interfaces.backbone import Features as Features
    from reorder_core.interfaces.backbone import Level as Level
    from reorder_core.interfaces.between import Between as Between
    from reorder_core.interfaces.context import Context as Context
    from reorder_core.interfaces.control import Control as Control
    from reorder_core.interfaces.dataset import Batch as Batch
    from reorder_core.interfaces.dataset import Dataset as Dataset
    from reorder_core.interfaces.dataset import Split as Split
    from reorder_core.interfaces.mixer import Mixer as Mixer
    from reorder_core.interfaces.ordering import Ordering as Ordering
    from reorder_core.interfaces.policy import Clock as Clock
    from reorder_core.interfaces.policy import Draw as Draw
    from reorder_core.interfaces.policy import Outcome as Outcome
    from reorder_core.interfaces.policy import Policy as Policy
    from reorder_core.interfaces.policy import PolicyStep as PolicyStep
    from reorder_core.interfaces.task import Metrics as Metrics
    from reorder_core.interfaces.task import Task as Task
    from reorder_core.interfaces.task import TaskResult as TaskResult
    from reorder_core.layout import Layout as Layout
    from reorder_core.saved import output_folder as output_folder
    from reorder_core.saved import write_json as write_json
    from reorder_core.saved import written_aside as written_aside
    from reorder_core.sequence import Block as Block
    from reorder_core.sequence import SequenceBackbone as SequenceBackbone
    from reorder_core.sequence import SequenceModel as SequenceModel
    from reorder_core.sequence import seeded as seeded
    from reorder_core.sequence_settings import SequenceSettings as SequenceSettings
    from reorder_core.sequence_settings import head_problems as head_problems
    from reorder_core.sequence_settings import uneven_heads as uneven_heads
    from reorder_core.settings import ComponentRef as ComponentRef
    from reorder_core.settings import DataFacts as DataFacts
    from reorder_core.settings import DatasetSettings as DatasetSettings
    from reorder_core.settings import PolicySettings as PolicySettings
    from reorder_core.settings import Problem as Problem
    from reorder_core.settings import Ref as Ref
    from reorder_core.settings import RunFacts as RunFacts
    from reorder_core.settings import Settings as Settings
    from reorder_core.settings import order_problems as order_problems
    from reorder_core.weights import load_weights as load_weights
    from reorder_core.weights import read_weights as read_weights

_HOMES = {
    "component": ("Command", "Component", "Kind"),
    "errors": ("ReorderError", "RunError", "UnsupportedGrid", "UsageError"),
    "grid": ("Grid",),
    "hookspecs": ("hookimpl",),
    "interfaces.backbone": ("Backbone", "Features", "Level"),
    "interfaces.between": ("Between",),
    "interfaces.context": ("Context",),
    "interfaces.control": ("Control",),
    "interfaces.dataset": ("Batch", "Dataset", "Split"),
    "interfaces.mixer": ("Mixer",),
    "interfaces.ordering": ("Ordering",),
    "interfaces.policy": ("Clock", "Draw", "Outcome", "Policy", "PolicyStep"),
    "interfaces.task": ("Metrics", "Task", "TaskResult"),
    "layout": ("Layout",),
    "saved": ("output_folder", "write_json", "written_aside"),
    "sequence": ("Block", "SequenceBackbone", "SequenceModel", "seeded"),
    "sequence_settings": ("SequenceSettings", "head_problems", "uneven_heads"),
    "settings": (
        "ComponentRef",
        "DataFacts",
        "DatasetSettings",
        "PolicySettings",
        "Problem",
        "Ref",
        "RunFacts",
        "Settings",
        "order_problems",
    ),
    "weights": ("load_weights", "read_weights"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    *sorted(_HOME_OF),
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'reorder_core' has no attribute {name!r}")
    return getattr(import_module(f"reorder_core.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *_HOME_OF]
