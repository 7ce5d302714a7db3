"""Quality metrics of decoded clips, and the comparison of rate-quality curves."""
