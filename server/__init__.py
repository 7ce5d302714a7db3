"""Rooms and signalling for calls (`iwcodec serve`). Media never passes through the server."""
