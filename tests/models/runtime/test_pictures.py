"""Picture operations shared by the runtimes."""

import numpy as np

from iwcodec.models.runtime.pictures import pixel_grid, resize_area


def test_resize_area_averages_and_rounds() -> None:
    picture = np.zeros((4, 4, 3), np.uint8)
    picture[::2, ::2] = 103
    resized = resize_area(picture, 2)
    assert resized.dtype == np.uint8
    assert (resized == 26).all()
    assert resize_area(picture, 4) is picture


def test_pixel_grid_holds_x_and_y() -> None:
    grid = pixel_grid(5)
    assert grid.shape == (5, 5, 2)
    assert grid[3, 1].tolist() == [1, 3]
