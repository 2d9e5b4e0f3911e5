"""Section 3 of the paper: the multi-headed VAE."""
