/** CRC-32 (ISO 3309), as zlib computes it. */

const TABLE = new Uint32Array(256).map((_, n) => {
  for (let bit = 0; bit < 8; bit++) n = n & 1 ? (n >>> 1) ^ 0xedb88320 : n >>> 1;
  return n;
});

/** Return the CRC-32 of bytes. */
export function crc32(data: Uint8Array): number {
  let crc = 0xffffffff;
  for (let n = 0; n < data.length; n++) crc = (crc >>> 8) ^ TABLE[(crc ^ data[n]) & 0xff];
  return (crc ^ 0xffffffff) >>> 0;
}
