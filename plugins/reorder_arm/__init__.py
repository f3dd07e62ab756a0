"""ARM: blocks of Mamba and MLP, and their autoregressive pretraining in the order that is given."""
