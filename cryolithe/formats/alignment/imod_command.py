"""IMOD's command files: one command, its keys and their values, and the lists of numbers in them.

Read by the rules of IMOD's own parser of parameters (PIP, ``parse_params.c``): a key may be abbreviated as long as it
is unique, may be written in upper or lower case, and may be followed by ``=``; what follows ``#`` is a comment. Lists
as by its ``parselist.c``: ranges may run backwards and hold blanks.
"""

from __future__ import annotations

import difflib
import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cryolithe.errors import FileFormatError, InputError
from cryolithe.formats.alignment.imod_keys import PROGRAMS, Key, find_keys
from cryolithe.formats.files import printable, read_text

LIMIT_BYTES = 10_000_000
MOST_NUMBERS = 100_000
_LONGEST_NUMBER = 6
_STANDARD_INPUT = "StandardInput"  # may be abbreviated, too, and is looked for before the keys
# What the refusal of a key says when there is more to say than to make the aligned stack with IMOD.
_REMEDIES = {
    "ReorderByTiltAngle": "sort the images with newstack first, and give the sorted stack and angles",
    "ParameterFile": "give the file that it names",
    # Of projects whose alignment solved for distortion: an aligned stack's tilt.com has them, too.
    "ZFACTORFILE": "give --newst-com, or the aligned stack, with the angle file and no tilt.com, which leaves out its "
    "Z factors, local alignments and offsets; or align without distortion",
}
_NO_TOMOGRAM = "give the tilt.com that makes the tomogram"
_REMEDIES |= dict.fromkeys(
    (
        *("BaseRecFile", "SubtractFromBase", "REPROJECT", "ViewsToReproject", "RecFileToReproject", "ProjectModel"),
        *("XMinAndMaxReproj", "YMinAndMaxReproj", "ZMinAndMaxReproj", "ThresholdedReproj", "SIRTSubtraction"),
    ),
    _NO_TOMOGRAM,
)


@dataclass(frozen=True)
class Command:
    """One command of a file.

    Attributes:
        path: the file.
        entries: name of a key -> the texts that follow it, one for each time that it is there.
        ignored: keys that change values, not places, in the order of the file.
    """

    path: Path
    entries: dict[str, list[str]] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()

    def has(self, name: str) -> bool:
        """Whether a key is there."""
        return name in self.entries

    def word(self, name: str) -> str:
        """The last text of a key; empty where it is not there."""
        return printable(self.entries.get(name, [""])[-1])

    def numbers(self, name: str, count: int | tuple[int, int], default: tuple[float, ...]) -> tuple[float, ...]:
        """The finite numbers of a key, as many as ``count`` allows.

        Raises:
            FileFormatError: if they are others.
        """
        if not self.has(name):
            return default
        text = self.word(name)
        low, high = (count, count) if isinstance(count, int) else count
        values = parse_numbers(text)
        if not low <= len(values) <= high or not all(map(math.isfinite, values)):
            wanted = f"{low}" if low == high else f"{low} or {high}"
            raise FileFormatError(
                f"{self.path}: expected {wanted} number{'' if high == 1 else 's'} after {name}, found '{text[:40]}'"
            )
        return values

    def all_numbers(self, name: str) -> tuple[float, ...]:
        """The finite numbers of a key that may be there several times.

        Raises:
            FileFormatError: if there is something else.
        """
        values = tuple(value for text in self.entries.get(name, []) for value in parse_numbers(text))
        if self.has(name) and (not values or not all(map(math.isfinite, values)) or len(values) > MOST_NUMBERS):
            raise FileFormatError(f"{self.path}: expected numbers after {name}, found '{self.word(name)[:40]}'")
        return values

    def numbers_listed(self, name: str, what: str) -> list[int] | None:
        """The whole numbers of a key that holds a list such as 1,4-7 of ``what``; None where it is not there.

        Raises:
            FileFormatError: if it is no such list, or empty.
        """
        if not self.has(name):
            return None
        numbers: list[int] = []
        for text in self.entries[name]:
            try:
                numbers += parse_list(text, MOST_NUMBERS - len(numbers))
            except OverflowError:
                raise FileFormatError(f"{self.path}: {name} lists more than {MOST_NUMBERS} {what}") from None
            except ValueError as error:
                raise FileFormatError(
                    f"{self.path}: expected {what} such as 1,4-7 after {name}, found '{printable(text)[:40]}'; {error}"
                ) from error
        return numbers


def parse_list(text: str, most: int = MOST_NUMBERS) -> list[int]:
    """Numbers of a list as IMOD reads it: ``1-3,7`` and ``3 - 1, 7``; a minus after a comma or another one is a sign.

    Raises:
        ValueError: with the reason, for what is no list, and for a list without a number.
        OverflowError: if there are more than ``most``.
    """
    numbers: list[int] = []
    dash = negative = comma = False
    position, text = 0, text.replace("\t", " ")
    while position < len(text):
        letter = text[position]
        if letter in "0123456789":
            end = position
            while end < len(text) and text[end] in "0123456789":
                end += 1
            if end - position > _LONGEST_NUMBER:
                raise ValueError(f"{text[position:end][:20]} is no number of an image")
            number = int(text[position:end]) * (-1 if negative else 1)
            if dash:
                step = 1 if number >= numbers[-1] else -1
                numbers += range(numbers[-1] + step, number + step, step)
            else:
                numbers.append(number)
            if len(numbers) > most:
                raise OverflowError
            dash = negative = comma = False
            position = end
            continue
        if letter not in ", -":
            raise ValueError(f"'{printable(letter)}' is no part of a list")
        if letter == ",":
            comma = True
        if letter == "-":
            if dash or comma or not numbers:
                negative = True
            else:
                dash = True
        position += 1
    if dash or negative:
        raise ValueError("a range has no end")
    if not numbers:
        raise ValueError("it is empty")
    return numbers


def runs_of(numbers: Sequence[int]) -> list[str]:
    """Rising numbers as `parse_list` takes them, one text for each run: ``1-3`` and ``7``."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return [f"{first}-{last}" if last > first else str(first) for first, last in runs]


def parse_numbers(text: str) -> tuple[float, ...]:
    """Numbers between blanks and commas; NaN for what is none."""
    return tuple(number(word) for word in text.replace(",", " ").split())


def number(word: str) -> float:
    """A number, or NaN."""
    try:
        return math.nan if "_" in word else float(word)
    except ValueError:
        return math.nan


def read_command(path: Path, program: str, replaced: frozenset[str] = frozenset()) -> Command:
    """Read the one command of a program.

    Args:
        path: the command file.
        program: ``newstack`` or ``tilt``.
        replaced: keys whose values something else replaces: they are not even looked at.

    Raises:
        FileFormatError: if there is no such command, several of them, or a key that the program has not.
        InputError: if a key asks for what is not done here.
    """
    keys = PROGRAMS[program]
    commands: list[tuple[int, list[str]]] = []
    inside = False
    text = read_text(path, "an IMOD command file", LIMIT_BYTES)
    for count, line in enumerate(text.splitlines(), start=1):
        content = line.strip()
        if content.startswith("$"):
            words = _words(content[1:])
            inside = bool(words) and PROGRAMS.get(Path(words[0]).name.removesuffix(".exe")) is keys
            if inside:
                commands.append((count, [content[1:]]))
        elif inside and (content := content.partition("#")[0].strip()):
            commands[-1][1].append(content)
    if not commands:
        raise FileFormatError(f"{path} holds no command ${program}; give IMOD's {program[:5]}.com")
    if len(commands) > 1:
        lines = ", ".join(str(count) for count, _ in commands[:5])
        raise FileFormatError(
            f"{path} holds {len(commands)} commands ${program} (lines {lines}); expected one: keep the one that "
            f"{'makes the aligned stack' if program == 'newstack' else 'makes the tomogram'}"
        )
    entries: dict[str, list[str]] = {}
    for key, value in [*_options(path, program, commands[0][1][0]), *_lines(path, program, commands[0][1])]:
        if key.name not in replaced:
            texts = entries.setdefault(key.name, [])
            if key.name == "ExcludeSections":  # of lists, this one counts once only: the last
                texts.clear()
            texts.append(value)
    _refuse(path, keys, entries)
    ignored = [key.name for key in keys if key.fate == "ignored" and key.name in entries and not _idle(key, entries)]
    return Command(path, entries, tuple(name for name in entries if name in ignored))


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text, posix=True)
    except ValueError:  # quotes that do not end
        return text.split()


def _options(path: Path, program: str, line: str) -> list[tuple[Key, str]]:
    """Keys on the line of the command itself: ``-key value``; other words are names of files."""
    found: list[tuple[Key, str]] = []
    files: list[str] = []
    words = _words(line)[1:]
    while words:
        word = words.pop(0)
        name = word.lstrip("-")
        if not word.startswith("-") or not name:
            files.append(word)
            continue
        if _STANDARD_INPUT.startswith(name) or (program == "tilt" and _STANDARD_INPUT.lower().startswith(name.lower())):
            continue
        key = _key(path, program, name)
        if key.flag:
            found.append((key, "1"))
        elif words:
            found.append((key, words.pop(0)))
        else:
            raise FileFormatError(f"{path}: expected a value after -{printable(name)}, found the end of the line")
    return found + [(key, name) for name, key in zip(files, _file_keys(program, len(files)), strict=True)]


def _file_keys(program: str, count: int) -> list[Key]:
    """What names without a key stand for: inputs, and the output last."""
    names = {key.name: key for key in PROGRAMS[program]}
    first = names["InputFile" if program == "newstack" else "InputProjections"]
    return [first] * (count - 1) + [names["OutputFile"]] if count > 1 else [first] * count


def _lines(path: Path, program: str, command: list[str]) -> list[tuple[Key, str]]:
    """Keys on the lines below a command."""
    found: list[tuple[Key, str]] = []
    files = 0
    for content in command[1:]:
        word = (content.replace("=", " ").split() or [content])[0]
        if word == "EndInput" or (program == "tilt" and word.upper() == "DONE"):
            break
        # The oldest command files of tilt begin with the names of its input and its output, without keys.
        if program == "tilt" and not found and files < 2 and content == word and not find_keys(word, PROGRAMS[program]):
            files += 1
            continue
        key = _key(path, program, word)
        value = content[len(word) :].strip().removeprefix("=").strip()
        found.append((key, value or ("1" if key.flag else "")))
    return found


def _key(path: Path, program: str, word: str) -> Key:
    keys = find_keys(word, PROGRAMS[program])
    if len(keys) == 1:
        return keys[0]
    shown = printable(word)[:40]
    if keys:
        names = " or ".join(key.name for key in keys[:6])
        raise FileFormatError(f"{path}: '{shown}' may stand for {names}; write the key in full")
    names_of_all = {key.name.lower(): key.name for key in PROGRAMS[program]}
    close = difflib.get_close_matches(word.lower(), names_of_all, 1, 0.8)
    meant = f" (is {names_of_all[close[0]]} meant?)" if close else ""
    raise FileFormatError(
        f"{path}: '{shown}' is no key of {program} that is known here{meant}; correct the line, or remove it if it "
        "does not change which images are taken or where matter lies"
    )


def _idle(key: Key, entries: dict[str, list[str]]) -> bool:
    """Whether a key has a value with which it does nothing."""
    return all((values := parse_numbers(text)) and set(values) <= key.neutral for text in entries[key.name])


def _refuse(path: Path, keys: tuple[Key, ...], entries: dict[str, list[str]]) -> None:
    for key in keys:
        if key.fate == "refused" and key.name in entries and not _idle(key, entries):
            made = "reconstruct from an aligned stack instead" if keys is PROGRAMS["tilt"] else ""
            remedy = _REMEDIES.get(key.name, made or "make the aligned stack with newstack")
            raise InputError(f"{path}: {key.name} cannot be applied here; {remedy}")
