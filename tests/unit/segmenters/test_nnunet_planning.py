import numpy as np
import pytest

from segmenters.nnunet_planning import fingerprint

pytestmark = pytest.mark.usefixtures("needs_nnunet")


def test_a_fingerprint_does_not_count_what_is_ignored(write_case):
    image = np.zeros((8, 12, 16), dtype=np.float32)
    labels = np.full((8, 12, 16), 4, dtype=np.uint8)
    image[2:6, 2:8, 3:9], labels[2:6, 2:8, 3:9] = 70.0, 1
    image[6:, 8:, 9:] = -500.0
    case = write_case("a", 0, image=image, labels=labels)

    found = fingerprint([(case.image, case.label_map)], ignored=4)

    intensities = found["foreground_intensity_properties_per_channel"]["0"]
    assert (intensities["mean"], intensities["std"], intensities["min"]) == (70.0, 0.0, 70.0)
    assert found["spacings"] == [[3.0, 1.0, 0.5]]
    assert found["shapes_after_crop"] == [[6, 10, 13]]  # what is not 0
    assert found["median_relative_size_after_cropping"] == 6 * 10 * 13 / (8 * 12 * 16)
