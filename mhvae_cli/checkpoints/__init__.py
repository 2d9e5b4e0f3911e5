"""Model folders, and how they are found, checked, carried and described. Nothing here needs a network's code.

registry     names of models to their folders
folder       config.json and the weights of a model folder
tensors      safetensors files; the only place that opens them
checksums    SHA256SUMS
hub          models on the Hugging Face Hub
hub_errors   the Hub's errors as this package's
archive      a model as one .mhvae file
model_card   README.md of a model folder
describe     what a model folder says of the model
"""
