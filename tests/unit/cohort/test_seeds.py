import numpy as np

from cohort.seeds import derive_seed, generator


def test_a_seed_depends_on_every_part_of_its_name() -> None:
    seeds = {
        derive_seed(0, "round", 1),
        derive_seed(1, "round", 1),
        derive_seed(0, "round", 2),
        derive_seed(0, "start", 1),
        derive_seed(0, "round"),
        derive_seed(0, "round1"),
    }
    assert len(seeds) == 6


def test_a_seed_is_the_same_on_every_machine_and_fits_63_bits() -> None:
    assert derive_seed(7, "round", 0) == 4748320983606668212
    assert all(0 <= derive_seed(seed) < 2**63 for seed in range(100))


def test_a_generator_repeats_itself() -> None:
    np.testing.assert_array_equal(generator(3, "a").random(4), generator(3, "a").random(4))
    assert generator(3, "a").random() != generator(3, "b").random()
