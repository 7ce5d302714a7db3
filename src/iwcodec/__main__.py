"""`python -m iwcodec`."""

from iwcodec.codec.cli.app import main

main()
