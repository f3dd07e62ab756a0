"""What this room promises: the kind `tokenizer`, four of them, and the command that trains two."""

from __future__ import annotations

from reorder_core import Command, Component, Kind, hookimpl


@hookimpl
def kinds() -> tuple[Kind, ...]:
    return (
        Kind(
            name="tokenizer",
            plural="tokenizers",
            protocol="reorder_tokenizers.interface:Tokenizer",
            summary="turns each patch of an image into one of a few codes",
            contract="reorder_tokenizers.conformance:check_tokenizer",
            template="reorder_tokenizers.templates:tokenizer",
        ),
    )


def _tokenizer(name: str, target: str, summary: str, paper: str = "") -> Component:
    return Component(
        kind="tokenizer",
        name=name,
        target=f"reorder_tokenizers.{target}",
        summary=summary,
        settings=f"reorder_tokenizers.settings:{target.partition(':')[2]}Settings",
        paper=paper,
    )


@hookimpl
def components() -> tuple[Component, ...]:
    return (
        _tokenizer("uniform", "uniform:Uniform", "mean intensity of a patch in equal steps, 64 by default"),
        _tokenizer(
            "kmeans",
            "kmeans:KMeans",
            "the nearest of K typical patches, by mini-batch k-means",
            "Sculley 2010, Web-Scale K-Means Clustering",
        ),
        _tokenizer(
            "vqvae",
            "vqvae:Vqvae",
            "a small convolutional VQ-VAE with one code a patch, trained on your own images",
            "van den Oord, Vinyals and Kavukcuoglu 2017, arXiv 1711.00937",
        ),
        _tokenizer("codes", "codes:Codes", "codes that were made before, from an .npy or .npz file"),
    )


@hookimpl
def commands() -> tuple[Command, ...]:
    return (
        Command(
            "tokenizer",
            "reorder_tokenizers.command:command",
            "Learn the codes of patches from your own images: `tokenizer train`.",
        ),
    )
