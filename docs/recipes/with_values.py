"""Run a script whose settings are assignments in its own text with other values, without editing it.

    python with_values.py train.py seed=3 "save_dir='/runs/a'" + evaluate.py --before "import x; x.y = 1" n=2

NAME=EXPRESSION replaces the right side of every assignment to NAME at the top of the script or inside its
`if __name__ == "__main__":`. --before runs a statement first. `+` stands between scripts, which run one after
another, each in a process of its own, in this folder; the first that fails ends the whole.
"""

import ast
import subprocess
import sys
import types
from pathlib import Path


def replaced(text, path, values):
    """The script's tree with the values; every one of them must be assigned somewhere."""
    tree, left = ast.parse(text, path), dict(values)
    blocks = [tree.body, *(node.body for node in tree.body if isinstance(node, ast.If))]
    for node in (node for block in blocks for node in block):
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        if (
            isinstance(target, ast.Name)
            and target.id in values
            and isinstance(node, ast.Assign | ast.AnnAssign)
        ):
            node.value = ast.parse(values[target.id], mode="eval").body
            left.pop(target.id, None)
    if left:
        sys.exit(f"with_values.py: {path} assigns no {', '.join(left)}; look for the names of its settings")
    return ast.fix_missing_locations(tree)


def run(path, words):
    """One script, as if it had been started by itself in this folder."""
    values, before = {}, []
    while words:
        word = words.pop(0)
        if word == "--before":
            before.append(words.pop(0))
        else:
            name, _, expression = word.partition("=")
            values[name] = expression
    tree = replaced(Path(path).read_text(encoding="utf-8"), path, values)
    module = types.ModuleType("__main__")
    module.__file__ = path
    sys.modules["__main__"], sys.argv, sys.path[0] = module, [path], ""
    for statement in before:
        exec(statement, {})
    exec(compile(tree, path, "exec"), module.__dict__)


def main(words):
    if words[:1] == ["--one"]:
        run(words[1], words[2:])
        return
    while words:
        end = words.index("+") if "+" in words else len(words)
        code = subprocess.run([sys.executable, __file__, "--one", *words[:end]], check=False).returncode
        if code:
            sys.exit(code if code > 0 else 1)
        words = words[end + 1 :]


if __name__ == "__main__":
    main(sys.argv[1:])
