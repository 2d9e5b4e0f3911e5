"""Training: from folders of images and masks to a model folder.

train             assembles a training run: data, model, task, loop, calibration
loop              the training loop, for any task and any number of processes
state             the training state on disk, and how a run is resumed from it
recipe            presets, JSON files and options merged into one checked recipe
validation        validation metrics and contact sheets
cross_validation  k-fold cross-validation
distributed       process groups and stop signals
vae_task          section 3.4: the loss and validation of the VAE
cddpm_task        section 4: the loss and validation of the cDDPM
holes             what the cDDPM is shown of an image: its mask, and the image with a hole
warm_start        the trained weights that a training starts from
automatic         what is chosen from the data
report            what a finished training is worth: figures, sheets, advice
calibration       statistics of validation images, for quality control and intervals
error_model       how far results can be expected to be off, fitted to validation images
datasets          data folders, splits, folds and batches
mask_checks       masks that cannot be those of one object
augmentation      random geometric and intensity transforms
phantoms          synthetic images with masks, for tests and examples
textures          textures and shapes of the phantoms
"""
