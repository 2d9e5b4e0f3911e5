"""A loaded model: arrays in, arrays out.

pipeline      `Pipeline`, the Python interface
networks      the networks of a model on a device
loading       load the networks of a model folder, and verify it
synthesis     generated images: reconstruct, swap style, interpolate, warp
sampling      generated images: new latent codes, new places
looking       an object is found, and found again in a crop around it
qc            quality control: can a result be trusted?
carrying      the pixels of images that move with the object that a draft edits
audit         is a generated image closer to a training image than new images are?
texturing     what the cDDPM sees of latent codes
certainty     intervals of measurements, and the Dice to expect
posterior     samples of theta: outlines that the object could also have, and probability maps
latent_files  latent codes as files
provenance    the provenance record of a generated file
selftest      does a device compute correct results?
"""
