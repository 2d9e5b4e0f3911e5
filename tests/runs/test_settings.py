"""The settings offer what there is."""

from mhvae_cli.runs.settings import Solver


def test_the_solvers_offered_are_those_there_are() -> None:
    from typing import get_args

    from mhvae_cli.diffusion.solvers import SOLVERS

    assert set(get_args(Solver)) == set(SOLVERS)
