"""Settings of `boustrophedon_blocks`."""

from __future__ import annotations

from pydantic import Field

from reorder_core import Settings


class BlocksSettings(Settings):
    """How large the blocks are."""

    side: int = Field(default=4, ge=1)
    """side of a block, in patches; blocks at the right and lower edge may be smaller"""
