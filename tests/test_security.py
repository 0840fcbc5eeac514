"""What no file of the package may do: unpickle, evaluate text, start a shell, listen to the network."""

from __future__ import annotations

import ast

from helpers.sources import FILES, calls, nodes


def test_every_torch_load_takes_weights_only_and_nothing_else_unpickles() -> None:
    loads = [(where, call) for where, name, call in calls() if name.endswith("torch.load")]
    assert len(loads) >= 3
    for where, call in loads:
        keywords = {word.arg: ast.unparse(word.value) for word in call.keywords}
        assert keywords.get("weights_only") == "True", where
    for path in FILES:
        for node in nodes(path):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            assert not {"pickle", "dill", "joblib", "shelve", "marshal", "cloudpickle"} & {
                name.split(".")[0] for name in names
            }, path
    for where, name, call in calls():
        if name in ("np.load", "numpy.load", "pd.read_pickle"):
            assert name.endswith("load"), where
            keywords = {word.arg: ast.unparse(word.value) for word in call.keywords}
            assert keywords.get("allow_pickle", "False") == "False", where


FORBIDDEN = {
    "eval",
    "exec",
    "compile",
    "__import__",
    "os.system",
    "os.popen",
    "yaml.load",
    "yaml.unsafe_load",
    "yaml.full_load",
    "subprocess.getoutput",
    "subprocess.getstatusoutput",
}


def test_nothing_evaluates_text_and_programs_get_lists_of_arguments() -> None:
    started = 0
    for where, name, call in calls():
        assert name not in FORBIDDEN, f"{where}: {name}"
        assert not name.startswith("os.spawn") and not name.startswith("os.exec"), where
        if name.endswith((".eval", ".query")):  # a network's eval() takes nothing; pandas' evaluate text
            assert not call.args and not call.keywords, where
        if name.startswith("subprocess."):
            started += 1
            assert not any(word.arg == "shell" for word in call.keywords), f"{where}: shell="
            first = call.args[0]
            assert not isinstance(first, ast.Constant | ast.JoinedStr | ast.BinOp), (
                f"{where}: a text, no list"
            )
    assert started >= 1


def test_no_file_names_the_address_of_all_interfaces_or_adds_a_resolver() -> None:
    for path in FILES:
        assert "0.0.0.0" not in path.read_text(), path
    for where, name, _ in calls():
        assert "register_new_resolver" not in name and "register_resolver" not in name, where
