"""The link to one peer: video messages over data channels, both ways, with congestion control."""
