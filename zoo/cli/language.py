"""Commands of language models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

import zoo
from zoo.cli.options import Json, Seed, Trained
from zoo.errors import say


def generate(
    source: Trained,
    prompt: Annotated[str, typer.Option(help="The beginning of the text.")] = "",
    length: Annotated[int, typer.Option(help="Characters to write after the prompt, at most 10,000.")] = 500,
    temperature: Annotated[
        float, typer.Option(help="Below 1 for more probable texts; 0 for the most probable character each time.")
    ] = 1.0,
    top_k: Annotated[int, typer.Option(help="Draw from so many of the most probable characters; 0 for all.")] = 0,
    top_p: Annotated[
        float, typer.Option(help="Draw from the most probable characters that make up this share; 1 for all.")
    ] = 1.0,
    seed: Seed = 0,
) -> None:
    """Continue a text by a language model, printed as it is written."""
    pieces = zoo.generate(
        source, prompt, length=length, temperature=temperature, top_k=top_k, top_p=top_p, seed=seed
    )  # fmt: skip
    say(prompt, end="", flush=True)
    for piece in pieces:
        say(piece, end="", flush=True)
    say()


def score(
    source: Trained,
    texts: Annotated[list[str], typer.Argument(help="Texts, each of at most 131,072 characters.")],
    picture: Annotated[
        Path | None, typer.Option(help="Write a picture of the texts: the less probable a character, the darker.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure how improbable a language model finds texts, in nats: the lower, the likelier."""
    scores = zoo.score(source, texts)
    if as_json:
        rows = [
            {"text": one.text, "nats": one.nats, "character_nats": [float(nats) for nats in one.character_nats]}
            for one in scores
        ]
        say(json.dumps(rows, indent=1))
    else:
        for one in scores:
            say(f"{one.nats:.4f}  {one.bits_per_character:.4f} bits/character  {one.text}")
    if picture is not None:
        zoo.draw_scores(scores, picture)
        if not as_json:
            say(f"picture: {picture}")
