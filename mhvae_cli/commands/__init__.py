"""One module, one verb: thin layers over the library."""
