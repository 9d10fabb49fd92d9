"""The whole story inside a real Slicer.

    Slicer --testing --python-script Testing/slicer/story.py

``SAMSEMISEG_DATA`` names the folder with the hippocampus scans (``images``, ``labels``,
``train.list``). Ends with exit code 0 only when all chapters have passed: whatever else happens,
a timeout included, the exit code is another one.
"""

import faulthandler
import os
import sys
import traceback
from pathlib import Path

import slicer

LONGEST_SECONDS = 20 * 60


def main() -> int:
    data = os.environ.get("SAMSEMISEG_DATA")
    if not data or not (Path(data) / "train.list").is_file():
        print("SAMSEMISEG_DATA does not name a folder of scans; the story was not run.")
        return 2
    # Ends Slicer with an exit code that is not 0 if a chapter hangs.
    faulthandler.dump_traceback_later(LONGEST_SECONDS, exit=True, file=sys.__stderr__)
    slicer.util.selectModule("SAMSemiSeg")
    widget = slicer.util.getModuleWidget("SAMSemiSeg")
    from SAMSemiSegModule.story import runStory

    runStory(widget, data)
    return 0


try:
    code = main()
    print("The story has passed." if code == 0 else "The story has failed.")
except BaseException:
    traceback.print_exc()
    code = 1
slicer.util.exit(code)
