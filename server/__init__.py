"""Rooms and signalling for calls."""
