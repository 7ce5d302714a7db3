"""Networks that the paper compares with, and the paper's own as published, for `iwcodec bench paper`."""
