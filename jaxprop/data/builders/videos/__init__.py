"""The builder of videos, cut into clips."""
