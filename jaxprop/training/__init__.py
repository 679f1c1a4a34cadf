"""Training: the state, a step on all devices, checkpoints, and the loop around them."""
