"""YARA rules over every file of the evidence."""

from __future__ import annotations

import hashlib
import importlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from forensics_lib.analysis.contents import Data, contents
from forensics_lib.analysis.inventory import Inventory
from forensics_lib.errors import DamagedData, ForensicsError, LimitExceeded, PathNotFound, UnsupportedFormat
from forensics_lib.model import Origin, ProblemLog, Progress

if TYPE_CHECKING:
    from types import ModuleType

__all__ = ["CompiledRules", "Match", "rules_name", "scan"]

_SUFFIXES = (".yar", ".yara")
_COMPILED = b"YARA"
_MAX_STRINGS = 1000
_EXTERNALS = ("filename", "filepath", "extension", "filetype", "owner", "md5")


class CompiledRules(Protocol):
    """A ``yara.Rules``."""

    def match(self, *, data: bytes) -> Sequence[object]:
        """The rules that match."""
        ...


@dataclass(frozen=True, slots=True)
class Match:
    """One rule that matches one file.

    Attributes:
        owner: a layer's digest for its files, the evidence's name for what lies beside the layers.
        path: path inside the owner.
        rule: name of the rule.
        namespace: of the rule: its file's path below the folder of rules, or ``default``.
        tags: of the rule.
        meta: (name, value) of the rule's metadata, in its order; a name may stand there twice.
        strings: (identifier, offset in bytes, bytes) of each string that was found, at most a thousand; YARA cuts the
            bytes after the first 512.
        size: bytes of the file's content.
        sha256: of the content; None where only a part of it could be read, which was then scanned.
        origin: where it is recorded.
    """

    owner: str
    path: str
    rule: str
    namespace: str
    tags: tuple[str, ...]
    meta: tuple[tuple[str, str | int | bool], ...]
    strings: tuple[tuple[str, int, bytes], ...]
    size: int
    sha256: str | None
    origin: Origin


def scan(
    inventory: Inventory,
    rules: str | os.PathLike[str] | CompiledRules,
    *,
    timeout: int = 60,
    progress: Progress | None = None,
) -> Iterator[Match]:
    """A row for every rule that matches a file, files that later layers hide included; each content is scanned once.

    The rules are the examiner's own and trusted: their includes are followed, and compiled rules are bytecode that
    YARA runs. What the evidence holds is data to them.

    The external variables that public rule sets expect are defined: ``filename`` (last component), ``filepath`` (the
    whole path), ``extension`` (lower case, with its dot), and as empty text ``filetype``, ``owner`` and ``md5``.
    Rules that use them are run for every path, others once for each content; a hard link counts as the name it links
    to.

    Args:
        inventory: what there is.
        rules: text of rules (told by its ``{``), a path of a file of rules, of compiled rules or of a folder (every
            ``.yar`` and ``.yara`` file below it, each a namespace of its own; one that does not compile is a problem
            and the others run), or ``yara.Rules``.
        timeout: seconds for one content; one that takes longer is a problem of its path, and has no matches.
        progress: told of stored bytes done and in total.

    Raises:
        PathNotFound: no rules at that path.
        DamagedData: no rules compile; the message says why.
        UnsupportedFormat: a folder without rules, or rules that another version of YARA compiled. All are raised at
            once.
    """
    yara = importlib.import_module("yara")
    return _rows(inventory, _Scanner(yara, *_load(yara, rules, inventory.problems), timeout), progress)


def rules_name(rules: str | os.PathLike[str] | CompiledRules) -> str:
    """What to call the rules in a record: their path, or the sha256 of their text."""
    if isinstance(rules, str) and "{" in rules:
        return f"text of sha256 {hashlib.sha256(rules.encode('utf-8', 'surrogatepass')).hexdigest()}"
    return os.fspath(rules) if isinstance(rules, (str, os.PathLike)) else "compiled rules"


def _rows(inventory: Inventory, scanner: _Scanner, progress: Progress | None) -> Iterator[Match]:
    for seen in contents(inventory, scanner, by_path=scanner.by_path, progress=progress):
        if seen.result is None:
            continue
        for fault in seen.result.faults:
            inventory.problems.add(seen.origin, type(fault)(f"{seen.path}: {fault}", origin=seen.origin))
        for rule, namespace, tags, meta, strings in seen.result.matches:
            yield Match(
                seen.owner, seen.path, rule, namespace, tags, meta, strings, seen.size, seen.sha256, seen.origin
            )


class _Matched(NamedTuple):
    rule: str
    namespace: str
    tags: tuple[str, ...]
    meta: tuple[tuple[str, str | int | bool], ...]
    strings: tuple[tuple[str, int, bytes], ...]


class _Result(NamedTuple):
    matches: tuple[_Matched, ...]
    faults: tuple[DamagedData, ...] = ()


_NOTHING = _Result(())


class _Scanner:
    """Runs the rules on one content; threads may share it."""

    def __init__(self, yara: ModuleType, rules: CompiledRules, by_path: bool, timeout: int) -> None:
        self.by_path = by_path
        self._yara = yara
        self._rules: Any = rules  # yara has no type information
        self._timeout = timeout

    def __call__(self, data: Data, path: str) -> _Result:
        faults: list[DamagedData] = []

        def too_many(kind: int, string: object) -> int:
            faults.append(LimitExceeded(f"YARA stopped counting a string that is found too often: {string}"))
            return int(self._yara.CALLBACK_CONTINUE)

        try:
            found = self._rules.match(
                data=data,
                timeout=self._timeout,
                externals=_externals(path) if self.by_path else {},
                allow_duplicate_metadata=True,
                warnings_callback=too_many,
            )
        except self._yara.TimeoutError:
            return _Result((), (LimitExceeded(f"scanning took longer than {self._timeout} seconds"),))
        except self._yara.Error as error:
            return _Result((), (DamagedData(f"YARA: {error}"),))
        if not found and not faults:
            return _NOTHING
        matches = tuple(
            _Matched(
                match.rule,
                match.namespace,
                tuple(match.tags),
                tuple((name, value) for name, values in match.meta.items() for value in values),
                _listed(
                    match.rule,
                    ((s.identifier, i.offset, bytes(i.matched_data)) for s in match.strings for i in s.instances),
                    faults,
                ),
            )
            for match in found
        )
        return _Result(matches, tuple(faults))


def _listed(
    rule: str, strings: Iterator[tuple[str, int, bytes]], faults: list[DamagedData]
) -> tuple[tuple[str, int, bytes], ...]:
    listed = tuple(islice(strings, _MAX_STRINGS))
    if next(strings, None) is not None:
        faults.append(LimitExceeded(f"rule {rule}: the first {_MAX_STRINGS} strings are listed"))
    return listed


def _externals(path: str) -> dict[str, str]:
    """The variables of one path; bytes that are no UTF-8 are replaced, because YARA takes text."""
    path = path.encode("utf-8", "replace").decode()
    name = path.rpartition("/")[2]
    stem, dot, suffix = name.rpartition(".")
    return dict.fromkeys(_EXTERNALS, "") | {
        "filename": name,
        "filepath": path,
        "extension": (dot + suffix).lower() if stem else "",
    }


def _load(
    yara: ModuleType, rules: str | os.PathLike[str] | CompiledRules, problems: ProblemLog
) -> tuple[CompiledRules, bool]:
    """The rules, compiled, and whether they depend on the path."""
    if not isinstance(rules, (str, os.PathLike)):
        return rules, _uses_externals(yara, rules)
    if isinstance(rules, str) and "{" in rules:
        return _compile_or_raise(yara, "the text of the rules", source=rules)
    path = Path(rules)
    if path.is_dir():
        return _load_folder(yara, path, problems)
    if not path.is_file():
        raise PathNotFound(f"no YARA rules at {path}")
    with path.open("rb") as file:
        compiled = file.read(len(_COMPILED)) == _COMPILED
    if not compiled:
        return _compile_or_raise(yara, str(path), filepath=str(path))
    try:
        loaded: CompiledRules = yara.load(str(path))
    except yara.Error as error:
        raise UnsupportedFormat(f"{path} holds compiled rules that this YARA cannot load: {error}") from error
    return loaded, _uses_externals(yara, loaded)


def _load_folder(yara: ModuleType, folder: Path, problems: ProblemLog) -> tuple[CompiledRules, bool]:
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES and path.is_file())
    if not files:
        raise UnsupportedFormat(f"{folder} holds no file of rules ({', '.join(_SUFFIXES)})")
    sources = {path.relative_to(folder).as_posix(): str(path) for path in files}
    try:
        return _compile(yara, filepaths=sources)
    except yara.Error:
        reason: ForensicsError | None = None
        for namespace, path in list(sources.items()):
            try:
                _compile_or_raise(yara, path, filepath=path)
            except DamagedData as error:
                reason = error
                problems.add(Origin(folder.name).to(namespace), error)
                del sources[namespace]
        if not sources and reason is not None:
            raise reason from None
        return _compile_or_raise(yara, str(folder), filepaths=sources)


def _compile_or_raise(yara: ModuleType, name: str, **source: object) -> tuple[CompiledRules, bool]:
    try:
        return _compile(yara, **source)
    except (yara.Error, UnicodeEncodeError) as error:
        raise DamagedData(f"{name}: no YARA rules that compile: {error}") from error


def _compile(yara: ModuleType, **source: object) -> tuple[CompiledRules, bool]:
    """First without external variables: rules that need none give the same answer for every path."""
    try:
        return yara.compile(**source), False
    except yara.SyntaxError as error:
        if "undefined identifier" not in str(error):
            raise
        return yara.compile(**source, externals=dict.fromkeys(_EXTERNALS, "")), True


def _uses_externals(yara: ModuleType, rules: CompiledRules) -> bool:
    """Whether compiled rules know our variables: YARA refuses a value of another type for those, and only for those."""
    probe: Any = rules.match
    for name in _EXTERNALS:
        try:
            probe(data=b"", externals={name: 0})
        except yara.Error:
            return True
    return False
