r"""The .iwc file format, version 7, byte by byte. Header, packets, index: header.py, packets.py, index.py.

Fixed-size integers are little-endian; LEB128 stands for an unsigned varint of up to 9 bytes (varint.py). A file is

    bytes   content
    4       magic 89 49 57 43 ("\x89IWC")
    2       version: 7
    4       length H of the header, at most 65,536
    H       header: a msgpack array of 13 values
    4       CRC-32 of all bytes before
    ...     records
    12      footer: offset of the index record (8 bytes), then "IWCX"

The header's values, in this order:

    model_id        name of the model, 1 to 64 printable characters
    model_digest    8 bytes that identify its weights
    keypoints       per frame, 1 to 64
    step_xy         quantiser step of keypoint coordinates, whose range is -1 to 1
    step_strength   quantiser step of keypoint strengths, whose range is 0 to 1
    tables          id of the entropy coder's tables: of transform_tables.py, or of predictive_tables.py for a
                    recorded call
    fps             frame rate [numerator, denominator], 0.1 to 1000
    size            width and height of the pictures in pixels, 64 to 4096
    frames          number of frames; 0: unknown
    active          number of sources that a frame is rebuilt from, at most
    audio           [pre_skip, packet_samples], or nil without sound
    pictures        "reconstructed": tells anyone who opens the file that the pictures are synthesised
    suppression     small-shift suppression in 1/10 pixel, 0 to 100 (Runtime.reconstruct)

A record is

    1       kind: A1 source, A2 motion, A3 audio, A4 index, A5 several sources
    1..3    length L of the payload, LEB128
    1       low byte of the CRC-32 of kind and length: lets a reader find the next record after damage
    L       payload: a packet or the index
    4       CRC-32 of the record so far

Packets are the same in files and in calls. All their numbers are LEB128; a packet's length is known from what carries
it.

    source          slot                      where the library of sources stores the picture
                    kind                      0; 2 n + 1: it is frame n, which is shown unmodified; 2 n + 2: a variant
                                              of the source in slot n, whose keypoints it has
                    payload                   one AV1 temporal unit

    several sources slot                      of the first source; each other takes the next slot
                    count - 2                 0..6
                    kind                      2 n: the first is frame n; 2 n + 1: variants of the source in slot n
                    steps                     of frames: from each number to the next, 2 n for n >= 0, else -2 n - 1
                    lengths                   of every payload but the last
                    payloads                  AV1 temporal units; the last one takes the remaining bytes

    motion          first                     number of the first frame
                    count - 1                 0..255
                    flags                     bit 0: predicted from a reference frame; bit 1: names reference sources;
                                              bit 2: names sources of regions; bit 3: transform-coded, only with
                                              bit 1 or 4, in files without bit 0; bit 4: sources and regions of all
                                              frames are the reference frame's, only with bits 0 and 3
                    first - reference         with bit 0: 1..4096, how many frames back the reference frame is
                    runs - 1, slot,           with bit 1: runs of frames with the same reference source; the last run
                    (frames, slot)...         takes the remaining frames. Without bits 1 and 4, the source nearest in
                                              pose
                    regions - 1, runs...      with bit 2: for each region (eyes, mouth) runs as above, of the slot + 1
                                              of the source that the frames show there; 0: the reference source
                    scale                     with bit 3: 0..255, quantisation scale
                    payload                   range-coded levels: transform_coder.py with bit 3, else
                                              predictive_coder.py

    audio           first                     number of the first sample at 48 kHz, counting the pre-skip; gaps between
                                              a file's packets are silence
                    count - 1                 0..255
                    lengths                   of every Opus packet but the last
                    payloads                  Opus packets (RFC 6716); the last one takes the remaining bytes

The index, the record before the footer, has for every record of sources or motion, in file order, all LEB128:

    kind            1 sources, 2 motion
    offset          of the record, minus that of the one before
    first           motion: number of the first frame, minus that of the motion record before; else 0

Three more entries follow if the file was verified. Each has kind 0, offset 0, and as `first` one of: the mean PSNR in
1/100 dB, 0 to 10,000; that of the worst second; the number of that second's first frame.

A file without its footer was cut: a reader walks the records and plays what is there. A record with a wrong checksum is
skipped and reported.
"""

MAGIC = b"\x89IWC"
VERSION = 7
SOURCE, MOTION, AUDIO, INDEX, SOURCES = 0xA1, 0xA2, 0xA3, 0xA4, 0xA5
RECORD_NAMES = {SOURCE: "source", MOTION: "motion", AUDIO: "audio", INDEX: "index", SOURCES: "sources"}
FOOTER_MAGIC = b"IWCX"
FOOTER_BYTES = 12

MAX_HEADER = 65_536
"""Bytes of the msgpack header."""
MAX_RECORD = (1 << 18) + 64
"""Bytes of a record's payload: a packet's largest payload and its numbers."""
MIN_RECORD = 8
"""Bytes of a motion record; a lower bound, to limit how many frames a file of a given size can claim."""
