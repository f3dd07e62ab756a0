"""The Mamba-2 backbone: Mamba's stack of pre-norm residual blocks, with the mixer of Mamba-2."""

from __future__ import annotations

from reorder_mamba.backbone import MambaBackbone
from reorder_mamba.mamba2_mixer import Mamba2Mixer


class Mamba2Backbone(MambaBackbone):
    """See `Mamba2Settings`. Names of parameters follow mamba-ssm's MixerModel: `layers.0.mixer.in_proj.weight`, …

    Readouts, registers and running by steps are those of Mamba-1's backbone; only the mixers are other ones.
    """

    mixer_class = Mamba2Mixer
