"""Export: SavedModels and other formats, verified before they are there."""
