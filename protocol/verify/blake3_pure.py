"""BLAKE3 in plain Python: the hash with 32 bytes of output, after the reference implementation. Slow, and easy to read.

`python3 blake3_pure.py` checks it against the published test vectors: their input is the bytes 0, 1, …, 250, 0, 1, … .
"""
import struct

IV = (0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19)
ORDER = (2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8)
COLUMNS_AND_DIAGONALS = ((0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15),
                         (0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14))
CHUNK_START, CHUNK_END, PARENT, ROOT = 1, 2, 4, 8
BLOCK, CHUNK, MASK = 64, 1024, 0xFFFFFFFF


def rotate(word, by):
    return word >> by | word << 32 - by & MASK


def compress(chain, block, counter, length, flags):
    """Eight words: the first half of the compression function's output."""
    v = [*chain, *IV[:4], counter & MASK, counter >> 32, length, flags]
    words = list(struct.unpack("<16I", block.ljust(BLOCK, b"\0")))
    for _ in range(7):
        for at, (a, b, c, d) in enumerate(COLUMNS_AND_DIAGONALS):
            v[a] = v[a] + v[b] + words[2 * at] & MASK
            v[d] = rotate(v[d] ^ v[a], 16)
            v[c] = v[c] + v[d] & MASK
            v[b] = rotate(v[b] ^ v[c], 12)
            v[a] = v[a] + v[b] + words[2 * at + 1] & MASK
            v[d] = rotate(v[d] ^ v[a], 8)
            v[c] = v[c] + v[d] & MASK
            v[b] = rotate(v[b] ^ v[c], 7)
        words = [words[at] for at in ORDER]
    return [low ^ high for low, high in zip(v[:8], v[8:])]


def chunk(data, counter, root):
    blocks = [data[at:at + BLOCK] for at in range(0, len(data), BLOCK)] or [b""]
    chain = IV
    for at, block in enumerate(blocks):
        flags = (CHUNK_START if at == 0 else 0) | (CHUNK_END | root if at == len(blocks) - 1 else 0)
        chain = compress(chain, block, counter, len(block), flags)
    return chain


def tree(data, counter, root):
    """The chaining value of a subtree: the left side is the largest power of two of chunks that leaves some for the right."""
    if len(data) <= CHUNK:
        return chunk(data, counter, root)
    left = 1 << ((len(data) - 1) // CHUNK).bit_length() - 1
    children = tree(data[:left * CHUNK], counter, 0) + tree(data[left * CHUNK:], counter + left, 0)
    return compress(IV, struct.pack("<16I", *children), 0, BLOCK, PARENT | root)


def blake3(data):
    return struct.pack("<8I", *tree(data, 0, ROOT))


if __name__ == "__main__":
    PUBLISHED = {
        0: "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262",
        1: "2d3adedff11b61f14c886e35afa036736dcd87a74d27b5c1510225d0f592e213",
        1024: "42214739f095a406f3fc83deb889744ac00df831c10daa55189b5d121c855af7",
        1025: "d00278ae47eb27b34faecf67b4fe263f82d5412916c1ffd97c8cb7fb814b8444",
        2049: "5f4d72f40d7a5f82b15ca2b2e44b1de3c2ef86c426c95c1af0b6879522563030",
        5121: "628bd2cb2004694adaab7bbd778a25df25c47b9d4155a55f8fbd79f2fe154cff",
    }
    for size, digest in PUBLISHED.items():
        found = blake3(bytes(at % 251 for at in range(size))).hex()
        assert found == digest, (size, found)
    print("OK: agrees with the published test vectors")
