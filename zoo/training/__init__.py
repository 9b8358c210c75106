"""Training, fine-tuning, evaluation and reproduction: recipes in, runs out."""
