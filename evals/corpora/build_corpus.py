"""Build openings.jsonl.gz: short, unrelated, pretraining-like texts from freely licensed sources.

Unpack each package that SOURCES names, and bible-kjv for its reader, below PACKAGES (dpkg -x NAME_*.deb PACKAGES/NAME),
then: python build_corpus.py PACKAGES openings.jsonl.gz. The package versions of PROVENANCE.md give the same texts.
"""

from __future__ import annotations

import gzip
import json
import random
import re
import struct
import subprocess
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from html import unescape
from itertools import accumulate
from pathlib import Path

HERE = Path(__file__).resolve().parent
SEED, TOTAL, MIN_WORDS, MAX_WORDS = 20240607, 4000, 12, 60
MAX_SAME = {1: 320, 3: 6, 5: 1}  # how many texts may share their first so many words
BLOCKED = re.compile(rf"\b({'|'.join((HERE / 'blocked.txt').read_text('utf-8').split())})\b", re.IGNORECASE)
SENTENCE_END = re.compile(r"(?<!Mr\.)(?<!Mrs\.)(?<!Dr\.)(?<!St\.)(?<!e\.g\.)(?<=[.!?])([\"”’)]*)\s+(?=[A-Z\"“(])")
Reader = Callable[[Path, random.Random], Iterator[str]]
HTML_BLOCK = r"</?(?:p|dd|dt|li|pre|div|t[drh]|table|[uod]l|h\d|blockquote|form|hr)\b"


def cut(text: str, rng: random.Random) -> str:
    """The opening of a paragraph: whole sentences if they fit a random length, else a cut at that length."""
    words, target = text.split(), rng.randint(20, MAX_WORDS - 2)
    sentences = SENTENCE_END.sub(r"\1\n", " ".join(words)).split("\n")
    whole = [n for n in accumulate(len(s.split()) for s in sentences) if MIN_WORDS <= n <= target]
    return " ".join(words[: max(whole, default=target)])


def handwritten(_root: Path, _rng: random.Random) -> Iterator[str]:
    for line in (HERE / "handwritten.txt").read_text("utf-8").splitlines():
        yield line.replace("\\n", "\n")


def wordnet(root: Path, rng: random.Random) -> Iterator[str]:
    for part in ("noun", "verb", "adj", "adv"):
        for line in (root / f"usr/share/wordnet/data.{part}").read_text("latin-1").splitlines():
            fields, _, gloss = line.partition(" | ")
            examples = [e.strip() for e in re.findall(r'"([^"]+)"', gloss) if len(e.split()) > 4]
            meaning = re.sub(r'[\s;,:]*"[^"]*"', "", gloss).strip(" ;,:")
            if line.startswith("  ") or re.search(r'"\s*-', gloss) or gloss.count('"') % 2 or meaning[:1] in ("", "("):
                continue  # the licence header; quotations of other authors; broken quotes; usage notes
            word = re.sub(r"\(\w+\)$", "", fields.split()[4]).replace("_", " ")
            said = [e[0].upper() + e[1:] + ("" if e[-1] in ".!?" else ".") for e in examples]
            sense = meaning[0].upper() + meaning[1:] + "."
            forms = [sense, f"{word}: {meaning}"] if len(meaning.split()) > 14 else []
            if part == "noun" and re.match(r"(an?|the|any) ", meaning):
                article = "" if word[0].isupper() else "An " if word[0] in "aeiou" else "A "
                forms.append(f"{article}{word} is {meaning}.")
            if said:
                forms += [
                    f"{said[0]} {sense}",
                    f"{sense} {said[0]}",
                    f'"{examples[0]}" ({word}, {part}: {meaning})',
                ]
                forms += [" ".join(said)] * (2 * (len(said) > 1)) + [f"{said[0]} Here {word} means {meaning}."]
            if forms and (said or rng.random() < 0.3):
                yield rng.choice(forms)


def austen(root: Path, rng: random.Random) -> Iterator[str]:
    data = (root / "usr/lib/R/site-library/janeaustenr/data/Rdata.rdb").read_bytes()
    while data:  # R's lazy-load database: for each book a length, then a zlib stream of one character vector
        stream, lines, at = zlib.decompressobj(), [], 31
        book, data = stream.decompress(data[4:]), stream.unused_data
        for _ in range(struct.unpack_from(">i", book, 27)[0]):
            size = max(0, struct.unpack_from(">i", book, at + 4)[0])
            lines.append(book[at + 8 : at + 8 + size].decode())
            at += 8 + size
        for block in re.split(r"\n\s*\n", "\n".join(lines)):
            yield cut(block.replace("_", ""), rng)


def devil(root: Path, rng: random.Random) -> Iterator[str]:
    text = gzip.decompress((root / "usr/share/dictd/devil.dict.dz").read_bytes()).decode("latin-1")
    text = re.sub(r"(?<=\S) *\n(?=\S)", " ", text)
    for head, body in re.findall(r"\n([A-Z][A-Z-]+, (?:n|adj|v\.[ti])\.)  (\S.*)", text):
        later = SENTENCE_END.sub(r"\1\n", body).partition("\n")[2]
        if not re.search(r"(?i)\b(wom[ae]n|females?|wi(fe|ves)|race|bride)\b", body):
            yield cut(rng.choice([f"{head} {body}", body, body, later or body]), rng)


def jargon(root: Path, rng: random.Random) -> Iterator[str]:
    text = gzip.decompress((root / "usr/share/dictd/jargon.dict.dz").read_bytes()).decode("utf-8")
    for block in re.split(r"\n\s*\n", text.partition("\nabbrev\n")[2]):
        if block.startswith("    ") and "://" not in block:
            block = re.sub(r"\{\s*|\s*\}|\b(See also|Compare|See)\b[^.]*\.$", "", block)
            yield cut(re.sub(r"^(\s*(\[[^]]*\]|\d+\.|[a-z]+\.))+", "", block), rng)


def bible(root: Path, rng: random.Random) -> Iterator[str]:
    command = [
        str(root.parent / "bible-kjv/usr/bin/bible"),
        "-p",
        str(root / "usr/lib"),
        "-f",
        "gen1:1-rev22:21",
    ]
    for verse in subprocess.check_output(command, text=True).splitlines():
        yield cut(verse.partition(" ")[2], rng)


def html(pattern: str, root: Path, rng: random.Random) -> Iterator[str]:
    for path in sorted(p for p in root.glob(pattern) if p.name not in ("license.html", "copyright.html")):
        page = re.sub(r"(?s)<(script|style|nav|head)\b.*?</\1>|<!--.*?-->", "", path.read_text("utf-8", "ignore"))
        for tag, inner in re.findall(rf"(?s)<(p|dd|li|pre)\b[^>]*>(.*?)(?={HTML_BLOCK})", page):
            text = unescape(re.sub(r"<[^>]*>", "", inner)).strip("\n").rstrip()
            if tag == "pre" and len(text.split()) <= MAX_WORDS and rng.random() < 0.4:
                yield text.expandtabs(4)
            elif tag != "pre" and re.match(r"\s*[A-Z\"“]", text) and "(source: " not in text:
                yield cut(text, rng)


SOURCES: dict[str, tuple[int, Reader]] = {
    "handwritten": (TOTAL, handwritten),  # not a package
    "r-cran-janeaustenr": (600, austen),
    "dict-devil": (330, devil),
    "dict-jargon": (430, jargon),
    "bible-kjv-text": (250, bible),
    "sqlite3-doc": (270, partial(html, "usr/share/doc/sqlite3/*.html")),
    "apache2-doc": (250, partial(html, "usr/share/doc/apache2-doc/manual/en/**/*.html")),
    "rust-doc": (250, partial(html, "usr/share/doc/rust-doc/html/book/ch*.html")),
    "wordnet-base": (TOTAL, wordnet),  # fills up what is left
}


def main(packages: Path, out: Path) -> None:
    rows: list[dict[str, str]] = []
    starts: Counter[tuple[str, ...]] = Counter()

    for source, (quota, read) in SOURCES.items():
        rng, goal = random.Random(f"{SEED} {source}"), min(TOTAL, len(rows) + quota)
        for text in sorted(read(packages / source, rng), key=lambda _: rng.random()):
            words = re.sub(r"[^\w\s]", "", text.lower()).split()
            mine = [(tuple(words[:size]), most) for size, most in MAX_SAME.items()]
            fits = MIN_WORDS <= len(text.split()) <= MAX_WORDS and len(words) >= max(MAX_SAME)
            clean = all(c == "\n" or c.isprintable() for c in text) and not BLOCKED.search(text)
            if len(rows) < goal and fits and clean and all(starts[start] < most for start, most in mine):
                starts.update(start for start, _ in mine)
                rows.append({"text": text, "source": source})
    random.Random(SEED).shuffle(rows)
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    out.write_bytes(gzip.compress(lines.encode(), mtime=0))
    print(len(rows), Counter(row["source"] for row in rows).most_common())


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:3]))
