"""The builder of images with their classes."""
