"""A corpus of texts with and without personal data, made from a seed: the truth is known because we wrote it.

Every value is valid by its own rules (Luhn digit, check digits, issued ranges), computed here and not with
the
detectors' code. Contexts are what people and programs write, in nine languages; near misses are what looks
like personal data and is not.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable
from dataclasses import dataclass

from stdnum import iban as iban_number
from stdnum import luhn


@dataclass(frozen=True)
class Sample:
    """``values`` are the (kind, value) pairs that stand in ``text``; none for a near miss."""

    text: str
    values: tuple[tuple[str, str], ...]


CONTEXTS = (
    "Please charge {} for the renewal.",
    "My details: {} - let me know if that works.",
    "{}",
    "Reach me under {}, thanks!",
    '{{"customer": {{"value": "{}"}}, "ok": true}}',
    "name;value\nJane;{}\n",
    "<td>{}</td>",
    "Bitte verwenden Sie {} und bestätigen Sie kurz.",
    "Voici mes coordonnées : {} (urgent).",
    "Mis datos son {}; gracias.",
    "I miei dati: {}.",
    "Mijn gegevens zijn {}, alvast bedankt.",
    "Мои данные: {}. Спасибо!",
    "私の情報は{}です。",
    "我的信息是{}\uff0c谢谢。",
    "بياناتي هي {} شكرا",
    "[2026-03-01T10:22:31Z] INFO user said: {}",
    "> {}\n> --\n> sent from my phone",
)


def _digits(rng: random.Random, count: int) -> str:
    return "".join(rng.choice("0123456789") for _ in range(count))


def card(rng: random.Random) -> str:
    prefix, length = rng.choice(
        [("4", 16), ("51", 16), ("55", 16), ("2221", 16), ("34", 15), ("37", 15), ("6011", 16), ("3530", 16),
         ("305", 14), ("36", 14), ("62", 16), ("65", 16), ("4", 13), ("6759", 16), ("2200", 16)]
    )  # fmt: skip
    body = prefix + _digits(rng, length - len(prefix) - 1)
    number = body + luhn.calc_check_digit(body)
    sizes = {15: (4, 6, 5), 14: (4, 6, 4)}.get(length, (4, 4, 4, 4))
    mark = rng.choice(["", "", " ", "-"])
    parts, at = [], 0
    for size in sizes:
        parts.append(number[at : at + size])
        at += size
    return mark.join(part for part in parts if part)


def ssn(rng: random.Random) -> str:
    area = rng.choice([n for n in range(1, 900) if n != 666])
    mark = rng.choice(["-", "-", " "])
    return f"{area:03}{mark}{rng.randint(1, 99):02}{mark}{rng.randint(1, 9999):04}"


def email(rng: random.Random) -> str:
    name = rng.choice(["jane", "j.doe", "maria+news", "li_wei", "o'brien", "jürgen", "x1", "first.last-name"])
    host = rng.choice(
        ["example", "mail.example", "müller", "my-company", "sub.domain.example", "xn--mller-kva"]
    )
    return f"{name}@{host}.{rng.choice(['com', 'de', 'co.uk', 'museum', 'рф', 'io', 'xn--p1ai'])}"


def phone(rng: random.Random) -> str:
    area, line = rng.randint(201, 989), rng.randint(0, 9999)
    exchange = rng.randint(200, 999)
    return rng.choice(
        [
            f"+1 ({area}) {exchange}-{line:04}", f"({area}) {exchange}-{line:04}",
            f"{area}-{exchange}-{line:04}",
            f"{area}.{exchange}.{line:04}", f"+1{area}{exchange}{line:04}", f"+44 20 7946 {line:04}",
            f"+49 30 {rng.randint(100000, 99999999)}", f"+49 (0)171 {rng.randint(1000000, 9999999)}",
            f"0171 {rng.randint(1000000, 9999999)}", f"01 {rng.randint(10, 99)} {rng.randint(10, 99)} 56 78",
            f"+33 6 {rng.randint(10, 99)} 34 56 78", f"+91 98765 {rng.randint(10000, 99999)}",
            f"+81-3-{rng.randint(1000, 9999)}-{rng.randint(1000, 9999)}",
            f"+55 11 9{_digits(rng, 4)}-{_digits(rng, 4)}",
            f"0049 89 {rng.randint(1000000, 9999999)}", f"07700 900{rng.randint(100, 999)}",
            f"+86 138 {_digits(rng, 4)} {_digits(rng, 4)}", f"+7 912 {rng.randint(100, 999)}-45-67",
        ]
    )  # fmt: skip


def iban(rng: random.Random) -> str:
    country, bban = rng.choice(
        [("DE", _digits(rng, 18)), ("NL", "ABNA" + _digits(rng, 10)), ("GB", "WEST" + _digits(rng, 14)),
         ("FR", _digits(rng, 10) + "ABC" + _digits(rng, 10)), ("ES", _digits(rng, 20)),
         ("CH", _digits(rng, 17)),
         ("NO", _digits(rng, 11)), ("IT", "X" + _digits(rng, 22)), ("PL", _digits(rng, 24))]
    )  # fmt: skip
    number = country + iban_number.calc_check_digits(f"{country}00{bban}") + bban
    if rng.random() < 0.5:
        return number
    return " ".join(number[at : at + 4] for at in range(0, len(number), 4))


MAKERS: dict[str, Callable[[random.Random], str]] = {
    "credit_card": card, "ssn": ssn, "email": email, "phone": phone, "iban": iban,
}  # fmt: skip


def _full_width(value: str) -> str:
    return "".join(chr(ord(c) + 0xFEE0) if c.isascii() and c.isdigit() else c for c in value)


def _arabic(value: str) -> str:
    return "".join(chr(0x0660 + int(c)) if c.isascii() and c.isdigit() else c for c in value)


DISGUISES: tuple[Callable[[str], str], ...] = (
    _full_width,
    _arabic,
    lambda value: value.replace(" ", "\u00a0"),
    lambda value: value.replace("-", "\u2011"),
    "\u200b".join,
)


def with_data(seed: int, count: int) -> list[Sample]:
    """``count`` texts with one or two values each; one value in ten is disguised."""
    rng = random.Random(seed)
    samples = []
    for _ in range(count):
        values = []
        for kind in rng.sample(sorted(MAKERS), rng.choice([1, 1, 1, 2])):
            value = MAKERS[kind](rng)
            if rng.random() < 0.1:
                value = rng.choice(DISGUISES)(value)
            values.append((kind, value))
        text = rng.choice(CONTEXTS).format(
            rng.choice([", ", " and ", "\n"]).join(value for _, value in values)
        )
        samples.append(Sample(text, tuple(values)))
    return samples


def _wrong_check_digit(number: str) -> str:
    return number[:-1] + str((int(number[-1]) + 1) % 10)


def near_miss(rng: random.Random) -> str:
    """Something that looks like personal data and is none."""
    return rng.choice(
        [
            lambda: f"order {rng.randint(10**9, 10**10)}",
            lambda: f"Bestellung Nr. {rng.randint(10**5, 10**8)}",
            lambda: f"invoice INV-{rng.randint(2020, 2030)}-{rng.randint(10**4, 10**6)}",
            lambda: f"tracking 1Z{_digits(rng, 16)}",
            lambda: f"version {rng.randint(0, 20)}.{rng.randint(0, 99)}.{rng.randint(0, 9999)}-rc1",
            lambda: f"{rng.randint(1990, 2030)}-{rng.randint(1, 12):02}-{rng.randint(1, 28):02}",
            lambda: f"{rng.randint(1, 28):02}.{rng.randint(1, 12):02}.{rng.randint(1990, 2030)} 10:30",
            lambda: f"{rng.randint(2000, 2030)}-03-01T10:{rng.randint(10, 59)}:31.{_digits(rng, 6)}+01:00",
            lambda: str(uuid.UUID(int=rng.getrandbits(128))),
            lambda: ".".join(str(rng.randint(0, 255)) for _ in range(4)) + f":{rng.randint(1024, 65535)}",
            lambda: ":".join(f"{rng.getrandbits(16):04x}" for _ in range(8)),
            lambda: f"{rng.getrandbits(160):040x}",
            lambda: f"sha256:{rng.getrandbits(256):064x}",
            lambda: f"${rng.randint(1, 999)},{rng.randint(100, 999)}.{rng.randint(10, 99)}",
            lambda: f"{rng.randint(1, 999)}.{rng.randint(100, 999)},{rng.randint(10, 99)} EUR",
            lambda: f"ISBN 978-0-{rng.randint(100, 999)}-{_digits(rng, 5)}-{rng.randint(0, 9)}",
            lambda: f"unix time {rng.randint(1_500_000_000, 1_900_000_000)}",
            lambda: f"{rng.randint(1_500_000_000_000, 1_900_000_000_000)} ms",
            lambda: f"at {rng.uniform(-90, 90):.6f}, {rng.uniform(-180, 180):.6f}",
            lambda: f"pi is about 3.{_digits(rng, 16)}",
            lambda: "@" + rng.choice(["jane_doe", "openai", "beamline"]) + " wrote this",
            lambda: "git clone git@github.com:beamline/beamline.git",
            lambda: f"postgres://app:pw{rng.randint(1, 99)}@db.example.com:5432/app",
            lambda: "<img src='icon@2x.png'>",
            lambda: (
                f"pip install package=={rng.randint(1, 9)}.{rng.randint(0, 9)}.{rng.randint(0, 9)} user@host"
            ),
            lambda: _wrong_check_digit(card(rng).replace(" ", "").replace("-", "")),
            lambda: "DE00 " + " ".join(_digits(rng, 4) for _ in range(4)) + " " + _digits(rng, 2),
            lambda: f"part {rng.choice(['000', '666', '987'])}-{_digits(rng, 2)}-{_digits(rng, 4)}",
            lambda: f"{rng.randint(100, 999)} x {rng.randint(100, 999)} x {rng.randint(1000, 9999)} mm",
            lambda: f"lines {rng.randint(100, 999)}-{rng.randint(1000, 9999)}, room {rng.randint(100, 999)}",
            lambda: f"0x{rng.getrandbits(64):016x} and {rng.randint(0, 2**31)}",
            lambda: f"score 555-{rng.randint(1000, 9999)}, 100 200 300 400",
            lambda: f"ean {rng.randint(0, 2)}{_digits(rng, 12)}",
            lambda: f"1 {_digits(rng, 3)} {_digits(rng, 3)} {_digits(rng, 3)} rows in {rng.randint(1, 90)} s",
        ]
    )()


def without_data(seed: int, count: int) -> list[Sample]:
    """``count`` texts with one to three near misses each."""
    rng = random.Random(seed)
    return [
        Sample(
            rng.choice(CONTEXTS).format("; ".join(near_miss(rng) for _ in range(rng.choice([1, 2, 3])))), ()
        )
        for _ in range(count)
    ]
