"""The contract of an ordering, for several sizes of block."""

import pytest
from reorder_boustrophedon_blocks.ordering import BoustrophedonBlocks
from reorder_boustrophedon_blocks.settings import BlocksSettings

from reorder_core.conformance import check_ordering


@pytest.mark.parametrize("side", [1, 2, 3, 20])
def test_contract(side):
    check_ordering(BoustrophedonBlocks, BlocksSettings(side=side))
