"""A loaded model: arrays in, arrays out."""
