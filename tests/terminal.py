"""Running a program on a terminal, and what the terminal shows of its output."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

CONTROL = re.compile(r"\x1b\[\??([0-9;]*)([A-Za-z])|(\r)|(\n)")


def run_in_terminal(
    folder: Path, *arguments: str, columns: int = 120, **environment: str
) -> tuple[int, str]:
    """Run Python with arguments in a folder; return its exit code and its output."""
    terminal, child_terminal = pty.openpty()
    fcntl.ioctl(child_terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    with subprocess.Popen(
        [sys.executable, *arguments],
        cwd=folder,
        env=os.environ | {"TERM": "xterm"} | environment,
        stdin=child_terminal,
        stdout=child_terminal,
        stderr=child_terminal,
    ) as process:
        os.close(child_terminal)
        output = b""
        while True:
            try:
                chunk = os.read(terminal, 65536)
            except OSError:  # the program has ended
                break
            if not chunk:
                break
            output += chunk
    os.close(terminal)
    return process.returncode, output.decode()


def shown_lines(output: str) -> list[str]:
    """Return the lines that a terminal of any height shows in the end."""
    lines, row, column, position = [""], 0, 0, 0
    while position < len(output):
        match = CONTROL.match(output, position)
        if match is None:
            line = lines[row].ljust(column)
            lines[row] = line[:column] + output[position] + line[column + 1 :]
            position, column = position + 1, column + 1
            continue
        position = match.end()
        number, letter, carriage_return, line_feed = match.groups()
        if letter == "A":
            row -= int(number or 1)
        elif letter == "K":
            assert number == "2"  # the whole line
            lines[row] = ""
        elif carriage_return:
            column = 0
        elif line_feed:
            row += 1
            lines += [""] * (row == len(lines))
        else:
            assert letter in "mhl", match  # colors, the cursor
    return lines
