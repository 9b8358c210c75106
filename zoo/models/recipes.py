"""Recipes that several families start from: each family's file states what it changes."""

from __future__ import annotations

from zoo.recipe import Affine, Augmentation, Elastic, Recipe, Schedule

# For small gray images, such as MNIST.
MODERN_IMAGES = Recipe(
    epochs=40,
    batch_size=128,
    learning_rate=2e-3,
    optimizer="adamw",
    schedule=Schedule("cosine", warmup_epochs=1),
    weight_decay=0.02,
    ema=0.999,
    augmentation=Augmentation(
        affine=Affine(rotation=10.0, translation=0.07, scale=0.1, skew=5.0),
        elastic=Elastic(alpha=20.0, sigma=4.0),
        warped=0.6,  # interpolation blurs: networks that also train on sharp images have better validation scores
    ),
)

# For networks with few units, which cannot fit wide distortions.
MILD_DISTORTIONS = Augmentation(
    affine=Affine(rotation=6.0, translation=0.04, scale=0.06, skew=5.0),
    elastic=Elastic(alpha=12.0, sigma=4.0),
)
