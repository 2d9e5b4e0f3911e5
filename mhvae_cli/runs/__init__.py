"""A run is one call of a verb: many inputs to many files, resumable.

inputs              from the operands of the command line to a list of items
folders             what is in folders, links followed
outputs             where results go, and name clashes
shards              --shard: the part of the inputs that a run processes
settings            the options of a run as plain values
invocation          the options given, and which of them change results
fingerprint         what produced a result, and whether it is up to date
models              loading the networks of a run
streaming           reading and encoding files in threads alongside inference
segmentation        the workflow of segment
measurements        the columns of segment --measure, and the intervals of measurements
generation          the workflow of the verbs that generate images
generation_jobs     one generated image and its files
generation_quality  does a generated image show the object of its mask, and is it new?
handle_drawings     warp --handles
reporter            the outcome of each job: files, row, output line, exit code
results             results.csv, and files committed together with their row
manifest            mhvae-run.json
inventory           mhvae-inputs.csv: the inputs of all shards
status              whether a folder of results is whole
console             all terminal output
review              the HTML page of segment --report
"""
