"""Folders of images and masks in, a model folder out.

train             a training put together: data, task, loop, calibration
loop              the training loop: any task, any number of processes
state             what a run is resumed from
recipe            presets, JSON files and flags as one checked recipe
validation        figures and sheets of validation images
cross_validation  train and test on each fold
distributed       several processes
vae_task          section 3.4: the VAE's loss and validation
cddpm_task        section 4: the cDDPM's
calibration       statistics of a validation part, for quality control
datasets          folders, splits and folds, and batches
augmentation      random turns, zooms, shifts, flips and tones
phantoms          synthetic heads and lesions, for tests and examples
textures          their textures
"""
