"""Model folders: how they are found, checked, transferred and described. Needs no network's code.

registry     model names to model folders
folder       config.json and the weights of a model folder
tensors      safetensors files; the only module that opens them
checksums    SHA256SUMS
hub          models on the Hugging Face Hub
hub_errors   the Hub's errors as this package's
hub_limits   the bytes and the time that a download may take
archive      a model as one .mhvae file
model_card   README.md of a model folder
describe     a model folder's metadata
"""
