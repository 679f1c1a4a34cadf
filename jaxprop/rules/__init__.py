"""Rules: how a target cell is labelled from the context. One file a rule."""
