"""A loaded model: arrays in, arrays out.

pipeline      `Pipeline`, the Python interface
networks      the networks of a model on a device
loading       networks from a model folder, and whether it is what it should be
synthesis     generated images: reconstruct, swap style, interpolate, warp, sample
qc            whether a result can be trusted
posterior     draws of theta, and intervals of what is measured on them
latent_files  latent codes as files
provenance    what a generated file says of its making
selftest      whether a device computes what it should
"""
