"""Which international numbers exist: calling codes and how many digits follow them.

A library that knows every country's numbering plan (phonenumbers) costs some 50 microseconds a candidate and
20 MB; a hostile text holds 20,000 candidates. The code and the length tell a phone number from an order
number well enough, and they are one look-up.
"""

from __future__ import annotations

from typing import Final

_TABLE: Final = (
    "1 7 20 27 30 31 32 33 34 36 39 40 41 43 44 45 46 47 48 49 51 52 53 54 55 56 57 58 60 61 62 63 64 65 "
    "66 81 82 84 86 90 91 92 93 94 95 98 211 212 213 216 218 220 221 222 223 224 225 226 227 228 229 230 "
    "231 232 233 234 235 236 237 238 239 240 241 242 243 244 245 246 247 248 249 250 251 252 253 254 255 "
    "256 257 258 260 261 262 263 264 265 266 267 268 269 290 291 297 298 299 350 351 352 353 354 355 356 "
    "357 358 359 370 371 372 373 374 375 376 377 378 380 381 382 383 385 386 387 389 420 421 423 500 501 "
    "502 503 504 505 506 507 508 509 590 591 592 593 594 595 596 597 598 599 670 672 673 674 675 676 677 "
    "678 679 680 681 682 683 685 686 687 688 689 690 691 692 800 808 850 852 853 855 856 870 878 880 881 "
    "882 883 886 888 960 961 962 963 964 965 966 967 968 970 971 972 973 974 975 976 977 979 992 993 994 "
    "995 996 998 "
)
_CODES: Final = frozenset(_TABLE.split())
"""Source: ITU-T, list of assigned country codes (E.164)."""
_SHORTEST: Final = 8
_LONGEST: Final = 15
_NORTH_AMERICA: Final = 11
_RUSSIA: Final = 11


def fits_a_country(digits: str) -> bool:
    """Whether ``digits`` begin with an assigned code and are as many as a number may have."""
    if not _SHORTEST <= len(digits) <= _LONGEST + 1:  # one more: a trunk 0 in brackets
        return False
    if digits[0] == "1":
        return len(digits) == _NORTH_AMERICA and digits[1] in "23456789" and digits[4] in "23456789"
    if digits[0] == "7":
        return len(digits) == _RUSSIA
    return digits[:2] in _CODES or digits[:3] in _CODES
