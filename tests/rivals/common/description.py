"""What export.py wrote beside the network: the front end's definition and the operating point."""

import json
from pathlib import Path


def description(model):
    with open(Path(model).with_suffix(".json")) as file:
        return json.load(file)
