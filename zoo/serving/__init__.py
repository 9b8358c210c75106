"""Exported SavedModels behind an HTTP server."""
