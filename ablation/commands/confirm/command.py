"""`ablation confirm` as a command: its arguments, what it prints, and the tag with the verdict in MLflow."""

from __future__ import annotations

from ablation.commands.arguments import STORE, Arguments
from ablation.commands.confirm.confirm import confirm
from ablation.errors import UsageError
from ablation.study.study_list import command, require_study
from ablation.tracking.experiment import publish_files

_DEFAULTS = {"study": "", "seeds": "", "out": "runs", **STORE}
_LONGEST_TAG = 500


def run(arguments: list[str]) -> int:
    """Confirm a study's finalists; arguments that are not its own go to `ablation train`."""
    args = Arguments.parse("confirm", arguments, _DEFAULTS, overrides=True)
    require_study("confirm", args.text("study"), args.path("out"))
    if not args.text("seeds"):
        raise UsageError("ablation confirm: seeds=... is missing; give fresh ones, as in seeds=10-15")
    store, seeds, out = args.store(), args.whole_numbers("seeds"), args.path("out")
    tracking = [f"tracking.{key}={args.text(key)}" for key in STORE if args.text(key)]
    confirmed = confirm(args.text("study"), seeds, out, store, args.overrides + tracking)
    choice, sentence = confirmed.choice, confirmed.confirmation.sentence[:_LONGEST_TAG]
    publish_files(store, choice.name, [], "report", {"verdict": sentence})
    publish_files(store, choice.study, [confirmed.path], "confirmation", {"confirmation": sentence})
    print("\n".join(confirmed.lines))
    print(f"written to {confirmed.path}; `{command('report', choice.study, out)}` shows it")
    return 0
