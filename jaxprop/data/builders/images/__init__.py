"""Images with their classes."""
