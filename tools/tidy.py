#!/usr/bin/env python3
"""tools/tidy.py - checks what review should not have to: layers, banned constructs, file sizes."""
import pathlib
import re
import sys

LAYERS = ["core", "proto", "pool", "lb", "tools"]
BANNED = [r"\bthrow\b", r"#include <iostream>", r"\bstd::function\b", r"\bdynamic_cast\b",
          r"\bstd::mutex\b"]
LINES_MAX = 600


def too_long(path: pathlib.Path, lines: int) -> list[str]:
    return [f"{path}:{LINES_MAX}: file has {lines} lines, at most {LINES_MAX}"] if lines > LINES_MAX else []


def problems_of(path: pathlib.Path, layer: int) -> list[str]:
    found = []
    lines = path.read_text().splitlines()
    found += too_long(path, len(lines))
    if not lines or not lines[0].startswith(f"// {path}"):
        found.append(f"{path}:1: the first line names the file: // {path}")
    if path.suffix == ".h" and "#pragma once" not in lines:
        found.append(f"{path}:1: header without #pragma once")
    for number, line in enumerate(lines, 1):
        include = re.match(r'#include "(\w+)/', line)
        if include and include[1] in LAYERS and LAYERS.index(include[1]) > layer:
            found.append(f"{path}:{number}: {LAYERS[layer]} may not include {include[1]}")
        code = line.split("//")[0]
        found += [f"{path}:{number}: banned: {ban}" for ban in BANNED if re.search(ban, code)]
    return found


def main() -> int:
    found = []
    count = 0
    for index, layer in enumerate(LAYERS):
        for path in sorted(pathlib.Path(layer).rglob("*")):
            if path.suffix in (".h", ".cc"):
                count += 1
                found += problems_of(path, index)
    for folder in ("tests", "bench"):
        for path in sorted(pathlib.Path(folder).rglob("*")):
            if path.suffix in (".h", ".cc", ".py"):
                count += 1
                found += too_long(path, len(path.read_text().splitlines()))
    print("\n".join(found) if found else f"tidy: {count} files, nothing to say")
    return 1 if found or count == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
