"""Videos, cut into clips."""
