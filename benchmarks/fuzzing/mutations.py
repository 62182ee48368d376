"""Damage for fuzzing: a valid file in, a spoilt one out. All choices come from the Random that is passed in."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Sequence

# What numbers in text turn into: far too large, no number, other notations, other alphabets.
ODD_WORDS = (
    "1e308", "-1e308", "1e-320", "nan", "-nan", "inf", "-inf", "1e999", "9" * 400, "-" + "9" * 5000, "0x1F", "1_0",
    "٣", "−5", "1,5", "", "-0", "1e", ".", "+", "NULL", "None", "true", "²", "½", "Å", "𝟜", "a" * 300, "../../x", "~",
    "%s%n", "'", '"', "\\", "[1, 2", "{a: b}", "*a", "&a", "!!python/object:os.system", "<NA>", "@", "1@2@3",
    "\u202e", "2**31", "4294967296", "-2147483649", "18446744073709551616",
)  # fmt: skip
# Lines that some reader may stumble over.
ODD_LINES = (
    "", "#", "data_", "data_x", "loop_", "_", "_rlnTomoName #1", ";", ";\ntext", "---", "...", "- - - -", "?", ": :",
    "<<: *a", "[ZValue = 99999999999999999999]", "[ZValue = -1]", "[ZValue = 1]", "[]", "= =", "$tilt",
    "$newstack -StandardInput", "EXCLUDELIST 1-99999,1-99999", "# DarkFrame = 1 2 3", "# RawSize = 9 9 9", "<!-- -->",
    "<Angles>1</Angles>", "]]>", "a: &a [x,x,x]", "b: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]",
    "c: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]", "a: &a [*a]",
    "d: !!binary aGk=", "e: !!timestamp 2001-99-99", "f: !!float 1:2:3:4:5", "g: 0x" + "f" * 90, "h: 1:59:59:59:59",
    '"unclosed', "'unclosed", '{"a": NaN}', '{"shape": [Infinity]}', "\ufeff", "\x1a", "x" * 20_000, "1 " * 5000,
    "[" * 2000, "{" * 2000, "- " * 1500, "<a>" * 3000, "((((" * 500, "\t\t\t", "a,b,c,d,e,f,g,h,i,j,k,l,m,n",
)  # fmt: skip
_NUMBERS = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 401, 1000, 2**24)

Mutation = Callable[[bytes, random.Random], bytes]


def _span(size: int, random_: random.Random, most: int = 64) -> tuple[int, int]:
    start = random_.randrange(size + 1)
    return start, min(size, start + random_.randrange(1, most + 1))


def flip_bits(content: bytes, random_: random.Random) -> bytes:
    """Turn over one to eight bits."""
    changed = bytearray(content)
    for _ in range(random_.randrange(1, 9) if changed else 0):
        changed[random_.randrange(len(changed))] ^= 1 << random_.randrange(8)
    return bytes(changed)


def set_number(content: bytes, random_: random.Random) -> bytes:
    """Write a number of 1 to 8 bytes over the content, half of the time into its first 64 bytes."""
    width = random_.choice((1, 2, 4, 4, 8))
    number = random_.choice(_NUMBERS) & (256**width - 1)
    packed = number.to_bytes(width, random_.choice(("little", "big")))
    if width >= 4 and random_.random() < 0.2:
        value = random_.choice((float("nan"), float("inf"), -1e30, 1e-40))
        packed = struct.pack(random_.choice(("<f", ">f")), value)
    reach = min(len(content), 64) if random_.random() < 0.5 else len(content)
    place = random_.randrange(reach + 1)
    place -= place % width
    return content[:place] + packed + content[place + len(packed) :]


def truncate(content: bytes, random_: random.Random) -> bytes:
    """Cut off the end."""
    return content[: random_.randrange(len(content) + 1)]


def extend(content: bytes, random_: random.Random) -> bytes:
    """Add random bytes, or the file itself, to the end."""
    more = random_.randbytes(random_.randrange(1, 200))
    return content + random_.choice((more, content, b"\0" * len(more), b"\n" * len(more)))


def move_bytes(content: bytes, random_: random.Random) -> bytes:
    """Remove, repeat, insert or copy some bytes."""
    start, stop = _span(len(content), random_)
    piece = content[start:stop]
    other, _ = _span(len(content), random_)
    return random_.choice(
        (
            content[:start] + content[stop:],
            content[:stop] + piece * random_.randrange(1, 4) + content[stop:],
            content[:start] + random_.randbytes(stop - start) + content[start:],
            content[:other] + piece + content[other:],
        )
    )


def change_lines(content: bytes, random_: random.Random) -> bytes:
    """Remove, repeat, exchange or insert lines."""
    lines = content.split(b"\n")
    place, other = random_.randrange(len(lines)), random_.randrange(len(lines))
    choice = random_.randrange(6)
    if choice == 0:
        del lines[place]
    elif choice == 1:
        lines[place:place] = [lines[place]] * random_.choice((1, 2, 300))
    elif choice == 2:
        lines[place], lines[other] = lines[other], lines[place]
    elif choice == 3:
        lines[place] = random_.choice(ODD_LINES).encode()
    elif choice == 4:
        lines[place] = lines[place] + b" " + lines[other]
    else:
        lines.insert(place, random_.choice(ODD_LINES).encode())
    return b"\n".join(lines)


def change_words(content: bytes, random_: random.Random) -> bytes:
    """Replace, repeat or remove a word; words are parted by blanks, line ends, commas, quotes, colons or brackets."""
    separators = b" \t\r\n,;:=[]{}<>\"'"
    ends = [0, *(n + 1 for n, byte in enumerate(content) if byte in separators), len(content) + 1]
    number = random_.randrange(len(ends) - 1)
    start, stop = ends[number], max(ends[number], ends[number + 1] - 1)
    word = content[start:stop]
    odd = random_.choice(ODD_WORDS).encode()
    new = random_.choice(
        (odd, odd, odd, word + word, word + b" " + word, b"", word[::-1], b"-" + word, word + b"0" * 9)
    )
    return content[:start] + new + content[stop:]


def recode(content: bytes, random_: random.Random) -> bytes:
    """Other line ends, another encoding, a byte order mark, or control characters."""
    text = content.decode("utf-8", errors="replace")
    return random_.choice(
        (
            content.replace(b"\n", b"\r\n"),
            content.replace(b"\n", b"\r"),
            b"\xef\xbb\xbf" + content,
            text.encode("utf-16"),
            text.encode("utf-16-be"),
            content.upper(),
            content.replace(b" ", b"\0", 1),
            content.replace(b" ", "\u2003".encode(), 3),
            content.replace(b"\n", b""),
        )
    )


def change_header(content: bytes, random_: random.Random) -> bytes:
    """Change the JSON header of a safetensors file as text, and its length with it: so that it can be read at all."""
    length = int.from_bytes(content[:8], "little")
    header = random_.choice((change_words, change_words, flip_bits, change_lines))(content[8 : 8 + length], random_)
    return len(header).to_bytes(8, "little") + header + content[8 + length :]


BINARY: tuple[Mutation, ...] = (flip_bits, flip_bits, set_number, set_number, truncate, extend, move_bytes)
TEXT: tuple[Mutation, ...] = (
    change_words,
    change_words,
    change_lines,
    change_lines,
    flip_bits,
    truncate,
    move_bytes,
    recode,
)
MOST_BYTES = 1_000_000


def mutated(seeds: Sequence[bytes], random_: random.Random) -> bytes:
    """One of the seeds after one to four changes; text is changed by words and lines more often than by bytes."""
    content = random_.choice(seeds)
    kinds = BINARY if b"\0" in content[:2048] else TEXT
    if kinds is BINARY and random_.random() < 0.15:
        kinds = TEXT  # JSON and XML inside binary files
    if content[8:9] == b"{" and random_.random() < 0.7:
        kinds = (change_header,)
    for _ in range(random_.choice((1, 1, 2, 3, 4))):
        content = random_.choice(kinds)(content, random_)
        if len(content) > MOST_BYTES:
            return content[:MOST_BYTES]
    return content


def random_content(seeds: Sequence[bytes], random_: random.Random) -> bytes:
    """Bytes, characters or lines without sense; now and then behind the true beginning of a file of this kind."""
    length = random_.choice((0, 1, 7, 60, 300, 1000))
    kind = random_.randrange(4)
    if kind == 0:
        made = random_.randbytes(length)
    elif kind == 1:
        made = "".join(
            chr(random_.choice((random_.randrange(32, 127), random_.randrange(1, 0xD7FF)))) for _ in range(length)
        ).encode()
    elif kind == 2:
        made = "\n".join(random_.choice(ODD_LINES) for _ in range(length // 30 + 1)).encode()
    else:
        made = " ".join(
            random_.choice(ODD_WORDS) + random_.choice((" ", "\n", ",", ":")) for _ in range(length // 8 + 1)
        ).encode()
    if random_.random() < 0.3:
        seed = random_.choice(seeds)
        return (seed[: random_.randrange(len(seed) + 1)] + made)[:MOST_BYTES]
    return made
