"""Rooms: signalling protocol and client, peer connections, and the call that joins them."""
