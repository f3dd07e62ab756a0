"""A hierarchy: stages that merge neighbours and shorten the sequence, around any mixer; features of every level."""
