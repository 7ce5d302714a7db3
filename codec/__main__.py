"""`python -m iwcodec`."""

from .cli import main

main()
