"""`python -m iwcodec`."""

from iwcodec.codec.cli import main

main()
