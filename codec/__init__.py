"""iwcodec: a talking-head video codec. A few source pictures, then 20 keypoints a frame."""

__version__ = "0.1.0"
