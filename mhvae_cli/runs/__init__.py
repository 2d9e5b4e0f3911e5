"""One call of a verb: many inputs to many files, resumably.

inputs           what the user named, as a list of items
outputs          where results go, and what may be there already
settings         what a user can set about a run
invocation       which options were given, and which of them change results
fingerprint      what a result was made by, and whether it is up to date
models           the networks of a run
streaming        files read and written in threads while the network works
segmentation     what segment does to each scan
generation       the flow of the verbs that generate images
generation_jobs  one generated image and its files
handle_drawings  warp --handles
reporter         what becomes of each job: files, row, line, exit code
results          results.csv, and files committed together with their row
manifest         mhvae-run.json
console          all that is written to a terminal
review           the page that segment --report writes
"""
