"""`python -m mhvae_cli` is `mhvae`."""

from .cli import main

if __name__ == "__main__":
    main()
