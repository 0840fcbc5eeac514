"""A training script without arguments: its settings are assignments, as in many repositories."""

import json
from pathlib import Path

from nets.loss import name_of

VERSION: int = 1
if __name__ == "__main__":
    seed = 11
    save_dir = "logs"
    focal_loss = False
    focal_gamma = 2
    epochs = 300

    folder = Path(save_dir)
    folder.mkdir(exist_ok=True)
    row = {"seed": seed, "loss": name_of(focal_loss), "gamma": focal_gamma, "epochs": epochs, "v": VERSION}
    (folder / "last_epoch_weights.pth").write_text(json.dumps(row))
    print("trained", __file__)
