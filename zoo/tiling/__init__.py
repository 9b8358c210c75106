"""Scenes of any size: predicted and segmented tile by tile."""
