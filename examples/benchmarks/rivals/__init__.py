"""The models that table 1 compares, trained and tested alike: what `rivals.py` runs.

command     the options, what is done in which order, and the checks of them
nets        the rivals: their networks, and the loss, optimiser and schedule of each paper
transunet   TransUNet, from its paper
fcsn        FCSN, from its paper
ours        this package's models, trained by its own loop
training    the loop that trains a rival for so many minutes or images
testing     predictions, scores, costs
robustness  Dice against the strength of what disturbs an image
nnunet      nnU-Net v2, planned and trained by itself
tables      CSV files to Markdown
torchvision_stub  for packages that import torchvision and do without it
"""
