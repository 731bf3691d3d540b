"""What a stream of bytes is, by how it begins: an audio or video file, something else that is no sound, or neither.

What begins like nothing known may be raw samples. A signature must therefore be one that samples don't show by chance:
four bytes at a fixed place or more, or several frame headers that fit together.
"""

from __future__ import annotations

from collections.abc import Callable

HEAD_BYTES = 64  # enough for every signature but those of FRAMED
FRAMED_BYTES = 8192  # enough for three frames of any bit rate
MIN_FRAMES = 3
MIN_TEXT_BYTES = 16

# Kind, and the bytes at an offset. Where a kind has two of them, both must be there.
CONTAINERS: list[tuple[str, tuple[tuple[int, bytes], ...]]] = [
    ("AVI", ((0, b"RIFF"), (8, b"AVI "))),
    ("WAV", ((0, b"RIFF"),)),
    ("WAV", ((0, b"RF64"),)),
    ("W64", ((0, b"riff\x2e\x91\xcf\x11"),)),
    ("FLAC", ((0, b"fLaC"),)),
    ("Ogg", ((0, b"OggS"),)),
    ("MP3", ((0, b"ID3"),)),  # three bytes, but of a file that is far more frequent than these samples
    *(("MP4", ((4, box),)) for box in (b"ftyp", b"moov", b"mdat", b"wide", b"skip", b"free")),
    ("WebM", ((0, b"\x1a\x45\xdf\xa3"),)),  # Matroska too
    ("WMA", ((0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11"),)),
    ("AIFF", ((0, b"FORM"), (8, b"AIF"))),
    ("AU", ((0, b".snd"),)),
    ("CAF", ((0, b"caff"),)),
    ("AMR", ((0, b"#!AMR"),)),
    ("FLV", ((0, b"FLV\x01"),)),
    ("MPEG", ((0, b"\x00\x00\x01\xba"),)),
    ("WavPack", ((0, b"wvpk"),)),
    ("APE", ((0, b"MAC "),)),
]
OTHERS = [
    ("a ZIP archive", b"PK\x03\x04"),
    ("a gzip archive", b"\x1f\x8b\x08\x00"),
    ("a PDF", b"%PDF"),
    ("a picture (PNG)", b"\x89PNG"),
    ("a picture (JPEG)", b"\xff\xd8\xff\xe0"),
    ("a picture (JPEG)", b"\xff\xd8\xff\xe1"),
]
PRINTABLE = frozenset(b"\t\n\r") | frozenset(range(0x20, 0x7F))

# ISO/IEC 11172-3 and 13818-3: kbit/s by the index in the header, of layers I, II and III of MPEG-1 and of MPEG-2.
_KBITS = {
    (1, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (1, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (1, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (2, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (2, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (2, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_RATES = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}


def container_kind(head: bytes) -> str | None:
    """Such as ``MP3``, of a stream that begins with ``head``, at least :data:`HEAD_BYTES`; None: of no known one."""
    for kind, marks in CONTAINERS:
        if all(head.startswith(mark, offset) for offset, mark in marks):
            return kind
    for kind, frame_bytes in FRAMED:
        if _chained(head, frame_bytes):
            return kind
    return None


def may_be_framed(head: bytes) -> bool:
    """Whether more than ``head`` has to be seen, up to :data:`FRAMED_BYTES`, before it is known what this is."""
    return any(frame_bytes(head, 0) for _, frame_bytes in FRAMED)


def other_kind(head: bytes) -> str | None:
    """Such as ``text`` or ``a PDF``, of a stream that holds no sound at all; None: it may be samples."""
    for kind, mark in OTHERS:
        if head.startswith(mark):
            return kind
    return "text" if len(head) >= MIN_TEXT_BYTES and PRINTABLE.issuperset(head) else None


def _chained(head: bytes, frame_bytes: Callable[[bytes, int], int]) -> bool:
    """Whether frames follow each other from the beginning."""
    offset = 0
    for _ in range(MIN_FRAMES):
        size = frame_bytes(head, offset)
        if not size:
            return False
        offset += size
    return True


def _mpeg_frame(head: bytes, offset: int) -> int:
    """Bytes of the MPEG audio frame whose header is at ``offset``; 0: there is none."""
    header = head[offset : offset + 4]
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE0 != 0xE0:
        return 0
    version, layer = header[1] >> 3 & 3, 4 - (header[1] >> 1 & 3)
    kbits_index, rate_index, padding = header[2] >> 4, header[2] >> 2 & 3, header[2] >> 1 & 1
    if version == 1 or layer == 4 or kbits_index in (0, 15) or rate_index == 3:
        return 0
    bits = 1000 * _KBITS[1 if version == 3 else 2, layer][kbits_index - 1]
    rate = _RATES[version][rate_index]
    if layer == 1:
        return 4 * (12 * bits // rate + padding)
    samples = 576 if layer == 3 and version != 3 else 1152
    return samples // 8 * bits // rate + padding


def _adts_frame(head: bytes, offset: int) -> int:
    """Bytes of the AAC frame in ADTS whose header is at ``offset``; 0: there is none."""
    header = head[offset : offset + 7]
    if len(header) < 7 or header[0] != 0xFF or header[1] & 0xF6 != 0xF0 or header[2] >> 2 & 15 > 12:
        return 0
    size = (header[3] & 3) << 11 | header[4] << 3 | header[5] >> 5
    return size if size > 7 else 0


def _ts_packet(head: bytes, offset: int) -> int:
    """Bytes of the packet of an MPEG transport stream at ``offset``; 0: there is none."""
    return 188 if head.startswith(b"\x47", offset) else 0


FRAMED: list[tuple[str, Callable[[bytes, int], int]]] = [
    ("MP3", _mpeg_frame),
    ("AAC", _adts_frame),
    ("MPEG-TS", _ts_packet),
]
