"""`iwcodec demo-call`: a server and two clients on this machine, measured."""
